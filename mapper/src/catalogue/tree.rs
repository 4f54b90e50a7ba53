//! The tree of nodes as the catalogue has it in memory: who inherits from whom, and what nothing names any more. What
//! is in a node is not its business.

use crate::error::{Error, ErrorKind, Result};
use crate::format::NodeState;
use crate::types::{NodeId, PoolNumber, ResourceId};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Ancestors that a node may have: what a look-up costs that finds nothing is bounded.
pub(super) const MAX_DEPTH: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct TreeEntry {
    pub(super) pool: PoolNumber,
    pub(super) state: NodeState,
    pub(super) parent: Option<NodeId>,
    pub(super) children: SmallVec<[NodeId; 2]>,
    /// What names it.
    pub(super) resource: Option<ResourceId>,
    /// The core of its tree, by its place among the cores.
    pub(super) home: u16,
}

#[derive(Default, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, TreeEntry>,
    /// Frozen, named by nothing, with one child: to be merged into it.
    mergeable: BTreeSet<NodeId>,
    dying: BTreeSet<NodeId>,
}

impl Tree {
    pub(super) fn get(&self, node: NodeId) -> Result<&TreeEntry> {
        self.nodes
            .get(&node)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{node} is not in the tree")))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &TreeEntry)> {
        self.nodes.iter().map(|(node, entry)| (*node, entry))
    }

    /// A node whose parent, if it has one, is there.
    pub(super) fn insert(&mut self, node: NodeId, entry: TreeEntry) {
        if let Some(parent) = entry.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.push(node);
        }
        let parent = entry.parent;
        self.nodes.insert(node, entry);
        self.look_at(node);
        parent.into_iter().for_each(|parent| self.look_at(parent));
    }

    /// Something else names a node, or nothing.
    pub(super) fn name(&mut self, node: NodeId, resource: Option<ResourceId>) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.resource = resource;
        }
        self.look_at(node);
    }

    pub(super) fn set_state(&mut self, node: NodeId, state: NodeState) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.state = state;
        }
        self.look_at(node);
    }

    /// It inherits from another node, or from none.
    pub(super) fn set_parent(&mut self, node: NodeId, parent: Option<NodeId>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let before = std::mem::replace(&mut entry.parent, parent);
        if let Some(entry) = before.and_then(|before| self.nodes.get_mut(&before)) {
            entry.children.retain(|child| *child != node);
        }
        if let Some(entry) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            entry.children.push(node);
        }
        for changed in before.into_iter().chain(parent) {
            self.look_at(changed);
        }
    }

    /// It is gone; its children have another parent by now.
    pub(super) fn remove(&mut self, node: NodeId) {
        self.set_parent(node, None);
        self.nodes.remove(&node);
        self.look_at(node);
    }

    fn look_at(&mut self, node: NodeId) {
        let entry = self.nodes.get(&node);
        let merges = |e: &TreeEntry| {
            e.state == NodeState::Frozen && e.resource.is_none() && e.children.len() == 1
        };
        match entry.is_some_and(merges) {
            true => self.mergeable.insert(node),
            false => self.mergeable.remove(&node),
        };
        match entry.is_some_and(|entry| entry.state == NodeState::Dying) {
            true => self.dying.insert(node),
            false => self.dying.remove(&node),
        };
    }

    /// The child that a node is to be merged into, if it is.
    pub(super) fn merges_into(&self, node: NodeId) -> Option<NodeId> {
        let merges = self.mergeable.contains(&node);
        self.nodes
            .get(&node)
            .filter(|_| merges)?
            .children
            .first()
            .copied()
    }

    pub(super) fn mergeable(&self) -> &BTreeSet<NodeId> {
        &self.mergeable
    }

    pub(super) fn dying(&self) -> &BTreeSet<NodeId> {
        &self.dying
    }

    /// The ancestors of a node, the nearest first.
    pub(super) fn ancestors(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let parent = |node: NodeId| self.nodes.get(&node)?.parent;
        std::iter::successors(parent(node), move |node| parent(*node))
    }

    pub(super) fn root(&self, node: NodeId) -> NodeId {
        self.ancestors(node).last().unwrap_or(node)
    }

    /// The depth of a child of a node; refused where the chain would be too long.
    pub(super) fn depth_below(&self, node: NodeId) -> Result<u16> {
        let depth = self.ancestors(node).count() + 1;
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "it would have more than {MAX_DEPTH} ancestors; delete snapshots of it, or flatten it"
                ),
            ));
        }
        Ok(u16::try_from(depth).expect("bounded"))
    }

    /// The nodes that nothing needs once a node loses its name, or its place below its parent: itself if it has no
    /// children, then its parent if that is named by nothing and has no other child, and so on.
    pub(super) fn dying_with(&self, node: NodeId) -> Vec<NodeId> {
        let mut dying = Vec::new();
        let Some(entry) = self.nodes.get(&node).filter(|e| e.children.is_empty()) else {
            return dying;
        };
        dying.push(node);
        dying.extend(
            entry
                .parent
                .into_iter()
                .flat_map(|parent| self.lonely_from(parent)),
        );
        dying
    }

    /// A node and its ancestors as far as each is named by nothing and has one child only.
    pub(super) fn lonely_from(&self, node: NodeId) -> Vec<NodeId> {
        let mut lonely = Vec::new();
        let mut above = Some(node);
        while let Some(node) = above {
            let Some(entry) = self.nodes.get(&node) else {
                break;
            };
            if entry.resource.is_some() || entry.children.len() > 1 {
                break;
            }
            lonely.push(node);
            above = entry.parent;
        }
        lonely
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).expect("not 0")
    }

    fn entry(parent: Option<u64>, state: NodeState, named: bool) -> TreeEntry {
        TreeEntry {
            pool: PoolNumber::FIRST,
            state,
            parent: parent.map(id),
            children: SmallVec::new(),
            resource: named.then_some(ResourceId([1; 16])),
            home: 0,
        }
    }

    #[test]
    fn what_nothing_needs_dies_with_its_last_child_and_what_has_one_child_left_is_merged() {
        let mut tree = Tree::default();
        tree.insert(id(1), entry(None, NodeState::Frozen, true));
        tree.insert(id(2), entry(Some(1), NodeState::Frozen, false));
        tree.insert(id(3), entry(Some(2), NodeState::Head, true));
        tree.insert(id(4), entry(Some(2), NodeState::Head, true));
        assert!(tree.mergeable().is_empty());
        assert_eq!(tree.dying_with(id(3)), [id(3)]);
        tree.set_parent(id(3), None);
        tree.set_state(id(3), NodeState::Dying);
        assert_eq!(
            tree.mergeable().iter().copied().collect::<Vec<_>>(),
            [id(2)]
        );
        assert_eq!(tree.dying_with(id(4)), [id(4), id(2)]);
        tree.name(id(1), None);
        assert_eq!(tree.dying_with(id(4)), [id(4), id(2), id(1)]);
        assert_eq!(tree.root(id(4)), id(1));
        assert_eq!(tree.depth_below(id(4)).expect("not deep"), 3);
        tree.set_parent(id(4), Some(id(1)));
        tree.remove(id(2));
        assert_eq!(
            tree.mergeable().iter().copied().collect::<Vec<_>>(),
            [id(1)]
        );
        assert_eq!(tree.dying().iter().copied().collect::<Vec<_>>(), [id(3)]);
    }
}
