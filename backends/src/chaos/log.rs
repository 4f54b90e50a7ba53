//! What a power loss may undo: for each block that was written and not synced its earlier contents,
//! objects whose creation is not durable, recent deletions, and writes that are on their way.
//! Plain data; the store fills it, `crash` uses it up.

use crate::{BLOCK_SIZE, BlockRange, ObjectId, WriteMode};
use atoll_reactor::SharedBuf;
use std::collections::{BTreeMap, VecDeque};

/// Earlier contents kept per block: the durable one and the newest ones.
const MAX_VERSIONS: usize = 8;
/// Deletions that a crash may undo; older ones count as durable.
const MAX_DELETED: usize = 16;

/// The order of completions.
pub(crate) type Seq = u64;
/// Not complete yet.
const RUNNING: Seq = Seq::MAX;

/// A block's content before a write.
#[derive(Clone, Debug)]
pub(crate) enum Before {
    /// The object was new: whatever the store gives for unwritten blocks.
    Fresh,
    Bytes(SharedBuf),
}

#[derive(Debug)]
struct Version {
    before: Before,
    /// When the write that replaced it was complete; `None` while it runs.
    completed: Option<Seq>,
}

#[derive(Default, Debug)]
pub(crate) struct BlockLog {
    /// Oldest first.
    versions: Vec<Version>,
    /// The first so many are lost to a failed sync: only a newer write that is synced ends them.
    lost: usize,
}

impl BlockLog {
    /// What the block may hold after a crash, besides what it holds now. The first is what is
    /// durable.
    pub(crate) fn candidates(&self) -> impl ExactSizeIterator<Item = &Before> {
        self.versions.iter().map(|version| &version.before)
    }

    fn push(&mut self, before: Before) {
        if self.versions.len() == MAX_VERSIONS {
            self.versions.remove(1);
            if self.lost > 1 {
                self.lost -= 1;
            }
        }
        self.versions.push(Version {
            before,
            completed: None,
        });
    }

    fn synced(&mut self, at: Seq) {
        let done = |version: &Version| version.completed.is_some_and(|seq| seq <= at);
        let durable = self.versions.iter().take_while(|v| done(v)).count();
        if durable > self.lost || self.lost == 0 {
            self.versions.drain(..durable);
            self.lost = 0;
        }
    }
}

#[derive(Default, Debug)]
pub(crate) struct ObjectLog {
    /// Its existence is not durable; since when it exists.
    pub(crate) created: Option<Seq>,
    /// A sync of its existence failed.
    created_lost: bool,
    pub(crate) blocks: BTreeMap<u32, BlockLog>,
}

pub(crate) struct Deleted {
    pub(crate) id: ObjectId,
    pub(crate) content: SharedBuf,
}

/// A write that did not reach the store yet.
#[derive(Clone)]
pub(crate) struct InFlight {
    pub(crate) id: ObjectId,
    pub(crate) first: u32,
    pub(crate) data: SharedBuf,
    pub(crate) mode: WriteMode,
}

#[derive(Default)]
pub(crate) struct UndoLog {
    seq: Seq,
    pub(crate) objects: BTreeMap<ObjectId, ObjectLog>,
    pub(crate) deleted: VecDeque<Deleted>,
    pub(crate) in_flight: BTreeMap<u64, InFlight>,
    next_token: u64,
}

impl UndoLog {
    pub(crate) fn now(&self) -> Seq {
        self.seq
    }

    /// Everything, for a power loss. Tokens are not given out again: operations of before still
    /// hold theirs.
    pub(crate) fn take(&mut self) -> UndoLog {
        let fresh = UndoLog {
            seq: self.seq,
            next_token: self.next_token,
            ..UndoLog::default()
        };
        std::mem::replace(self, fresh)
    }

    /// Only what is on its way.
    pub(crate) fn take_in_flight(&mut self) -> UndoLog {
        // Nobody is left to end what runs: it is as complete as it will ever be, and a later sync covers it.
        self.seq += 1;
        let seq = self.seq;
        for object in self.objects.values_mut() {
            object.created = object.created.map(|created| created.min(seq));
            for block in object.blocks.values_mut() {
                for version in &mut block.versions {
                    version.completed.get_or_insert(seq);
                }
            }
        }
        UndoLog {
            in_flight: std::mem::take(&mut self.in_flight),
            ..UndoLog::default()
        }
    }

    pub(crate) fn add_in_flight(&mut self, write: InFlight) -> u64 {
        self.next_token += 1;
        self.in_flight.insert(self.next_token, write);
        self.next_token
    }

    /// A change of the range begins. `before` is its content, `None` for a new object.
    pub(crate) fn begin(&mut self, id: ObjectId, range: BlockRange, before: Option<&SharedBuf>) {
        let object = self.objects.entry(id).or_default();
        if before.is_none() && object.created.is_none() {
            object.created = Some(RUNNING);
        }
        for block in range.first..range.end() {
            let start = (block - range.first) as usize * BLOCK_SIZE as usize;
            let before = match before {
                Some(all) => Before::Bytes(all.slice(start..start + BLOCK_SIZE as usize)),
                None => Before::Fresh,
            };
            object.blocks.entry(block).or_default().push(before);
        }
    }

    /// The change is complete at the store.
    pub(crate) fn complete(&mut self, id: ObjectId, range: BlockRange) {
        self.seq += 1;
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if object.created == Some(RUNNING) {
            object.created = Some(self.seq);
        }
        for (_, block) in object.blocks.range_mut(range.first..range.end()) {
            for version in &mut block.versions {
                version.completed.get_or_insert(self.seq);
            }
        }
    }

    /// What was complete at `at` is durable now.
    pub(crate) fn synced(&mut self, id: ObjectId, at: Seq) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if object.created.is_some_and(|seq| seq <= at) && !object.created_lost {
            object.created = None;
        }
        object.blocks.retain(|_, block| {
            block.synced(at);
            !block.versions.is_empty()
        });
        if object.created.is_none() && object.blocks.is_empty() {
            self.objects.remove(&id);
        }
    }

    /// A sync failed: what it covered may be lost although later syncs succeed.
    pub(crate) fn sync_failed(&mut self, id: ObjectId) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        object.created_lost = object.created.is_some();
        for block in object.blocks.values_mut() {
            block.lost = block.versions.len();
        }
    }

    pub(crate) fn delete(&mut self, id: ObjectId, content: Option<SharedBuf>) {
        let durable = self.objects.remove(&id).is_none_or(|o| o.created.is_none());
        // A creation that was not durable is not brought back by undoing the deletion.
        let Some(content) = content.filter(|_| durable) else {
            return;
        };
        if self.deleted.len() == MAX_DELETED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(Deleted { id, content });
    }
}
