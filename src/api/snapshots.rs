//! Requests and answers about the tree of resources: snapshots, clones, copies, and what the garbage
//! collector and the pools have to say of them. Types and limits only, as the rest of `api`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Volume, VolumeKind};
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::{ByteSize, UnixSeconds};

/// Most resources of one answer: who wants more asks for the next page.
pub const PAGE_LIMIT: usize = 1000;
/// Most nodes of the tree of one answer. More than of resources, as each page counts what all nodes have.
pub const TREE_PAGE_LIMIT: usize = 10_000;
/// Most volumes of which one request takes snapshots.
pub const MAX_GROUP: usize = 256;

/// A part of all resources, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumePage {
    pub volumes: Vec<Volume>,
    /// Where the next page begins: to be asked for as `after`. Absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ResourceName>,
}

/// Which resources are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListVolumes {
    pub kind: Option<VolumeKind>,
    /// Only those whose names come after this one.
    pub after: Option<ResourceName>,
    /// 1 to [`PAGE_LIMIT`].
    pub limit: usize,
}

impl ListVolumes {
    /// The first page of all.
    #[cfg(test)]
    pub fn first() -> Self {
        Self {
            kind: None,
            after: None,
            limit: PAGE_LIMIT,
        }
    }

    /// Cuts a page out of all resources, which are in order of their names: which of them, and whether there are more.
    pub fn page<T>(
        &self,
        all: &[T],
        name_of: impl Fn(&T) -> &str,
        is: impl Fn(&T, VolumeKind) -> bool,
    ) -> (Vec<usize>, bool) {
        let after = self.after.as_ref().map(ResourceName::as_str);
        let start = after.map_or(0, |after| all.partition_point(|one| name_of(one) <= after));
        let wanted = |i: &usize| self.kind.is_none_or(|kind| is(&all[*i], kind));
        let mut matching = (start..all.len()).filter(wanted);
        let page = matching.by_ref().take(self.limit).collect();
        (page, matching.next().is_some())
    }
}

/// Refuses a page of nothing, and one of more than `most`, which is what it has unless said.
pub fn check_limit(limit: Option<usize>, most: usize) -> Result<usize> {
    match limit.unwrap_or(most) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        other => Err(Error::invalid(format!(
            "a page has 1 to {most} entries, not {other}"
        ))),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeSnapshot {
    /// The snapshot's name.
    pub snapshot: ResourceName,
    /// A snapshot of that name which the volume comes from is an answer, no error.
    #[serde(default)]
    pub if_not_exists: bool,
}

/// Snapshots of several volumes, all of one instant; all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeGroup {
    /// The snapshot of the volume VOL is named VOL, a hyphen, and this.
    pub name: ResourceName,
    /// 1 to 256 different ones.
    pub volumes: Vec<ResourceName>,
    /// Where all of these snapshots are there, and their volumes come from them, that is an answer, no error.
    #[serde(default)]
    pub if_not_exists: bool,
}

/// One snapshot that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOf {
    pub volume: ResourceName,
    pub name: ResourceName,
}

impl TakeGroup {
    /// The snapshots that are asked for. Refuses what no group can be.
    pub fn members(&self) -> Result<Vec<SnapshotOf>> {
        if self.volumes.is_empty() || self.volumes.len() > MAX_GROUP {
            return Err(Error::invalid(format!(
                "a group has 1 to {MAX_GROUP} volumes, not {}",
                self.volumes.len()
            )));
        }
        let mut members: Vec<SnapshotOf> = Vec::new();
        for volume in &self.volumes {
            let name = format!("{volume}-{}", self.name).parse::<ResourceName>();
            let name = name.map_err(|e| {
                e.context(format_args!("the snapshot of volume {:?}", volume.as_str()))
            })?;
            if members.iter().any(|member| member.volume == *volume) {
                return Err(Error::invalid(format!(
                    "volume {:?} is named twice",
                    volume.as_str()
                )));
            }
            let volume = volume.clone();
            members.push(SnapshotOf { volume, name });
        }
        Ok(members)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneSnapshot {
    /// The new volume's name.
    pub to: ResourceName,
    /// In bytes: 1 MiB to 1 PiB, a multiple of 4 KiB. The snapshot's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// A volume of that name which comes from the snapshot, and has the size if one is given, is an answer, no error.
    #[serde(default)]
    pub if_not_exists: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// A snapshot of the volume's tree. What the volume has and this snapshot has not is lost.
    pub snapshot: ResourceName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    pub protected: bool,
}

/// Asks for a step of a long verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Flatten {
    /// 0, then what the answer before says is `done`.
    #[serde(default)]
    pub from: u64,
}

/// How far a flattening is. It is asked to go on until it has `ended`; what is done is done if nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flattening {
    /// Bytes of the volume that were looked at, and that there are to be looked at.
    pub done: u64,
    pub total: u64,
    /// Bytes that this step has copied into the volume.
    pub copied: u64,
    /// It inherits nothing any more.
    pub ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyVolume {
    /// A volume of the same pool that is not exported, and not smaller. What it has is overwritten.
    pub to: ResourceName,
    /// 0, then what the answer before says is `done`.
    #[serde(default)]
    pub from: u64,
}

/// How far a copy is. It is asked to go on until it has `ended`; until then its target holds a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Copying {
    /// Bytes from the beginning that are copied, and that there are to be copied.
    pub done: u64,
    pub total: u64,
    /// Bytes for which this step has made both maps name the same objects, or nothing.
    pub shared: u64,
    /// Bytes that this step has read and written.
    pub copied: u64,
    pub ended: bool,
}

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopiedVolume {
    pub volume: Volume,
    /// Bytes for which both name the same objects, or nothing.
    pub shared: ByteSize,
    /// Bytes that were read and written.
    pub copied: ByteSize,
}

/// What became of a flattening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flattened {
    pub name: ResourceName,
    /// Bytes that were copied into the volume.
    pub copied: ByteSize,
}

/// A part of the tree, in order of the nodes' numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreePage {
    pub nodes: Vec<TreeNode>,
    /// Where the next page begins: to be asked for as `after`. Absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One map of the tree: what a resource has itself, the rest it inherits from the parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeNode {
    /// Never used again for another one.
    pub node: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// What names it. Absent: its snapshot was deleted, and others still inherit from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<TreeResource>,
    /// Bytes of the objects that it names itself.
    pub own: ByteSize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeResource {
    pub name: ResourceName,
    pub kind: VolumeKind,
    pub size: ByteSize,
    pub pool: ResourceName,
    pub protected: bool,
    pub created: UnixSeconds,
}

impl Volume {
    /// As the tree shows it.
    pub fn in_tree(self) -> TreeResource {
        TreeResource {
            name: self.name,
            kind: self.kind,
            size: self.size,
            pool: self.pool,
            protected: self.protected,
            created: self.created,
        }
    }

    /// Refuses to take away what is protected.
    pub fn check_unprotected(&self) -> Result<()> {
        if !self.protected {
            return Ok(());
        }
        Err(Error::in_use(format!(
            "{} {:?} is protected: unprotect it first",
            self.kind,
            self.name.as_str()
        ))
        .hint(format!("atoll volume unprotect {}", self.name)))
    }
}

/// Which nodes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskTree {
    /// Only the tree that this resource is in.
    pub name: Option<ResourceName>,
    /// Only nodes with higher numbers.
    pub after: Option<u64>,
    /// 1 to [`TREE_PAGE_LIMIT`].
    pub limit: usize,
}

impl AskTree {
    /// Cuts a page out of all nodes.
    pub fn page(&self, mut all: Vec<TreeNode>) -> Result<TreePage> {
        if let Some(name) = &self.name {
            all = whole_tree(all, name)?;
        }
        all.retain(|node| self.after.is_none_or(|after| node.node > after));
        all.sort_unstable_by_key(|node| node.node);
        let more = all.len() > self.limit;
        all.truncate(self.limit);
        let next = all.last().filter(|_| more).map(|last| last.node);
        Ok(TreePage { nodes: all, next })
    }
}

/// The nodes of the tree that a resource is in.
fn whole_tree(mut all: Vec<TreeNode>, name: &ResourceName) -> Result<Vec<TreeNode>> {
    use std::collections::HashMap;
    let named = |node: &TreeNode| node.resource.as_ref().is_some_and(|r| r.name == *name);
    let Some(start) = all.iter().find(|node| named(node)) else {
        return Err(Error::not_found(format!("no volume {:?}", name.as_str())));
    };
    let parents: HashMap<u64, u64> = all
        .iter()
        .filter_map(|node| Some((node.node, node.parent?)))
        .collect();
    // Each node's root, found once: a chain of thousands is walked by its first member only.
    let mut roots: HashMap<u64, u64> = HashMap::new();
    let mut root_of = |node: u64| {
        let mut path = vec![node];
        let mut at = node;
        let root = loop {
            if let Some(root) = roots.get(&at) {
                break *root;
            }
            match parents.get(&at) {
                // No more steps than nodes, whatever the metadata says.
                Some(parent) if path.len() <= parents.len() => at = *parent,
                _ => break at,
            }
            path.push(at);
        };
        roots.extend(path.into_iter().map(|node| (node, root)));
        root
    };
    let root = root_of(start.node);
    all.retain(|node| root_of(node.node) == root);
    Ok(all)
}

/// How much a pool stores, and for whom. Bytes of objects where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolUsage {
    /// Sizes of its volumes and snapshots together.
    pub logical: ByteSize,
    /// Named by their maps.
    pub mapped: ByteSize,
    /// Of these: reached by more than one of them.
    pub shared: ByteSize,
    /// Of these: by one only.
    pub unique: ByteSize,
    /// Reached by none, and not deleted yet.
    pub garbage: ByteSize,
}

/// What the garbage collector has to do, and has done since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcStatus {
    /// Something is being done now.
    pub running: bool,
    /// Maps of deleted resources whose objects are to be deleted.
    pub dying_nodes: u64,
    /// Maps that are to be merged into the only one that inherits from them.
    pub merging_nodes: u64,
    /// Objects that are to be deleted, as far as they are known yet.
    pub dead_objects: u64,
    pub deleted_objects: u64,
    pub deleted_nodes: u64,
    pub merged_nodes: u64,
    pub leak_scan: LeakScan,
    /// What failed last, and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The search for objects that were created before a crash and that nothing names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeakScan {
    pub running: bool,
    /// Searches that ended since the daemon's start, and objects that they found.
    pub ended: u64,
    pub found: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ResourceName {
        text.parse().unwrap()
    }

    #[test]
    fn pages_hold_every_name_once_in_order_whatever_their_size_and_filter() {
        let all: Vec<(String, VolumeKind)> = (100..131)
            .map(|n| match n % 3 {
                0 => (format!("v{n}"), VolumeKind::Snapshot),
                _ => (format!("v{n}"), VolumeKind::Volume),
            })
            .collect();
        for kind in [None, Some(VolumeKind::Volume), Some(VolumeKind::Snapshot)] {
            let wanted: Vec<_> = all
                .iter()
                .filter(|(_, k)| kind.is_none_or(|kind| kind == *k))
                .map(|(name, _)| name.clone())
                .collect();
            for limit in 1..=32 {
                let (mut got, mut after, mut more) = (Vec::new(), None, true);
                while more {
                    let ask = ListVolumes { kind, after, limit };
                    let (page, and_more) =
                        ask.page(&all, |one| one.0.as_str(), |one, kind| one.1 == kind);
                    assert!(page.len() <= limit && !page.is_empty());
                    got.extend(page.iter().map(|i| all[*i].0.clone()));
                    after = got.last().map(|last| name(last));
                    more = and_more;
                }
                assert_eq!(got, wanted, "{kind:?} by {limit}");
            }
        }
        let none = ListVolumes {
            after: Some(name("v130")),
            ..ListVolumes::first()
        };
        let page = none.page(&all, |one| one.0.as_str(), |one, kind| one.1 == kind);
        assert_eq!(page, (Vec::new(), false));
    }

    #[test]
    fn a_page_is_not_empty_and_not_too_large() {
        assert_eq!(check_limit(None, 9).unwrap(), 9);
        for right in [1, 9] {
            assert_eq!(check_limit(Some(right), 9).unwrap(), right);
        }
        for wrong in [0, 10, usize::MAX] {
            check_limit(Some(wrong), 9).unwrap_err();
        }
    }

    fn group(group: &str, volumes: &[&str]) -> Result<Vec<String>> {
        let group = TakeGroup {
            name: name(group),
            volumes: volumes.iter().map(|volume| name(volume)).collect(),
            if_not_exists: false,
        };
        let members = group.members()?;
        Ok(members.into_iter().map(|m| m.name.to_string()).collect())
    }

    #[test]
    fn snapshots_of_a_group_are_named_by_volume_and_group() {
        assert_eq!(group("mon", &["b", "a"]).unwrap(), ["b-mon", "a-mon"]);
        for (volumes, part) in [
            (vec![], "1 to 256 volumes"),
            (vec!["a", "b", "a"], "\"a\" is named twice"),
            (vec!["a"; MAX_GROUP + 1], "1 to 256 volumes"),
        ] {
            let error = group("mon", &volumes).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
        let long = "x".repeat(198);
        let error = group("mon", &["a", &long]).unwrap_err();
        assert!(error.message.contains("202 characters"), "{error}");
    }

    /// A node with its parent, and a name where it has one.
    fn node(node: u64, parent: Option<u64>, named: &str) -> TreeNode {
        let resource = (!named.is_empty()).then(|| TreeResource {
            name: name(named),
            kind: VolumeKind::Volume,
            size: ByteSize::mib(1),
            pool: name("main"),
            protected: false,
            created: UnixSeconds(0),
        });
        TreeNode {
            node,
            parent,
            resource,
            own: ByteSize::default(),
        }
    }

    fn numbers(page: &TreePage) -> Vec<u64> {
        page.nodes.iter().map(|node| node.node).collect()
    }

    #[test]
    fn a_resource_names_its_whole_tree_and_pages_hold_each_node_once() {
        let all = vec![
            node(1, None, "a"),
            node(9, None, "other"),
            node(2, Some(1), ""),
            node(5, Some(2), "b"),
            node(4, Some(2), "c"),
        ];
        let ask = |name: Option<&str>, after, limit| {
            let name = name.map(|name| name.parse().unwrap());
            AskTree { name, after, limit }.page(all.clone())
        };
        for member in ["a", "b", "c"] {
            let page = ask(Some(member), None, 9).unwrap();
            assert_eq!((numbers(&page), page.next), (vec![1, 2, 4, 5], None));
        }
        let page = ask(None, None, 2).unwrap();
        assert_eq!((numbers(&page), page.next), (vec![1, 2], Some(2)));
        let page = ask(None, page.next, 3).unwrap();
        assert_eq!((numbers(&page), page.next), (vec![4, 5, 9], None));
        assert!(ask(Some("none"), None, 9).is_err());
    }

    #[test]
    fn a_ring_of_parents_is_walked_to_an_end() {
        let ring = vec![node(1, Some(2), "a"), node(2, Some(1), "b")];
        let ask = AskTree {
            name: Some(name("a")),
            after: None,
            limit: 9,
        };
        assert!(!ask.page(ring).unwrap().nodes.is_empty());
    }
}
