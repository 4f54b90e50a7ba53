//! The tree of the engine of memory: nodes without data, named by resources. Long verbs take a few
//! steps, so that who asks for them has to ask again.

use super::{Catalogue, no, taken};
use crate::api::*;
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// What every volume is said to have written.
const WRITTEN: ByteSize = ByteSize::mib(4);
/// Steps of a flattening and of a copy.
const STEPS: u64 = 4;
/// Bytes of each step of a copy that are not shared.
const NOT_SHARED: u64 = 4096;
/// How often the garbage collector is seen running after it was told to.
const GC_STEPS: u64 = 2;

#[derive(Clone, Default)]
pub struct Node {
    parent: Option<u64>,
    /// The resource that names it.
    resource: Option<ResourceName>,
    own: ByteSize,
}

impl Catalogue {
    fn add_node(&mut self, parent: Option<u64>, resource: &ResourceName, own: ByteSize) -> u64 {
        self.last_node += 1;
        let node = Node {
            parent,
            resource: Some(resource.clone()),
            own,
        };
        self.nodes.insert(self.last_node, node);
        self.last_node
    }

    pub fn add_root(&mut self, resource: &ResourceName) {
        self.add_node(None, resource, WRITTEN);
    }

    fn node_of(&self, name: &ResourceName) -> Result<u64> {
        let named = |node: &Node| node.resource.as_ref() == Some(name);
        let found = self.nodes.iter().find(|(_, node)| named(node));
        found
            .map(|(number, _)| *number)
            .ok_or_else(|| no("volume", name))
    }

    fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).unwrap()
    }

    pub fn rename_node(&mut self, from: &ResourceName, to: &ResourceName) -> Result<()> {
        let number = self.node_of(from)?;
        self.node(number).resource = Some(to.clone());
        Ok(())
    }

    /// Names of its ancestors, the nearest first.
    pub fn origins(&self, name: &ResourceName) -> Vec<ResourceName> {
        let parent_of = |number: u64| self.nodes[&number].parent;
        let first = self.node_of(name).ok().and_then(parent_of);
        std::iter::successors(first, |number| parent_of(*number))
            .filter_map(|number| self.nodes[&number].resource.clone())
            .collect()
    }

    /// Takes the name away, and what nothing needs any more.
    pub fn drop_node(&mut self, name: &ResourceName) -> Result<()> {
        let mut next = Some(self.node_of(name)?);
        if let Some(number) = next {
            self.node(number).resource = None;
        }
        while let Some(number) = next
            && self.nodes[&number].resource.is_none()
            && self.children(number).is_empty()
        {
            next = self.nodes.remove(&number).and_then(|node| node.parent);
        }
        Ok(())
    }

    fn children(&self, number: u64) -> Vec<u64> {
        let of_it = self.nodes.iter().filter(|(_, n)| n.parent == Some(number));
        of_it.map(|(child, _)| *child).collect()
    }

    fn writable(&self, name: &ResourceName) -> Result<Volume> {
        let volume = self.volume(name)?;
        match volume.kind {
            VolumeKind::Volume => Ok(volume),
            VolumeKind::Snapshot => Err(Error::refused(format!(
                "{:?} is a snapshot, which never changes",
                name.as_str()
            ))),
        }
    }

    fn snapshot(&self, name: &ResourceName) -> Result<Volume> {
        let snapshot = self.volume(name)?;
        match snapshot.kind {
            VolumeKind::Snapshot => Ok(snapshot),
            VolumeKind::Volume => Err(Error::refused(format!(
                "{:?} is a volume, no snapshot",
                name.as_str()
            ))),
        }
    }

    fn insert(&mut self, volume: Volume) -> Result<Volume> {
        let name = volume.name.clone();
        let pool = self.pools.get_mut(&volume.pool);
        pool.ok_or_else(|| no("pool", &volume.pool))?.volumes += 1;
        self.volumes.insert(name.clone(), volume);
        self.volume(&name)
    }

    pub fn take_snapshots(&mut self, members: &[SnapshotOf]) -> Result<Vec<Volume>> {
        for member in members {
            self.writable(&member.volume)?;
            if self.volumes.contains_key(&member.name) {
                return Err(taken("volume", &member.name));
            }
        }
        let taken = members.iter().map(|SnapshotOf { volume, name }| {
            let old_head = self.node_of(volume)?;
            self.node(old_head).resource = Some(name.clone());
            self.add_node(Some(old_head), volume, ByteSize::default());
            let of = self.volume(volume)?;
            let id = self.new_id();
            self.copy_content(of.id, id);
            self.insert(Volume {
                name: name.clone(),
                id,
                kind: VolumeKind::Snapshot,
                protected: false,
                ..of
            })
        });
        taken.collect()
    }

    pub fn clone_snapshot(
        &mut self,
        snapshot: &ResourceName,
        request: CloneSnapshot,
    ) -> Result<Volume> {
        let from = self.snapshot(snapshot)?;
        let CloneSnapshot { to, size, .. } = request;
        if self.volumes.contains_key(&to) {
            return Err(taken("volume", &to));
        }
        let parent = self.node_of(snapshot)?;
        self.add_node(Some(parent), &to, ByteSize::default());
        let id = self.new_id();
        self.insert(Volume {
            name: to,
            id,
            kind: VolumeKind::Volume,
            size: size.unwrap_or(from.size),
            protected: false,
            ..from
        })
    }

    pub fn roll_back(&mut self, name: &ResourceName, snapshot: &ResourceName) -> Result<Volume> {
        let volume = self.writable(name)?;
        let from = self.snapshot(snapshot)?;
        volume.check_unprotected()?;
        let parent = self.node_of(snapshot)?;
        self.drop_node(name)?;
        self.add_node(Some(parent), name, ByteSize::default());
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.size = from.size;
        }
        self.volume(name)
    }

    pub fn flatten(&mut self, name: &ResourceName, from: u64) -> Result<Flattening> {
        let total = self.writable(name)?.size.get();
        let number = self.node_of(name)?;
        let inherits = self.node(number).parent.is_some();
        let done = match inherits {
            true => total.min(from + total / STEPS),
            false => total,
        };
        let ended = done == total;
        if ended {
            self.node(number).parent = None;
        }
        Ok(Flattening {
            done,
            total,
            copied: if inherits { done - from } else { 0 },
            ended,
        })
    }

    pub fn copy_volume(&self, source: &ResourceName, request: &CopyVolume) -> Result<Copying> {
        let total = self.volume(source)?.size.get();
        self.writable(&request.to)?;
        self.not_exported(&request.to)?;
        let done = total.min(request.from + total / STEPS);
        Ok(Copying {
            done,
            total,
            shared: done - request.from - NOT_SHARED,
            copied: NOT_SHARED,
            ended: done == total,
        })
    }

    pub fn protect(&mut self, name: &ResourceName, protected: bool) -> Result<Volume> {
        let volume = self.volumes.get_mut(name);
        volume.ok_or_else(|| no("volume", name))?.protected = protected;
        self.volume(name)
    }

    pub fn tree(&self) -> Result<Vec<TreeNode>> {
        let node = |(number, node): (&u64, &Node)| {
            let named = node.resource.as_ref().map(|name| self.volume(name));
            Ok(TreeNode {
                node: *number,
                parent: node.parent,
                resource: named.transpose()?.map(|volume| volume.in_tree()),
                own: node.own,
            })
        };
        self.nodes.iter().map(node).collect()
    }

    pub fn usage(&self, pool: &ResourceName) -> PoolUsage {
        let sum = |of: &dyn Fn(u64, &Node) -> bool| {
            let nodes = self
                .nodes
                .iter()
                .filter(|(number, node)| of(**number, node));
            ByteSize::bytes(nodes.map(|(_, node)| node.own.get()).sum())
        };
        let inside = self.volumes.values().filter(|v| v.pool == *pool);
        let shared = |number, _: &Node| !self.children(number).is_empty();
        PoolUsage {
            logical: ByteSize::bytes(inside.map(|v| v.size.get()).sum()),
            mapped: sum(&|_, _| true),
            shared: sum(&shared),
            unique: sum(&|number, node| !shared(number, node)),
            garbage: ByteSize::default(),
        }
    }

    /// Unnamed nodes with one child.
    fn merging(&self) -> Vec<(u64, u64)> {
        let unnamed = self.nodes.iter().filter(|(_, n)| n.resource.is_none());
        let only_child = unnamed.filter_map(|(number, _)| match self.children(*number)[..] {
            [child] => Some((*number, child)),
            _ => None,
        });
        only_child.collect()
    }

    pub fn gc_run(&mut self) -> GcStatus {
        self.gc_steps = GC_STEPS;
        self.gc_status()
    }

    /// A step of what was asked for, if something was.
    pub fn gc_status(&mut self) -> GcStatus {
        let running = self.gc_steps > 0;
        self.gc_steps = self.gc_steps.saturating_sub(1);
        if running && self.gc_steps == 0 {
            while let Some((unnamed, child)) = self.merging().first().copied() {
                let parent = self.nodes.remove(&unnamed).and_then(|node| node.parent);
                self.node(child).parent = parent;
                self.merged += 1;
            }
        }
        GcStatus {
            running,
            merging_nodes: self.merging().len() as u64,
            merged_nodes: self.merged,
            ..GcStatus::default()
        }
    }
}
