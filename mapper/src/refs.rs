//! Objects that several entries name, by their ref: which object a ref is, and refs that are about to be named.

use crate::error::Result;
use crate::format::{Key, ObjectRow};
use crate::meta::{MetaStore, require_row};
use crate::types::{PoolNumber, RefId};
use atoll_backends::ObjectId;
use hashbrown::{HashMap, HashSet};
use std::cell::RefCell;

/// Refs that one core remembers, twice.
const MAX_KNOWN: usize = 32_768;

/// A pool's refs as one core knows them. What a ref is never changes.
pub(crate) struct Refs {
    pool: PoolNumber,
    known: RefCell<HashMap<RefId, ObjectId>>,
    known_before: RefCell<HashMap<RefId, ObjectId>>,
    /// Nobody may name them any more.
    dropped: RefCell<HashSet<RefId>>,
}

impl Refs {
    pub(crate) fn new(pool: PoolNumber) -> Refs {
        Refs {
            pool,
            known: RefCell::default(),
            known_before: RefCell::default(),
            dropped: RefCell::default(),
        }
    }

    /// A ref that may not be in the metadata store yet.
    pub(crate) fn learn(&self, id: RefId, object: ObjectId) {
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_KNOWN {
            // What was learnt lately, and may not be committed yet, stays for as long again.
            self.known_before.replace(std::mem::take(&mut *known));
        }
        known.insert(id, object);
    }

    /// Fewer name these than before.
    pub(crate) fn dropped(&self, ids: impl IntoIterator<Item = RefId>) {
        self.dropped.borrow_mut().extend(ids);
    }

    /// Refs of which fewer are named since they were last taken.
    pub(crate) fn take_dropped(&self) -> Vec<RefId> {
        self.dropped.borrow_mut().drain().collect()
    }

    /// The object of a ref, if it is at hand.
    pub(crate) fn known(&self, id: RefId) -> Option<ObjectId> {
        let before = || self.known_before.borrow().get(&id).copied();
        self.known.borrow().get(&id).copied().or_else(before)
    }

    pub(crate) async fn object(&self, meta: &dyn MetaStore, id: RefId) -> Result<ObjectId> {
        if let Some(object) = self.known(id) {
            return Ok(object);
        }
        let row: ObjectRow = require_row(meta, &Key::object(self.pool, id)).await?;
        self.learn(id, row.object);
        Ok(row.object)
    }
}
