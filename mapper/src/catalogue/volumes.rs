//! Volumes: creating, listing, opening, resizing, renaming, deleting.

use super::{Catalogue, ResourceEntry, unix_seconds};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    EntryKind, Key, KeyRange, LogicalBlock, NameRow, NodeRow, NodeState, ParsedKey, ResourceKind,
    ResourceRow, decode_page, decode_whole, unseal,
};
use crate::handle::{VolumeHandle, on_core};
use crate::meta::{Batch, Cursor, Durability, MetaStore, require_row};
use crate::types::{ENTRIES_PER_PAGE, NodeId, PageNo, ResourceId, ResourceName};
use crate::volume::{OpenVolume, Volume, VolumeShared};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Smallest and largest volume in bytes, and what sizes are multiples of.
pub const MIN_VOLUME_SIZE: u64 = 1 << 20;
pub const MAX_VOLUME_SIZE: u64 = 1 << 50;
pub const VOLUME_SIZE_UNIT: u64 = 4096;
/// Rows read at a time.
const SCAN_ROWS: usize = 256;

/// What a new volume is made of.
#[derive(Clone, Debug)]
pub struct NewVolume {
    pub id: ResourceId,
    pub name: ResourceName,
    /// Bytes: [`MIN_VOLUME_SIZE`] to [`MAX_VOLUME_SIZE`], a multiple of [`VOLUME_SIZE_UNIT`].
    pub size: u64,
    pub block: LogicalBlock,
    pub pool: ResourceName,
}

/// A volume as admins see it.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    pub id: ResourceId,
    pub row: ResourceRow,
    pub pool: ResourceName,
    pub object_size: u32,
    /// The nearest snapshot that it inherits from.
    pub origin: Option<ResourceName>,
    /// A sync or commit has failed, now or in an earlier run: it answers no I/O.
    pub faulted: bool,
    /// While it is open: its counters.
    pub shared: Option<Arc<VolumeShared>>,
}

impl Catalogue {
    pub(crate) async fn create_volume(self: &Rc<Self>, new: NewVolume) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        check_size(new.size)?;
        self.check_free(&new.name)?;
        if self.resources.borrow().contains_key(&new.id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a resource {} already", new.id),
            ));
        }
        let pool = self
            .pool_named(&new.pool)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no pool \"{}\"", new.pool)))?;
        let cut = core_state()?.pool(pool)?.generations.fresh().await?;
        let mut batch = Batch::new();
        let node = self.new_node(&mut batch)?;
        let row = ResourceRow {
            kind: ResourceKind::Volume,
            read_only: false,
            protected: false,
            block: new.block,
            pool,
            node,
            size: new.size,
            created: unix_seconds(),
            name: new.name,
        };
        let node_row = NodeRow {
            pool,
            state: NodeState::Head,
            faulted: false,
            parent: None,
            inherit_end: 0,
            cut,
            current: Some(cut),
            run: self.start,
            trim: None,
            depth: 0,
        };
        batch.put_row(Key::resource(new.id), &row);
        batch.put_row(Key::name(&row.name), &NameRow { id: new.id });
        batch.put_row(Key::node(node), &node_row);
        self.meta.commit(batch, Durability::Synced).await?;
        self.names.borrow_mut().insert(row.name.clone(), new.id);
        let entry = ResourceEntry {
            row,
            open: RefCell::default(),
        };
        self.resources.borrow_mut().insert(new.id, entry);
        self.info(new.id)
    }

    fn check_free(&self, name: &ResourceName) -> Result<()> {
        if self.names.borrow().contains_key(name) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a volume \"{name}\" already"),
            ));
        }
        Ok(())
    }

    pub(crate) fn info(&self, id: ResourceId) -> Result<VolumeInfo> {
        let resources = self.resources.borrow();
        let entry = resources
            .get(&id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no resource {id}")))?;
        let pools = self.pools.borrow();
        let pool = pools.get(&entry.row.pool).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("resource {id} is in a pool that is not there"),
            )
        })?;
        let shared = entry.open.borrow().as_ref().map(|(_, s)| s.clone());
        let now = shared.as_ref().is_some_and(|shared| shared.is_faulted());
        Ok(VolumeInfo {
            id,
            row: entry.row.clone(),
            pool: pool.row.name.clone(),
            object_size: pool.row.object_size.bytes(),
            origin: None,
            faulted: now || self.faulted.borrow().contains(&entry.row.node),
            shared,
        })
    }

    pub(crate) fn volume_by_name(&self, name: &ResourceName) -> Result<VolumeInfo> {
        self.info(self.id_of(name)?)
    }

    pub(crate) fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        let ids: Vec<ResourceId> = self.names.borrow().values().copied().collect();
        ids.into_iter().map(|id| self.info(id)).collect()
    }

    /// Bytes of objects that the volume's committed map names.
    pub(crate) async fn mapped_bytes(&self, id: ResourceId) -> Result<u64> {
        let row = self.row(id)?;
        let object = u64::from(self.info(id)?.object_size);
        Ok(mapped_objects(&*self.meta, row.node).await? * object)
    }

    /// Opens a volume on its home core, if it is not open yet.
    pub(crate) async fn open_resource(self: &Rc<Self>, id: ResourceId) -> Result<VolumeHandle> {
        let info = self.info(id)?;
        if let Some((home, shared)) = self.opened(id) {
            return Ok(VolumeHandle::new(id, home, shared));
        }
        let home = self.home(id);
        let shared = VolumeShared::new(info.row.size, self.cores.len());
        let (row, given, unclean) = (info.row, shared.clone(), self.unclean);
        on_core(&home, move || async move {
            let state = core_state()?;
            let pool = state.pool(row.pool)?;
            let node_row: NodeRow = require_row(&*state.meta, &Key::node(row.node)).await?;
            let open = OpenVolume {
                id,
                resume_generation: node_row.run >= unclean,
                row,
                node_row,
                shared: given,
                io_timeout: state.io_timeout,
            };
            let volume = Volume::open(open, pool, state.meta.clone(), state.budget.clone());
            volume.start_trim();
            state.volumes.borrow_mut().insert(id, volume);
            Ok(())
        })
        .await?;
        if let Some(entry) = self.resources.borrow().get(&id) {
            entry.open.replace(Some((home.clone(), shared.clone())));
        }
        Ok(VolumeHandle::new(id, home, shared))
    }

    fn opened(&self, id: ResourceId) -> Option<(atoll_reactor::CoreHandle, Arc<VolumeShared>)> {
        self.resources.borrow().get(&id)?.open.borrow().clone()
    }

    pub(crate) async fn open_volume(self: &Rc<Self>, name: &ResourceName) -> Result<VolumeHandle> {
        let _verb = self.verb().await?;
        self.open_resource(self.id_of(name)?).await
    }

    pub(crate) async fn resize_volume(
        self: &Rc<Self>,
        name: &ResourceName,
        size: u64,
    ) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        check_size(size)?;
        let id = self.id_of(name)?;
        let handle = self.open_resource(id).await?;
        let row = ResourceRow {
            size,
            ..self.row(id)?
        };
        let wanted = row.clone();
        on_core(handle.home(), move || async move {
            core_state()?.volume(id)?.resize(wanted).await
        })
        .await?;
        if let Some(entry) = self.resources.borrow_mut().get_mut(&id) {
            entry.row = row;
        }
        self.info(id)
    }

    pub(crate) async fn rename_volume(
        self: &Rc<Self>,
        name: &ResourceName,
        to: ResourceName,
    ) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        let id = self.id_of(name)?;
        if *name == to {
            return self.info(id);
        }
        self.check_free(&to)?;
        self.check_not_exported(id, name)?;
        let row = ResourceRow {
            name: to.clone(),
            ..self.row(id)?
        };
        let mut batch = Batch::new();
        batch.delete(Key::name(name));
        batch.put_row(Key::name(&to), &NameRow { id });
        batch.put_row(Key::resource(id), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        let mut names = self.names.borrow_mut();
        names.remove(name);
        names.insert(to, id);
        drop(names);
        if let Some(entry) = self.resources.borrow_mut().get_mut(&id) {
            entry.row = row;
        }
        self.info(id)
    }

    /// Frees the name at once and the space in the background.
    pub(crate) async fn delete_volume(self: &Rc<Self>, name: &ResourceName) -> Result<()> {
        let _verb = self.verb().await?;
        let id = self.id_of(name)?;
        self.check_not_exported(id, name)?;
        let row = self.row(id)?;
        if let Some((home, _)) = self.opened(id) {
            let run = self.start;
            on_core(&home, move || async move {
                let state = core_state()?;
                let volume = state.volume(id)?;
                // A volume that cannot be flushed is deleted all the same: what its last
                // uncommitted writes created is found by the leak scan.
                if let Err(error) = volume.retire(run).await {
                    if error.kind() == ErrorKind::Busy {
                        return Err(error);
                    }
                    volume.abandon(&error).await;
                }
                volume.dismiss_peers();
                state.volumes.borrow_mut().remove(&id);
                Ok(())
            })
            .await?;
            if let Some(entry) = self.resources.borrow().get(&id) {
                entry.open.replace(None);
            }
        }
        let node_row: NodeRow = require_row(&*self.meta, &Key::node(row.node)).await?;
        let dying = NodeRow {
            state: NodeState::Dying,
            faulted: false,
            current: None,
            trim: None,
            ..node_row
        };
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch.delete(Key::resource(id));
        batch.delete(Key::name(name));
        batch.put_row(Key::node(row.node), &dying);
        self.meta.commit(batch, Durability::Synced).await?;
        self.names.borrow_mut().remove(name);
        self.resources.borrow_mut().remove(&id);
        self.reap(row.node, row.pool);
        Ok(())
    }
}

fn check_size(size: u64) -> Result<()> {
    if !(MIN_VOLUME_SIZE..=MAX_VOLUME_SIZE).contains(&size) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("a volume has 1 MiB to 1 PiB; {size} bytes were asked for"),
        ));
    }
    if !size.is_multiple_of(VOLUME_SIZE_UNIT) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "a volume's size is a multiple of {VOLUME_SIZE_UNIT} bytes; {} would be",
                size.next_multiple_of(VOLUME_SIZE_UNIT)
            ),
        ));
    }
    Ok(())
}

/// Entries of a node's committed map that name an object.
async fn mapped_objects(meta: &dyn MetaStore, node: NodeId) -> Result<u64> {
    let names_object = |kind: EntryKind| matches!(kind, EntryKind::Object(_) | EntryKind::Ref(_));
    let mut count = 0;
    let mut groups = Cursor::new(KeyRange::groups_of(node));
    loop {
        let pairs = groups.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            break;
        }
        for (key, value) in pairs {
            let slots = decode_whole(unseal(&key, &value)?)?;
            let uniform = slots
                .iter()
                .filter(|entry| names_object(entry.kind()))
                .count();
            count += (uniform * ENTRIES_PER_PAGE) as u64;
        }
    }
    let mut pages = Cursor::new(KeyRange::pages_of(node, PageNo::ZERO));
    loop {
        let pairs = pages.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            return Ok(count);
        }
        for (key, value) in pairs {
            if let Some(ParsedKey::Page(..)) = Key::parse(&key) {
                let slots = decode_page(unseal(&key, &value)?)?;
                count += slots
                    .iter()
                    .filter(|entry| names_object(entry.kind()))
                    .count() as u64;
            }
        }
    }
}
