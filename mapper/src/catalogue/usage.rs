//! How much is stored, and for whom; what the garbage collector has to do.

use super::Catalogue;
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{CountRow, Key, KeyRange, NodeState, ParsedKey, Table, open_row};
use crate::handle::on_core;
use crate::meta::Cursor;
use crate::types::{NodeId, PoolNumber, ResourceName};
use atoll_reactor::yield_now;
use hashbrown::HashMap;
use std::rc::Rc;

/// Rows read at a time.
const SCAN_ROWS: usize = 1024;
/// Rows read for each that is wanted, at most.
const NEAR_ROWS: usize = 32;
/// Nodes looked at in one turn.
const NODES_PER_TURN: usize = 4096;
/// Refs that are looked at; the others count as if nothing else named what they name.
const MAX_COUNTS: usize = 16_384;

/// Bytes of a pool: sizes of resources, and whole objects, whatever space these take in the pool.
///
/// Objects are those that the entries of committed maps name. Not among them are those that lie explicitly below partial
/// ones, which merges leave there until the partial ones are complete, and what is not committed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolUsage {
    /// Sizes of its volumes and snapshots together.
    pub logical: u64,
    /// Objects in the nodes of its resources and in those that they inherit from. An object counts also where all that
    /// would inherit it have something else at its place.
    pub mapped: u64,
    /// Of these: objects in nodes that more than one resource is or inherits from, and objects that several places name
    /// by a ref. `mapped` has such an object once, and `shared` too, unless it is in a node that is shared besides: then
    /// `shared` has it more than once, and `unique` lacks as many. Only the first 16,384 refs of the pool are looked at:
    /// others count once for each entry that names them.
    pub shared: u64,
    /// The others of `mapped`: what the deletion of one resource would give back, at once or with the merge after it.
    pub unique: u64,
    /// In nodes of deleted resources that are not deleted yet, and single objects that wait for their deletion. What a
    /// merge will find covered, and what leaked, is not known and not counted.
    pub garbage: u64,
}

/// The leak scan: objects that were created before a crash and never committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeakScan {
    /// One is under way.
    pub running: bool,
    /// Scans that ended since the start, and objects that they found.
    pub ended: u64,
    pub found: u64,
}

/// What the garbage collector has to do, and has done since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GcStatus {
    /// Something is being done now.
    pub running: bool,
    /// Nodes of deleted resources whose objects are to be deleted.
    pub dying_nodes: u64,
    /// Nodes that are to be merged into their only child.
    pub merging_nodes: u64,
    /// Objects that are to be deleted, as far as they are known yet.
    pub dead_objects: u64,
    pub deleted_objects: u64,
    pub deleted_nodes: u64,
    pub merged_nodes: u64,
    pub leaks: LeakScan,
    /// What failed last, and is tried again.
    pub last_error: Option<String>,
}

/// A node of the pool, in the order of numbers: parents before their children.
struct PoolNode {
    node: NodeId,
    parent: Option<NodeId>,
    dying: bool,
    /// Resources that name it or inherit from it; 2 stands for more.
    resources: u8,
}

impl Catalogue {
    pub(crate) async fn pool_usage(self: &Rc<Self>, name: &ResourceName) -> Result<PoolUsage> {
        let pool = self
            .pool_named(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no pool \"{name}\"")))?;
        let object = self.object_bytes(pool)?;
        let logical = {
            let resources = self.resources.borrow();
            let here = resources.values().filter(|entry| entry.row.pool == pool);
            here.map(|entry| entry.row.size).sum()
        };
        let nodes = self.nodes_of(pool).await;
        let objects = self.all_objects().await?;
        let (mut mapped, mut shared, mut garbage) = (0, 0, self.dead_objects(pool).await?);
        for node in nodes {
            let named = objects.get(&node.node).copied().unwrap_or(0);
            match node.dying {
                true => garbage += named,
                false => mapped += named,
            }
            if node.resources > 1 {
                shared += named;
            }
        }
        let refs = self.shared_refs(pool).await?;
        let mapped = mapped - refs.repeated.min(mapped);
        let shared = (shared + refs.objects).min(mapped);
        Ok(PoolUsage {
            logical,
            mapped: mapped * object,
            shared: shared * object,
            unique: (mapped - shared) * object,
            garbage: garbage * object,
        })
    }

    async fn nodes_of(&self, pool: PoolNumber) -> Vec<PoolNode> {
        let mut nodes: Vec<PoolNode> = {
            let tree = self.tree.borrow();
            let here = tree.nodes().filter(|(_, entry)| entry.pool == pool);
            here.map(|(node, entry)| PoolNode {
                node,
                parent: entry.parent,
                dying: entry.state == NodeState::Dying,
                resources: u8::from(entry.resource.is_some()),
            })
            .collect()
        };
        for place in (0..nodes.len()).rev() {
            if place % NODES_PER_TURN == 0 {
                yield_now().await;
            }
            let PoolNode {
                parent, resources, ..
            } = nodes[place];
            let above = parent.and_then(|parent| {
                let (before, _) = nodes.split_at_mut(place);
                let at = before.binary_search_by_key(&parent, |node| node.node);
                before.get_mut(at.ok()?)
            });
            if let Some(above) = above {
                above.resources = (above.resources + resources).min(2);
            }
        }
        nodes
    }

    /// Objects that the committed map of each node names.
    pub(super) async fn all_objects(&self) -> Result<HashMap<NodeId, u64>> {
        let mut objects = HashMap::new();
        let mut rows = Cursor::new(KeyRange::prefix(Table::Usage));
        loop {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                return Ok(objects);
            }
            for (key, value) in pairs {
                objects.extend(usage_of(&key, &value)?);
            }
        }
    }

    /// Objects that the committed maps of these nodes name together. Nodes of one chain mostly have numbers near each
    /// other: a read takes what is near along.
    pub(super) async fn objects_of(&self, nodes: impl IntoIterator<Item = NodeId>) -> Result<u64> {
        let mut wanted: Vec<NodeId> = nodes.into_iter().collect();
        wanted.sort_unstable();
        let mut objects = 0;
        let mut rest = &wanted[..];
        while let [first, .., last] | [first @ last] = rest {
            let range = KeyRange {
                from: Key::usage(*first),
                to: Key::after(&Key::usage(*last)),
            };
            let limit = (rest.len() * NEAR_ROWS).min(SCAN_ROWS);
            let pairs = self.meta.scan(&range.from, &range.to, limit).await?;
            let all = pairs.len() < limit;
            let mut seen = *last;
            for (key, value) in pairs {
                if let Some((node, named)) = usage_of(&key, &value)? {
                    seen = node;
                    if rest.binary_search(&node).is_ok() {
                        objects += named;
                    }
                }
            }
            match all {
                true => break,
                false => rest = &rest[rest.partition_point(|node| *node <= seen)..],
            }
        }
        Ok(objects)
    }

    /// Objects that wait for their deletion.
    async fn dead_objects(&self, pool: PoolNumber) -> Result<u64> {
        let mut dead = 0;
        for core in &self.cores {
            let here = on_core(core, move || async move {
                Ok(core_state()?.pool(pool)?.dead.len())
            });
            dead += here.await?;
        }
        Ok(dead)
    }

    async fn shared_refs(&self, pool: PoolNumber) -> Result<SharedRefs> {
        let mut refs = SharedRefs::default();
        let mut rows = Cursor::new(KeyRange::counts_of(pool));
        for _ in 0..MAX_COUNTS / SCAN_ROWS {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                break;
            }
            for (key, value) in pairs {
                let row: CountRow = open_row(&key, &value)?;
                if let Ok(count @ 2..) = u64::try_from(row.count) {
                    refs.objects += 1;
                    refs.repeated += count - 1;
                }
            }
        }
        Ok(refs)
    }
}

/// Refs with more than one name: their objects, and the names of them beyond the first.
#[derive(Default)]
struct SharedRefs {
    objects: u64,
    repeated: u64,
}

fn usage_of(key: &[u8], value: &[u8]) -> Result<Option<(NodeId, u64)>> {
    let row: CountRow = open_row(key, value)?;
    Ok(match Key::parse(key) {
        Some(ParsedKey::Usage(node)) => Some((node, u64::try_from(row.count).unwrap_or(0))),
        _ => None,
    })
}
