//! Where the blocks of one index are when they are spread over objects: the head's own partial object, what lies below
//! it, and what its ancestors have.
//!
//! **Invariant:** layers are what the map said at one moment of the look-up; entries that move between nodes meanwhile
//! make it begin again.

use super::Volume;
use super::node::{Node, Nodes};
use super::partials::Partial;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Below, Entry, EntryKind};
use crate::meta::MetaStore;
use crate::pool::PoolContext;
use crate::types::RefId;
use atoll_backends::{BLOCK_SIZE, BlockRange, ObjectId, ObjectIndex};
use smallvec::SmallVec;
use std::rc::Rc;

/// Explicit belows under one another above which objects are completed before another is put below.
pub(super) const MAX_CHAIN: usize = 8;

/// An object that has some blocks of an index.
pub(super) struct Layer {
    pub(super) id: ObjectId,
    /// `None`: all are valid.
    bits: Option<Rc<Partial>>,
    /// Blocks from here on are not asked of this layer, nor of one below: zeros.
    end: u32,
}

/// From the top down.
pub(super) type Layers = SmallVec<[Layer; 2]>;

/// What a node's own entry names at an index: an object and those explicitly below it.
#[derive(Default)]
pub(super) struct Chain {
    /// From the top down; with the record of those that are partial.
    pub(super) objects: SmallVec<[(ObjectId, Option<Rc<Partial>>); 2]>,
    /// Counted once.
    pub(super) reference: Option<RefId>,
    /// Where no object of it has a block, the nearest ancestor is asked.
    pub(super) implicit: bool,
}

/// Which object has each part of a range; `None`: zeros.
pub(super) fn sources(
    layers: &[Layer],
    range: BlockRange,
) -> SmallVec<[(BlockRange, Option<ObjectId>); 4]> {
    let mut runs: SmallVec<[(BlockRange, Option<ObjectId>); 4]> = SmallVec::new();
    for block in range.first..range.end() {
        let source = source(layers, block);
        match runs.last_mut() {
            Some((run, last)) if *last == source => run.count += 1,
            _ => runs.push((BlockRange::new(block, 1), source)),
        }
    }
    runs
}

fn source(layers: &[Layer], block: u32) -> Option<ObjectId> {
    for layer in layers {
        if block >= layer.end {
            return None;
        }
        let has = |bits: &Rc<Partial>| bits.contains(block);
        if layer.bits.as_ref().is_none_or(has) {
            return Some(layer.id);
        }
    }
    None
}

impl Volume {
    /// The layers of an index as the head shows it.
    pub(super) async fn layers(&self, index: ObjectIndex) -> Result<Layers> {
        loop {
            let head = self.head();
            let moves = self.nodes.moves();
            let layers = of_node(head.clone(), index, &self.pool, &self.nodes, &*self.meta).await;
            if self.nodes.moves() == moves && self.is_head(&head) {
                return layers;
            }
        }
    }
}

/// The layers of an index as a node shows it. True if no entry moves meanwhile.
pub(super) async fn of_node(
    node: Rc<Node>,
    index: ObjectIndex,
    pool: &PoolContext,
    nodes: &Nodes,
    meta: &dyn MetaStore,
) -> Result<Layers> {
    let object = u64::from(pool.object_size.bytes());
    let start = index.get() * object;
    let mut layers = Layers::new();
    let mut end = pool.object_size.blocks();
    let mut node = node;
    loop {
        let entry = node.table.lookup(index).await?;
        if entry != Entry::ABSENT {
            let chain = chain(&node, index, entry).await?;
            for (id, bits) in chain.objects {
                layers.push(Layer { id, bits, end });
            }
            if let Some(reference) = chain.reference {
                let id = pool.refs.object(meta, reference).await?;
                let bits = None;
                layers.push(Layer { id, bits, end });
            }
            if !chain.implicit {
                return Ok(layers);
            }
        }
        let inherited = node.inherit_end().saturating_sub(start).min(object);
        let blocks = inherited.div_ceil(u64::from(BLOCK_SIZE));
        end = end.min(u32::try_from(blocks).expect("at most an object"));
        if end == 0 {
            return Ok(layers);
        }
        match node.parent(nodes).await? {
            Some(parent) => node = parent,
            None => return Ok(layers),
        }
    }
}

/// What an entry of a node names, explicit belows included.
pub(super) async fn chain(node: &Node, index: ObjectIndex, entry: Entry) -> Result<Chain> {
    let mut chain = Chain::default();
    match entry.kind() {
        EntryKind::Absent => chain.implicit = true,
        EntryKind::Hole => {}
        EntryKind::Ref(reference) => chain.reference = Some(reference),
        EntryKind::Row => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "entry {index} of {} is no entry; run `atoll fsck`",
                    node.id()
                ),
            ));
        }
        EntryKind::Object(generation) => {
            let id = ObjectId::new(generation, index);
            if !entry.is_partial() {
                chain.objects.push((id, None));
                return Ok(chain);
            }
            let top = node.partials.get(id).await?;
            extend(node, id, top, &mut chain).await?;
        }
    }
    Ok(chain)
}

/// Adds a partial object and all that its record says is below.
pub(super) async fn extend(
    node: &Node,
    id: ObjectId,
    record: Rc<Partial>,
    chain: &mut Chain,
) -> Result<()> {
    let (mut id, mut record) = (id, record);
    loop {
        let below = record.below();
        chain.objects.push((id, Some(record)));
        match below {
            Below::Zeros => return Ok(()),
            Below::Implicit => {
                chain.implicit = true;
                return Ok(());
            }
            Below::Ref(reference) => {
                chain.reference = Some(reference);
                return Ok(());
            }
            Below::Object(next) => match node.partials.find(next).await? {
                Some(partial) => (id, record) = (next, partial),
                None => {
                    chain.objects.push((next, None));
                    return Ok(());
                }
            },
        }
    }
}
