//! One core's open object files: bounded, second-chance, never closing one that is in use.

use crate::ObjectId;
use atoll_reactor::fs::File;
use hashbrown::HashMap;
use std::cell::Cell;
use std::rc::Rc;

/// An open object. In use while somebody besides the cache holds it.
pub(crate) struct Open {
    pub(crate) file: File,
    /// Written through this descriptor since its last sync.
    pub(crate) dirty: Cell<bool>,
}

struct Slot {
    id: ObjectId,
    open: Rc<Open>,
    /// Used since the hand passed.
    used: bool,
}

/// What became of an insertion.
pub(crate) struct Inserted {
    pub(crate) open: Rc<Open>,
    /// Nothing could be closed: this one could after a sync.
    pub(crate) stuck: Option<(ObjectId, Rc<Open>)>,
}

pub(crate) struct FdCache {
    places: HashMap<ObjectId, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    capacity: usize,
    /// Dirty files may be closed: with `O_DIRECT` every write reported its own error, in buffered
    /// mode an error would be lost with the descriptor.
    closes_dirty: bool,
}

impl FdCache {
    pub(crate) fn new(capacity: usize, closes_dirty: bool) -> FdCache {
        FdCache {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1),
            closes_dirty,
        }
    }

    pub(crate) fn get(&mut self, id: ObjectId) -> Option<Rc<Open>> {
        let place = *self.places.get(&id)?;
        let slot = self.slots[place].as_mut()?;
        slot.used = true;
        Some(slot.open.clone())
    }

    /// Keeps the file; if the object was opened meanwhile, the one that is there stays.
    pub(crate) fn insert(&mut self, id: ObjectId, file: File) -> Inserted {
        if let Some(open) = self.get(id) {
            return Inserted { open, stuck: None };
        }
        let mut stuck = None;
        while self.places.len() >= self.capacity {
            if !self.evict_one() {
                stuck = self.dirty_and_idle();
                break;
            }
        }
        let open = Rc::new(Open {
            file,
            dirty: Cell::new(false),
        });
        let slot = Some(Slot {
            id,
            open: open.clone(),
            used: true,
        });
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.places.insert(id, place);
        Inserted { open, stuck }
    }

    pub(crate) fn remove(&mut self, id: ObjectId) {
        if let Some(place) = self.places.remove(&id) {
            self.slots[place] = None;
            self.free.push(place);
        }
    }

    fn evict_one(&mut self) -> bool {
        // Twice around: the first pass may only take second chances away.
        for _ in 0..self.slots.len() * 2 {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = &mut self.slots[place] else {
                continue;
            };
            let idle = Rc::strong_count(&slot.open) == 1;
            if !idle || (slot.open.dirty.get() && !self.closes_dirty) {
                continue;
            }
            if std::mem::replace(&mut slot.used, false) {
                continue;
            }
            let id = slot.id;
            self.remove(id);
            return true;
        }
        false
    }

    fn dirty_and_idle(&mut self) -> Option<(ObjectId, Rc<Open>)> {
        let idle = |slot: &&Slot| Rc::strong_count(&slot.open) == 1 && slot.open.dirty.get();
        let slot = self.slots.iter().flatten().find(idle)?;
        Some((slot.id, slot.open.clone()))
    }
}
