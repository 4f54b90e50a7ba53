//! What two nodes of a tree show differently, by their maps alone: blocks that come from different objects. Only the
//! entries of nodes that are not above both are looked at.

use super::layers::{Layers, of_node, sources};
use super::node::{Node, Nodes};
use crate::core_state::core_state;
use crate::error::Result;
use crate::format::{Entry, Key, KeyRange, ParsedKey, decode_whole, unseal};
use crate::meta::{Cursor, MetaStore};
use crate::pool::PoolContext;
use crate::types::{ENTRIES_PER_PAGE, NodeId, PageNo};
use atoll_backends::{BLOCK_SIZE, BlockRange, ObjectIndex};
use atoll_reactor::{now, yield_now};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long one call goes on.
const CALL_TIME: Duration = Duration::from_millis(100);

/// A resource of which the changes are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    pub(crate) node: NodeId,
    /// Bytes.
    pub(crate) size: u64,
}

/// The nodes that two resources inherit from, themselves included.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Only one of both does.
    pub(crate) apart: Vec<NodeId>,
    pub(crate) common: Vec<NodeId>,
}

/// Bytes of which two resources may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangedExtent {
    pub offset: u64,
    pub len: u64,
    /// The later of both reads as zeros there.
    pub zero: bool,
}

/// A part of all changes, in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    pub extents: Vec<ChangedExtent>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

struct Differ {
    nodes: Rc<Nodes>,
    pool: Rc<PoolContext>,
    meta: Arc<dyn MetaStore>,
    from: Option<(Rc<Node>, u64)>,
    to: (Rc<Node>, u64),
    /// Nodes whose entries one side shows and the other does not.
    apart: Vec<Rc<Node>>,
    common: Vec<Rc<Node>>,
    /// From this byte on one may not inherit what the other shows of their common ancestors.
    limit: u64,
    changes: Changes,
    most: usize,
}

/// The changes from byte `offset` on; what is not committed is not seen. On the home core of the tree, while nothing is merged in it.
pub(crate) async fn changes(
    from: Option<Side>,
    to: Side,
    lines: Lines,
    offset: u64,
    most: usize,
) -> Result<Changes> {
    let state = core_state()?;
    let nodes = state.nodes.clone();
    let node = nodes.get(to.node).await?;
    let mut apart = Vec::new();
    for id in lines.apart {
        apart.push(nodes.get(id).await?);
    }
    let mut common = Vec::new();
    for id in lines.common {
        common.push(nodes.get(id).await?);
    }
    let inherited = apart.iter().map(|node| node.inherit_end());
    let limit = inherited.chain(from.map(|side| side.size)).min();
    let differ = Differ {
        pool: state.pool(node.row().pool)?,
        meta: state.meta.clone(),
        from: match from {
            Some(side) => Some((nodes.get(side.node).await?, side.size)),
            None => None,
        },
        to: (node, to.size),
        apart,
        common,
        limit: limit.unwrap_or(u64::MAX),
        nodes,
        changes: Changes::default(),
        most,
    };
    differ.run(offset).await
}

impl Differ {
    async fn run(mut self, offset: u64) -> Result<Changes> {
        let until = now() + CALL_TIME;
        let mut looked = false;
        let object = u64::from(self.pool.object_size.bytes());
        let Some(mut index) = ObjectIndex::new(offset / object) else {
            return Ok(self.changes);
        };
        let end = self.to.1.div_ceil(object);
        while let Some(page) = self.next_page(PageNo::of(index)).await? {
            let first = index.get().max(page.index(0).get());
            if first >= end {
                break;
            }
            // A part goes on by a page at least, however slow the machine is.
            if (now() >= until && looked) || self.changes.extents.len() >= self.most {
                self.changes.next = Some((first * object).max(offset));
                return Ok(self.changes);
            }
            looked = true;
            let after = page.index(0).get() + ENTRIES_PER_PAGE as u64;
            for number in first..after.min(end) {
                if self.changes.extents.len() >= self.most {
                    self.changes.next = Some((number * object).max(offset));
                    return Ok(self.changes);
                }
                if let Some(index) = ObjectIndex::new(number) {
                    self.index(index, offset).await?;
                }
                if self.changes.extents.len() > self.most {
                    // An object can have many: the rest of them come with the next part.
                    self.changes.extents.truncate(self.most);
                    let last = self.changes.extents.last();
                    self.changes.next = last.map(|last| last.offset + last.len);
                    return Ok(self.changes);
                }
            }
            match ObjectIndex::new(after) {
                Some(next) => index = next,
                None => break,
            }
            yield_now().await;
        }
        Ok(self.changes)
    }

    /// The first page from this one on in which both may differ.
    async fn next_page(&self, from: PageNo) -> Result<Option<PageNo>> {
        let best = self.next_of(&self.apart, from, None).await?;
        let object = u64::from(self.pool.object_size.bytes());
        match ObjectIndex::new(self.limit / object) {
            Some(limit) if !self.common.is_empty() => {
                let from = from.max(PageNo::of(limit));
                self.next_of(&self.common, from, best).await
            }
            _ => Ok(best),
        }
    }

    /// The first page from this one on of which one of these nodes has an entry, or `best` if that is before it.
    async fn next_of(
        &self,
        nodes: &[Rc<Node>],
        from: PageNo,
        best: Option<PageNo>,
    ) -> Result<Option<PageNo>> {
        let mut best = best;
        for node in nodes {
            let mut rows = Cursor::new(KeyRange {
                from: Key::group(node.id(), from.group()),
                ..KeyRange::groups_of(node.id())
            });
            'rows: loop {
                let pairs = rows.next(&*self.meta, 1).await?;
                let Some((key, value)) = pairs.first() else {
                    break;
                };
                let Some(ParsedKey::Group(_, group)) = Key::parse(key) else {
                    break;
                };
                if best.is_some_and(|best| group > best.group()) {
                    break;
                }
                let slots = decode_whole(unseal(key, value)?)?;
                for (place, entry) in slots.iter().enumerate() {
                    let page = group.page(place);
                    if *entry != Entry::ABSENT && page >= from {
                        best = Some(best.map_or(page, |best| best.min(page)));
                        break 'rows;
                    }
                }
            }
        }
        Ok(best)
    }

    async fn index(&mut self, index: ObjectIndex, offset: u64) -> Result<()> {
        let object = u64::from(self.pool.object_size.bytes());
        let start = index.get() * object;
        let mut named = false;
        for node in &self.apart {
            named |= node.table.lookup(index).await? != Entry::ABSENT;
        }
        if !named && (self.common.is_empty() || start + object <= self.limit) {
            return Ok(());
        }
        let whole = BlockRange::whole(self.pool.object_size);
        let to = self.layers(&self.to.0, index).await?;
        let from = match &self.from {
            Some((node, _)) => Some(self.layers(node, index).await?),
            None => None,
        };
        let from_blocks = self.from.as_ref().map_or(0, |(_, size)| {
            size.saturating_sub(start).div_ceil(u64::from(BLOCK_SIZE))
        });
        for (run, source) in sources(&to, whole) {
            let before = match &from {
                Some(layers) => sources(layers, run),
                None => smallvec::smallvec![(run, None)],
            };
            for (part, before) in before {
                let before = before.filter(|_| u64::from(part.first) < from_blocks);
                if before != source {
                    let begin = start + u64::from(part.first * BLOCK_SIZE);
                    let end = start + u64::from(part.end() * BLOCK_SIZE);
                    self.add(begin.max(offset), end.min(self.to.1), source.is_none());
                }
            }
        }
        Ok(())
    }

    async fn layers(&self, node: &Rc<Node>, index: ObjectIndex) -> Result<Layers> {
        of_node(node.clone(), index, &self.pool, &self.nodes, &*self.meta).await
    }

    fn add(&mut self, begin: u64, end: u64, zero: bool) {
        if begin >= end {
            return;
        }
        match self.changes.extents.last_mut() {
            Some(last) if last.offset + last.len == begin && last.zero == zero => {
                last.len = end - last.offset;
            }
            _ => self.changes.extents.push(ChangedExtent {
                offset: begin,
                len: end - begin,
                zero,
            }),
        }
    }
}
