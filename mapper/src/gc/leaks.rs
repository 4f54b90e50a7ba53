//! The leak scan: which objects a pool lists that nothing names. They were created before a crash and never committed, or
//! by a volume that was deleted without its last changes. What becomes of them is the collector's business.
//!
//! **Invariant:** an object that the scan finds is named by nothing, and never will be:
//! - Objects are created in generations that this run has reserved, which are outside of the scope (`before` is the mark
//!   as the run found it), and by heads that go on with the generation in which a clean stop left them. Of these there
//!   are only those whose rows said so when the run began: all of them are outside of the scope for all of the run,
//!   whoever is the head by now, whether the volume is open, and however long an operation hangs. So all objects in
//!   the scope were there before the run.
//! - Of such an object memory never knows a name that the metadata store does not: what this run has read of names it
//!   has read there, and names go from one map to another, to a count or below a record, in one batch each. So one
//!   snapshot of all tables has every name; merges and copies that run meanwhile do not matter.
//! - What has lost its last name has a row in table 70 from the same batch on. The list is taken after the snapshot: what
//!   was deleted by then and has no row any more is not listed.
//!
//! The dead rows of what was found are committed after all that the snapshot has shown, so that no power loss brings a
//! name back without them.

use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    Below, DeadRow, Entry, EntryKind, Key, KeyRange, NodeRow, ObjectRow, ParsedKey, PartialRow,
    Table, decode_page, decode_whole, open_row, unseal,
};
use crate::meta::{Cursor, MetaReader, MetaStore};
use crate::pool::PoolContext;
use crate::types::{ENTRIES_PER_PAGE, NodeId};
use atoll_backends::{Generation, ListCursor, ObjectId, ObjectIndex};
use atoll_reactor::yield_now;
use hashbrown::HashSet;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// Objects that are looked for in one pass over all maps, at most: about 8 MiB of memory.
const MAX_WINDOW: usize = 1 << 18;
/// Bytes of a core's page memory for each of them: an eighth of it, about.
const PAGE_MEMORY_PER_OBJECT: usize = 256;
/// Objects listed at a time.
const LIST_OBJECTS: usize = 512;
/// Rows read at a time.
const SCAN_ROWS: usize = 64;
/// Look-ups and removals in one turn.
const STEPS_PER_TURN: usize = 512;

/// The generations that the scan may look at.
pub(crate) struct Scope {
    /// Those below were reserved before this run of the daemon.
    pub(crate) before: Generation,
    /// Those of them in which heads of this run may go on creating objects.
    pub(crate) resumable: BTreeSet<Generation>,
}

impl Scope {
    fn has(&self, id: ObjectId) -> bool {
        id.generation < self.before && !self.resumable.contains(&id.generation)
    }
}

/// A scan of one pool, a window of what it lists at a time.
pub(crate) struct LeakSearch {
    meta: Arc<dyn MetaStore>,
    pool: Rc<PoolContext>,
    scope: Scope,
    window: usize,
    /// Says why the scan is to end, if it is.
    halted: Box<dyn Fn() -> Result<()>>,
    from: Option<ListCursor>,
    listed_all: bool,
    /// Since other tasks had their turn.
    steps: usize,
}

/// Objects that are listed, less those that were found named.
type Listed = BTreeSet<ObjectId>;

impl LeakSearch {
    pub(crate) fn new(
        meta: Arc<dyn MetaStore>,
        pool: Rc<PoolContext>,
        scope: Scope,
        page_memory: usize,
        halted: impl Fn() -> Result<()> + 'static,
    ) -> LeakSearch {
        LeakSearch {
            meta,
            pool,
            scope,
            window: (page_memory / PAGE_MEMORY_PER_OBJECT).clamp(1, MAX_WINDOW),
            halted: Box::new(halted),
            from: None,
            listed_all: false,
            steps: 0,
        }
    }

    /// The leaked objects among the next that the pool lists; none when all of them were looked at.
    pub(crate) async fn next(&mut self) -> Result<Option<BTreeSet<ObjectId>>> {
        if self.listed_all {
            return Ok(None);
        }
        let maps = self.meta.snapshot().await?;
        let mut listed = self.list().await?;
        self.strike_named(&*maps, &mut listed).await?;
        Ok(Some(listed))
    }

    async fn list(&mut self) -> Result<Listed> {
        let mut listed = Listed::new();
        while !self.listed_all && listed.len() < self.window {
            self.pace().await?;
            let most = LIST_OBJECTS.min(self.window - listed.len());
            // A store that hangs is waited for: who gave up and asked again would have one more call hang each time.
            let page = self.pool.store.list(self.from.clone(), most).await?;
            listed.extend(page.objects.into_iter().filter(|id| self.scope.has(*id)));
            self.listed_all = page.next.is_none();
            self.from = page.next;
        }
        Ok(listed)
    }

    /// Waits for its turn; fails when the scan is to end.
    async fn pace(&self) -> Result<()> {
        (self.halted)()?;
        core_state()?.background.pace(1).await;
        (self.halted)()
    }

    /// Strikes out what is named, or is being deleted already.
    async fn strike_named(&mut self, maps: &dyn MetaReader, listed: &mut Listed) -> Result<()> {
        let number = self.pool.number;
        let others = self.nodes_of_other_pools(maps).await?;
        for range in [
            KeyRange::prefix(Table::Group),
            KeyRange::prefix(Table::Page),
            KeyRange::partials_of(number),
            KeyRange::objects_of(number),
            KeyRange::dead_of(number),
        ] {
            let mut rows = Cursor::new(range);
            loop {
                if listed.is_empty() {
                    return Ok(());
                }
                self.pace().await?;
                let pairs = rows.next(maps, SCAN_ROWS).await?;
                if pairs.is_empty() {
                    break;
                }
                for (key, value) in pairs {
                    self.strike_row(&key, &value, &others, listed).await?;
                }
            }
        }
        Ok(())
    }

    /// Whatever node is not known to be another pool's may name objects of this one.
    async fn nodes_of_other_pools(&self, maps: &dyn MetaReader) -> Result<HashSet<NodeId>> {
        let mut others = HashSet::new();
        let mut rows = Cursor::new(KeyRange::prefix(Table::Node));
        loop {
            self.pace().await?;
            let pairs = rows.next(maps, SCAN_ROWS).await?;
            if pairs.is_empty() {
                return Ok(others);
            }
            for (key, value) in pairs {
                let row: NodeRow = open_row(&key, &value)?;
                if let Some(ParsedKey::Node(node)) = Key::parse(&key)
                    && row.pool != self.pool.number
                {
                    others.insert(node);
                }
            }
        }
    }

    /// A row that cannot be read may name anything: the scan fails.
    async fn strike_row(
        &mut self,
        key: &[u8],
        value: &[u8],
        others: &HashSet<NodeId>,
        listed: &mut Listed,
    ) -> Result<()> {
        match Key::parse(key) {
            Some(ParsedKey::Group(node, _) | ParsedKey::Page(node, _))
                if others.contains(&node) =>
            {
                Ok(())
            }
            Some(ParsedKey::Group(_, group)) => {
                let slots = decode_whole(unseal(key, value)?)?;
                let first = group.page(0).index(0);
                self.strike_entries(&*slots, first, ENTRIES_PER_PAGE, listed)
                    .await
            }
            Some(ParsedKey::Page(_, page)) => {
                let slots = decode_page(unseal(key, value)?)?;
                self.strike_entries(&*slots, page.index(0), 1, listed).await
            }
            Some(ParsedKey::Partial(_, id)) => {
                let row: PartialRow = open_row(key, value)?;
                self.strike(id, 1, listed).await;
                if let Below::Object(below) = row.below {
                    self.strike(below, 1, listed).await;
                }
                Ok(())
            }
            Some(ParsedKey::Object(..)) => {
                let row: ObjectRow = open_row(key, value)?;
                self.strike(row.object, 1, listed).await;
                Ok(())
            }
            Some(ParsedKey::Dead(_, first)) => {
                let row: DeadRow = open_row(key, value)?;
                self.strike(first, row.count, listed).await;
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "row {} has a malformed key; run `atoll fsck`",
                    crate::format::key::describe(key)
                ),
            )),
        }
    }

    /// Slots from index `first` on that stand for `each` indexes.
    async fn strike_entries(
        &mut self,
        slots: &[Entry],
        first: ObjectIndex,
        each: usize,
        listed: &mut Listed,
    ) -> Result<()> {
        let mut slot = 0;
        while slot < slots.len() {
            let entry = slots[slot];
            let equal = slots[slot..].iter().take_while(|other| **other == entry);
            let length = equal.count();
            if let EntryKind::Object(generation) = entry.kind() {
                let index = ObjectIndex::new(first.get() + (slot * each) as u64);
                let index = index.expect("a page's entries have indexes");
                let id = ObjectId::new(generation, index);
                self.strike(id, (length * each) as u64, listed).await;
            }
            slot += length;
        }
        Ok(())
    }

    /// Strikes out `count` objects of a generation.
    async fn strike(&mut self, first: ObjectId, count: u64, listed: &mut Listed) {
        let Some(more) = count.checked_sub(1).filter(|_| self.scope.has(first)) else {
            return;
        };
        let last = first.index.get().saturating_add(more);
        let last = last.min((1 << ObjectIndex::BITS) - 1);
        let last = ObjectIndex::new(last).expect("of 40 bits");
        let last = ObjectId::new(first.generation, last);
        loop {
            let named = listed.range(first..=last).take(STEPS_PER_TURN);
            let named: Vec<ObjectId> = named.copied().collect();
            for id in &named {
                listed.remove(id);
            }
            self.steps += 1 + named.len();
            if self.steps >= STEPS_PER_TURN {
                self.steps = 0;
                yield_now().await;
            }
            if named.len() < STEPS_PER_TURN {
                return;
            }
        }
    }
}
