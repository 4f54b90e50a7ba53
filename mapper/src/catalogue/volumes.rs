//! Volumes: creating, listing, opening, resizing, renaming, deleting.

use super::snapshots::check_unprotected;
use super::tree::TreeEntry;
use super::{Catalogue, Closed, ResourceEntry, unix_seconds};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Key, LogicalBlock, NameRow, NodeRow, NodeState, ResourceKind, ResourceRow};
use crate::handle::{VolumeHandle, on_core};
use crate::meta::{Batch, Durability};
use crate::types::{NodeId, ResourceId, ResourceName};
use crate::volume::{OpenVolume, Volume, VolumeShared, new_node_rows};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Smallest and largest volume in bytes, and what sizes are multiples of.
pub const MIN_VOLUME_SIZE: u64 = 1 << 20;
pub const MAX_VOLUME_SIZE: u64 = 1 << 50;
pub const VOLUME_SIZE_UNIT: u64 = 4096;

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
        self.check_id_free(new.id)?;
        let pool = self
            .pool_named(&new.pool)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no pool \"{}\"", new.pool)))?;
        let home = self.home_of_new(new.id);
        let cut = self.fresh_generation(home, pool).await?;
        let node = self.new_node().await?;
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
        let mut batch = new_node_rows(node, &node_row);
        batch.put_row(Key::resource(new.id), &row);
        batch.put_row(Key::name(&row.name), &NameRow { id: new.id });
        self.meta.commit(batch, Durability::Synced).await?;
        let entry = TreeEntry {
            pool,
            state: NodeState::Head,
            parent: None,
            children: Default::default(),
            resource: None,
            home,
        };
        self.tree.borrow_mut().insert(node, entry);
        self.add_resource(new.id, row);
        self.info(new.id)
    }

    pub(super) fn check_id_free(&self, id: ResourceId) -> Result<()> {
        if self.resources.borrow().contains_key(&id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a resource {id} already"),
            ));
        }
        Ok(())
    }

    pub(super) fn check_free(&self, name: &ResourceName) -> Result<()> {
        if self.names.borrow().contains_key(name) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a {} \"{name}\" already", self.noun(name)),
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
            origin: self.origin(&resources, entry.row.node),
            faulted: now || self.faulted.borrow().contains(&entry.row.node),
            shared,
        })
    }

    /// The nearest snapshot above a node.
    fn origin(
        &self,
        resources: &BTreeMap<ResourceId, ResourceEntry>,
        node: NodeId,
    ) -> Option<ResourceName> {
        let tree = self.tree.borrow();
        let mut above = tree.ancestors(node);
        let named = above.find_map(|node| tree.get(node).ok()?.resource)?;
        resources.get(&named).map(|entry| entry.row.name.clone())
    }

    /// What admins call the resource of this name.
    fn noun(&self, name: &ResourceName) -> &'static str {
        let row = self.id_of(name).and_then(|id| self.row(id));
        row.map_or("volume", |row| match row.kind {
            ResourceKind::Volume => "volume",
            ResourceKind::Snapshot => "snapshot",
            ResourceKind::Image => "image",
            ResourceKind::File => "file",
        })
    }

    pub(crate) fn volume_by_name(&self, name: &ResourceName) -> Result<VolumeInfo> {
        self.info(self.id_of(name)?)
    }

    pub(crate) fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        let ids: Vec<ResourceId> = self.names.borrow().values().copied().collect();
        ids.into_iter().map(|id| self.info(id)).collect()
    }

    /// Bytes of the objects that the committed maps of the resource and of all that it inherits from name, at most what
    /// all of the resource takes. It is an upper bound of what reading the resource can return: an object of an ancestor
    /// counts although the resource, or a later ancestor, has another one, or a hole, at its place.
    pub(crate) async fn mapped_bytes(&self, id: ResourceId) -> Result<u64> {
        let row = self.row(id)?;
        let object = u64::from(self.info(id)?.object_size);
        let chain: Vec<NodeId> = {
            let tree = self.tree.borrow();
            std::iter::once(row.node)
                .chain(tree.ancestors(row.node))
                .collect()
        };
        let objects = self.objects_of(chain).await?;
        Ok((objects * object).min(row.size.next_multiple_of(object)))
    }

    /// Opens a volume on its home core, if it is not open yet.
    pub(crate) async fn open_resource(self: &Rc<Self>, id: ResourceId) -> Result<VolumeHandle> {
        // The collector opens volumes too.
        let _one = self.opening.close().await;
        let info = self.info(id)?;
        if let Some((home, shared)) = self.opened(id) {
            return Ok(VolumeHandle::new(id, home, shared));
        }
        let home = self.home(info.row.node)?;
        let shared = VolumeShared::new(info.row.size, info.row.read_only, self.cores.len());
        let closed = {
            let resources = self.resources.borrow();
            resources.get(&id).map_or(Closed::Never, |e| e.closed.get())
        };
        let unclean = match closed {
            Closed::Never => self.unclean,
            // What it gave up in this run is not in its row: it takes a fresh generation.
            Closed::Flushed | Closed::Abandoned => u64::MAX,
        };
        let (row, given) = (info.row, shared.clone());
        on_core(&home, move || async move {
            let state = core_state()?;
            let pool = state.pool(row.pool)?;
            let open = OpenVolume {
                id,
                unclean,
                row,
                shared: given,
                io_timeout: state.io_timeout,
                background: state.background.clone(),
            };
            let (meta, budget) = (state.meta.clone(), state.budget.clone());
            let volume = Volume::open(open, pool, meta, state.nodes.clone(), budget).await?;
            if closed == Closed::Abandoned {
                volume.stay_faulted();
            }
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

    pub(super) fn opened(
        &self,
        id: ResourceId,
    ) -> Option<(atoll_reactor::CoreHandle, Arc<VolumeShared>)> {
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
        if self.row(id)?.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "\"{name}\" is a snapshot, whose size never changes; clone it, and resize the clone"
                ),
            ));
        }
        let _tree = self.lock_tree(self.row(id)?.pool).await?;
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
        self.settle(id).await?;
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
        check_unprotected(&row)?;
        let _tree = self.lock_tree(row.pool).await?;
        let mut batch = Batch::new();
        if let Some((home, _)) = self.opened(id) {
            let run = self.start;
            let closed;
            (batch, closed) = on_core(&home, move || async move {
                let state = core_state()?;
                let mut closed = Closed::Flushed;
                let volume = state.volume(id)?;
                // A volume that cannot be flushed is deleted all the same: what its last
                // uncommitted writes created is found by the leak scan.
                if let Err(error) = volume.retire(run).await {
                    if error.kind() == ErrorKind::Busy {
                        return Err(error);
                    }
                    volume.abandon(&error).await;
                    closed = Closed::Abandoned;
                }
                volume.dismiss_peers();
                state.volumes.borrow_mut().remove(&id);
                Ok((volume.take_rows(), closed))
            })
            .await?;
            if let Some(entry) = self.resources.borrow().get(&id) {
                entry.open.replace(None);
                entry.closed.set(closed);
            }
        }
        if !batch.is_empty() {
            // Of a cut that no flush could make durable; what follows is laid over it.
            batch.set_frees(true);
            self.meta.commit(batch, Durability::Unsynced).await?;
        }
        let (mut batch, dying) = self.dropping(row.node).await?;
        batch.set_frees(true);
        batch.delete(Key::resource(id));
        batch.delete(Key::name(name));
        self.meta.commit(batch, Durability::Synced).await?;
        self.names.borrow_mut().remove(name);
        self.resources.borrow_mut().remove(&id);
        self.tree.borrow_mut().name(row.node, None);
        self.dropped(dying);
        self.collect(row.pool);
        Ok(())
    }
}

pub(super) fn check_size(size: u64) -> Result<()> {
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
