//! Verbs on the tree of nodes: snapshots, clones, rollback, flattening. How a map changes is the
//! volume's business; what of the tree is left over, the garbage collector's.

use super::tree::TreeEntry;
use super::volumes::check_size;
use super::{Catalogue, ResourceEntry, VolumeInfo, unix_seconds};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Key, NameRow, NodeRow, NodeState, ResourceKind, ResourceRow};
use crate::handle::{ask, on_core};
use crate::meta::{Batch, Durability, require_row};
use crate::types::{NodeId, PoolNumber, ResourceId, ResourceName};
use crate::volume::{NewHead, new_node_rows};
use atoll_backends::Generation;
use atoll_reactor::CoreHandle;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A snapshot that is asked for.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    pub id: ResourceId,
    pub volume: ResourceName,
    pub name: ResourceName,
}

/// A volume that is to begin as a snapshot is.
#[derive(Clone, Debug)]
pub struct NewClone {
    pub id: ResourceId,
    pub snapshot: ResourceName,
    pub name: ResourceName,
    /// Bytes, as of a new volume; `None`: the snapshot's.
    pub size: Option<u64>,
}

/// A node of the tree, and what it is to admins.
#[derive(Clone, Debug)]
pub struct TreeNode {
    pub node: NodeId,
    pub parent: Option<NodeId>,
    /// `None`: nothing names it any more, others inherit from it.
    pub resource: Option<VolumeInfo>,
    /// Bytes of the objects that it names itself.
    pub own_bytes: u64,
}

/// How far a flattening is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlattenProgress {
    /// Bytes of the volume that were looked at, and that there are to be looked at.
    pub done: u64,
    pub total: u64,
    pub copied: u64,
    /// It inherits nothing any more.
    pub ended: bool,
}

/// A volume that takes part in a cut.
struct Part {
    id: ResourceId,
    home: CoreHandle,
    new: NewSnapshot,
    /// The volume's row before.
    row: ResourceRow,
    /// Its new head.
    node: NodeId,
    depth: u16,
}

impl Catalogue {
    /// Snapshots of several volumes, all of one instant, which exist all or none; in the order in which they were asked
    /// for.
    pub(crate) async fn create_snapshots(
        self: &Rc<Self>,
        new: Vec<NewSnapshot>,
    ) -> Result<Vec<VolumeInfo>> {
        let _verb = self.verb().await?;
        let asked: Vec<ResourceId> = new.iter().map(|new| new.id).collect();
        let mut parts = self.parts_of_cut(new).await?;
        // In the order of the volumes, so that two cuts never wait for each other.
        parts.sort_unstable_by_key(|part| part.id);
        let pools: BTreeSet<PoolNumber> = parts.iter().map(|part| part.row.pool).collect();
        // Until they have their names: what nothing names is merged.
        let mut locks = Vec::new();
        for pool in pools {
            locks.push(self.lock_tree(pool).await?);
        }
        let made = self.cut(&parts).await;
        if made.is_err() {
            // What was frozen and has no name is merged.
            locks.clear();
            parts.iter().for_each(|part| self.collect(part.row.pool));
        }
        made?;
        asked.into_iter().map(|id| self.info(id)).collect()
    }

    async fn cut(self: &Rc<Self>, parts: &[Part]) -> Result<()> {
        let held = self.hold(parts).await;
        let switched = match held {
            Ok(()) => self.switch(parts).await,
            Err(error) => Err(error),
        };
        // All of them, however busy their cores are: nothing else lets them go on.
        let mut lifted = Ok(());
        for part in parts {
            let id = part.id;
            let lift = ask(&part.home, move || async move {
                core_state()?.volume(id)?.lift();
                Ok(())
            });
            lifted = lifted.and(lift.await);
        }
        let frozen = switched?;
        lifted?;
        // From here on a failure leaves nodes that nothing names, which are merged again.
        for part in parts {
            let id = part.id;
            on_core(&part.home, move || async move {
                core_state()?.volume(id)?.drain().await
            })
            .await?;
        }
        let mut batch = Batch::new();
        let mut rows = Vec::new();
        for (part, node) in parts.iter().zip(frozen) {
            let row = ResourceRow {
                kind: ResourceKind::Snapshot,
                read_only: true,
                protected: false,
                node,
                created: unix_seconds(),
                name: part.new.name.clone(),
                ..part.row.clone()
            };
            batch.put_row(Key::resource(part.new.id), &row);
            batch.put_row(Key::name(&row.name), &NameRow { id: part.new.id });
            rows.push((part.new.id, row));
        }
        self.meta.commit(batch, Durability::Synced).await?;
        for (id, row) in rows {
            self.add_resource(id, row);
        }
        Ok(())
    }

    /// Checks what is asked for, and opens the volumes.
    async fn parts_of_cut(self: &Rc<Self>, new: Vec<NewSnapshot>) -> Result<Vec<Part>> {
        let mut names = BTreeSet::new();
        let mut volumes = BTreeSet::new();
        let mut parts = Vec::new();
        for new in new {
            self.check_free(&new.name)?;
            self.check_id_free(new.id)?;
            let id = self.id_of(&new.volume)?;
            if !names.insert(new.name.clone()) || !volumes.insert(id) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "volume \"{}\" or snapshot \"{}\" is named twice",
                        new.volume, new.name
                    ),
                ));
            }
            let row = self.row(id)?;
            check_volume(&row, "a snapshot is taken of a volume")?;
            let depth = self.tree.borrow().depth_below(row.node)?;
            let handle = self.open_resource(id).await?;
            parts.push(Part {
                id,
                home: handle.home().clone(),
                new,
                row,
                node: self.new_node().await?,
                depth,
            });
        }
        Ok(parts)
    }

    async fn hold(&self, parts: &[Part]) -> Result<()> {
        for part in parts {
            let id = part.id;
            on_core(&part.home, move || async move {
                core_state()?.volume(id)?.ready_to_switch().await
            })
            .await?;
        }
        for part in parts {
            let id = part.id;
            on_core(&part.home, move || async move {
                core_state()?.volume(id)?.hold().await
            })
            .await?;
        }
        Ok(())
    }

    /// The nodes that are frozen now. Operations on all volumes are held back.
    async fn switch(self: &Rc<Self>, parts: &[Part]) -> Result<Vec<NodeId>> {
        let mut frozen = Vec::new();
        for part in parts {
            let new = NewHead {
                node: part.node,
                depth: part.depth,
                run: self.start,
                resource: ResourceRow {
                    node: part.node,
                    ..part.row.clone()
                },
            };
            let (id, resource) = (part.id, new.resource.clone());
            let old = on_core(&part.home, move || async move {
                core_state()?.volume(id)?.switch(new)
            })
            .await?;
            self.head_moved(id, old, resource);
            frozen.push(old);
        }
        Ok(frozen)
    }

    /// A volume has another head, whose parent is `parent`; what was the head before is frozen, or was dropped.
    fn head_moved(&self, id: ResourceId, parent: NodeId, row: ResourceRow) {
        let mut tree = self.tree.borrow_mut();
        let Ok(above) = tree.get(parent).cloned() else {
            return;
        };
        if above.resource == Some(id) {
            tree.name(parent, None);
            tree.set_state(parent, NodeState::Frozen);
        }
        tree.insert(
            row.node,
            TreeEntry {
                state: NodeState::Head,
                parent: Some(parent),
                children: Default::default(),
                resource: Some(id),
                ..above
            },
        );
        drop(tree);
        if let Some(entry) = self.resources.borrow_mut().get_mut(&id) {
            entry.row = row;
        }
    }

    /// A resource is there from now on; its node is in the tree.
    pub(super) fn add_resource(&self, id: ResourceId, row: ResourceRow) {
        self.tree.borrow_mut().name(row.node, Some(id));
        self.names.borrow_mut().insert(row.name.clone(), id);
        let entry = ResourceEntry::new(row);
        self.resources.borrow_mut().insert(id, entry);
    }

    pub(crate) async fn create_clone(self: &Rc<Self>, new: NewClone) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        self.check_free(&new.name)?;
        self.check_id_free(new.id)?;
        let snapshot = self.row(self.id_of(&new.snapshot)?)?;
        if !snapshot.read_only {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "\"{}\" is a volume; take a snapshot of it, and clone that",
                    new.snapshot
                ),
            ));
        }
        let size = new.size.unwrap_or(snapshot.size);
        check_size(size)?;
        let _tree = self.lock_tree(snapshot.pool).await?;
        let above = self.tree.borrow().get(snapshot.node)?.clone();
        let depth = self.tree.borrow().depth_below(snapshot.node)?;
        let node = self.new_node().await?;
        let cut = self.fresh_generation(above.home, snapshot.pool).await?;
        let node_row = NodeRow {
            pool: snapshot.pool,
            state: NodeState::Head,
            faulted: false,
            parent: Some(snapshot.node),
            inherit_end: size.min(snapshot.size),
            cut,
            current: Some(cut),
            run: self.start,
            trim: None,
            depth,
        };
        let row = ResourceRow {
            kind: ResourceKind::Volume,
            read_only: false,
            protected: false,
            node,
            size,
            created: unix_seconds(),
            name: new.name,
            ..snapshot
        };
        let mut batch = new_node_rows(node, &node_row);
        batch.put_row(Key::resource(new.id), &row);
        batch.put_row(Key::name(&row.name), &NameRow { id: new.id });
        self.meta.commit(batch, Durability::Synced).await?;
        self.tree.borrow_mut().insert(
            node,
            TreeEntry {
                state: NodeState::Head,
                parent: Some(snapshot.node),
                children: Default::default(),
                resource: None,
                ..above
            },
        );
        self.add_resource(new.id, row);
        self.info(new.id)
    }

    /// A generation of the core on which a tree is at home: above all that the tree's nodes have.
    pub(super) async fn fresh_generation(&self, home: u16, pool: PoolNumber) -> Result<Generation> {
        let core = &self.cores[usize::from(home)];
        on_core(core, move || async move {
            core_state()?.pool(pool)?.generations.fresh().await
        })
        .await
    }

    pub(crate) async fn rollback(
        self: &Rc<Self>,
        volume: &ResourceName,
        snapshot: &ResourceName,
    ) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        let id = self.id_of(volume)?;
        let row = self.row(id)?;
        check_volume(&row, "only a volume is rolled back")?;
        check_unprotected(&row)?;
        let target = self.row(self.id_of(snapshot)?)?;
        let same_tree = {
            let tree = self.tree.borrow();
            tree.root(row.node) == tree.root(target.node)
        };
        if !target.read_only || !same_tree {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("\"{snapshot}\" is no snapshot of volume \"{volume}\" or of its relatives"),
            ));
        }
        let _tree = self.lock_tree(row.pool).await?;
        let depth = self.tree.borrow().depth_below(target.node)?;
        let handle = self.open_resource(id).await?;
        let node = self.new_node().await?;
        self.settle(id).await?;
        // The old head goes, and with it what only it needed: never the snapshot's node, which has a name.
        let old = row.node;
        let (rows, dying) = self.dropping(old).await?;
        let resource = ResourceRow {
            node,
            size: target.size,
            ..row
        };
        let new = NewHead {
            node,
            depth,
            run: self.start,
            resource: resource.clone(),
        };
        let parent = target.node;
        on_core(handle.home(), move || async move {
            core_state()?.volume(id)?.rollback(new, parent, rows).await
        })
        .await?;
        self.tree.borrow_mut().name(old, None);
        self.head_moved(id, parent, resource);
        self.dropped(dying);
        self.info(id)
    }

    /// Goes on for at most a moment; called until it has ended.
    pub(crate) async fn flatten(
        self: &Rc<Self>,
        volume: &ResourceName,
        from: u64,
    ) -> Result<FlattenProgress> {
        let _verb = self.verb().await?;
        let id = self.id_of(volume)?;
        let row = self.row(id)?;
        check_volume(&row, "only a volume is flattened")?;
        let total = row.size;
        if self.tree.borrow().get(row.node)?.parent.is_none() {
            return Ok(FlattenProgress {
                done: total,
                total,
                copied: 0,
                ended: true,
            });
        }
        let _tree = self.lock_tree(row.pool).await?;
        let handle = self.open_resource(id).await?;
        let (done, copied) = on_core(handle.home(), move || async move {
            core_state()?.volume(id)?.flatten_from(from).await
        })
        .await?;
        let mut progress = FlattenProgress {
            done: done.min(total),
            total,
            copied,
            ended: false,
        };
        if done >= total {
            self.cut_off(id, row.node, handle.home()).await?;
            progress.ended = true;
        }
        Ok(progress)
    }

    /// A head that inherits nothing any more has no parent.
    async fn cut_off(
        self: &Rc<Self>,
        id: ResourceId,
        node: NodeId,
        home: &CoreHandle,
    ) -> Result<()> {
        let parent = self.tree.borrow().get(node)?.parent;
        let Some(parent) = parent else {
            return Ok(());
        };
        self.settle(id).await?;
        // What only this one needed of its ancestors goes.
        let lonely = {
            let tree = self.tree.borrow();
            let above = tree.get(parent)?;
            match above.resource.is_none() && above.children.len() == 1 {
                true => tree.lonely_from(parent),
                false => Vec::new(),
            }
        };
        let (rows, dying) = self.dropping_nodes(lonely).await?;
        on_core(home, move || async move {
            core_state()?.volume(id)?.cut_off(parent, rows).await
        })
        .await?;
        self.tree.borrow_mut().set_parent(node, None);
        self.dropped(dying);
        Ok(())
    }

    pub(crate) async fn protect(
        self: &Rc<Self>,
        name: &ResourceName,
        on: bool,
    ) -> Result<VolumeInfo> {
        let _verb = self.verb().await?;
        let id = self.id_of(name)?;
        let row = ResourceRow {
            protected: on,
            ..self.row(id)?
        };
        self.settle(id).await?;
        let mut batch = Batch::new();
        batch.put_row(Key::resource(id), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        if let Some(entry) = self.resources.borrow_mut().get_mut(&id) {
            entry.row = row;
        }
        self.info(id)
    }

    /// Parents before their children.
    pub(crate) async fn tree(self: &Rc<Self>) -> Result<Vec<TreeNode>> {
        let nodes: Vec<(NodeId, TreeEntry)> = {
            let tree = self.tree.borrow();
            let living = tree.nodes().filter(|(_, e)| e.state != NodeState::Dying);
            living.map(|(node, entry)| (node, entry.clone())).collect()
        };
        let objects = self.all_objects().await?;
        let mut told = Vec::with_capacity(nodes.len());
        for (node, entry) in nodes {
            let resource = match entry.resource {
                Some(id) => Some(self.info(id)?),
                None => None,
            };
            let named = objects.get(&node).copied().unwrap_or(0);
            let own_bytes = named * self.object_bytes(entry.pool)?;
            told.push(TreeNode {
                node,
                parent: entry.parent,
                resource,
                own_bytes,
            });
        }
        Ok(told)
    }

    /// The rows that drop a node without children, and those above that only it needed; and which these are.
    pub(super) async fn dropping(&self, node: NodeId) -> Result<(Batch, Vec<NodeId>)> {
        let dying = self.tree.borrow().dying_with(node);
        self.dropping_nodes(dying).await
    }

    async fn dropping_nodes(&self, dying: Vec<NodeId>) -> Result<(Batch, Vec<NodeId>)> {
        let mut batch = Batch::new();
        batch.set_frees(true);
        for node in &dying {
            let row: NodeRow = require_row(&*self.meta, &Key::node(*node)).await?;
            if let Some(parent) = row.parent {
                batch.delete(Key::child(parent, *node));
            }
            let dying = NodeRow {
                state: NodeState::Dying,
                faulted: false,
                parent: None,
                inherit_end: 0,
                depth: 0,
                current: None,
                trim: None,
                ..row
            };
            batch.put_row(Key::node(*node), &dying);
        }
        Ok((batch, dying))
    }

    /// These nodes are dropped, durably: their objects are deleted in the background.
    pub(super) fn dropped(self: &Rc<Self>, dying: Vec<NodeId>) {
        for node in dying {
            let pool = {
                let mut tree = self.tree.borrow_mut();
                tree.set_parent(node, None);
                tree.name(node, None);
                tree.set_state(node, NodeState::Dying);
                tree.get(node).map(|entry| entry.pool)
            };
            if let Ok(pool) = pool {
                self.collect(pool);
            }
        }
    }

    /// Makes the rows durable that a cut of a volume has left to its next flush.
    pub(super) async fn settle(&self, id: ResourceId) -> Result<()> {
        match self.opened(id) {
            Some((home, _)) => {
                on_core(&home, move || async move {
                    core_state()?.volume(id)?.settle().await
                })
                .await
            }
            None => Ok(()),
        }
    }
}

fn check_volume(row: &ResourceRow, rule: &str) -> Result<()> {
    match row.kind {
        ResourceKind::Volume => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!("\"{}\" is no volume: {rule}", row.name),
        )),
    }
}

pub(super) fn check_unprotected(row: &ResourceRow) -> Result<()> {
    match row.protected {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::InUse,
            format!("\"{}\" is protected; unprotect it first", row.name),
        )),
    }
}
