//! Exports: which resources are made visible, by which protocol. How they are served is the
//! targets' business.

use super::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ExportRow, Key, Protocol};
use crate::meta::{Batch, Durability};
use crate::types::{ResourceId, ResourceName};
use std::rc::Rc;

/// An export as admins see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportInfo {
    pub id: ResourceId,
    pub name: ResourceName,
    pub protocol: Protocol,
    pub read_only: bool,
}

impl Catalogue {
    pub(crate) async fn add_export(
        self: &Rc<Self>,
        name: &ResourceName,
        protocol: Protocol,
        read_only: bool,
    ) -> Result<ExportInfo> {
        let _verb = self.verb().await?;
        let id = self.id_of(name)?;
        if self.exports.borrow().contains_key(&(id, protocol)) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("volume \"{name}\" is exported already"),
            ));
        }
        let row = ExportRow { read_only };
        let mut batch = Batch::new();
        batch.put_row(Key::export(id, protocol), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        self.exports.borrow_mut().insert((id, protocol), row);
        Ok(ExportInfo {
            id,
            name: name.clone(),
            protocol,
            read_only,
        })
    }

    pub(crate) fn list_exports(&self) -> Result<Vec<ExportInfo>> {
        let exports = self.exports.borrow();
        let mut infos = exports
            .iter()
            .map(|((id, protocol), row)| {
                let name = self.row(*id)?.name;
                let (id, protocol) = (*id, *protocol);
                Ok(ExportInfo {
                    id,
                    name,
                    protocol,
                    read_only: row.read_only,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    pub(crate) async fn remove_export(
        self: &Rc<Self>,
        name: &ResourceName,
        protocol: Protocol,
    ) -> Result<ExportInfo> {
        let _verb = self.verb().await?;
        let id = self.id_of(name)?;
        let row = self
            .exports
            .borrow()
            .get(&(id, protocol))
            .cloned()
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("volume \"{name}\" is not exported"),
                )
            })?;
        let mut batch = Batch::new();
        batch.delete(Key::export(id, protocol));
        self.meta.commit(batch, Durability::Synced).await?;
        self.exports.borrow_mut().remove(&(id, protocol));
        Ok(ExportInfo {
            id,
            name: name.clone(),
            protocol,
            read_only: row.read_only,
        })
    }

    pub(super) fn check_not_exported(&self, id: ResourceId, name: &ResourceName) -> Result<()> {
        let exports = self.exports.borrow();
        let Some((_, protocol)) = exports.keys().find(|(exported, _)| *exported == id) else {
            return Ok(());
        };
        let by = match protocol {
            Protocol::Iscsi => "iSCSI",
            Protocol::NvmeTcp => "NVMe/TCP",
        };
        Err(Error::new(
            ErrorKind::InUse,
            format!("volume \"{name}\" is exported over {by}; remove the export first"),
        ))
    }
}
