//! What all cores of a simulation share: the clock, the one source of randomness, the queue of
//! future events, the disk and the network. It decides when things happen, not what they do.

use super::config::SimConfig;
use super::disk::SimDisk;
use super::network::SimNet;
use crate::time::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

/// FNV-1a, 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

type Event = Box<dyn FnOnce(&Rc<World>)>;

pub(crate) struct World {
    now: Cell<Instant>,
    pub(super) rng: RefCell<ChaCha8Rng>,
    events: RefCell<BTreeMap<(Instant, u64), Event>>,
    next_event: Cell<u64>,
    trace: Cell<u64>,
    halted: Cell<bool>,
    pub(super) config: SimConfig,
    pub(super) disk: SimDisk,
    pub(super) net: SimNet,
}

impl World {
    pub(super) fn new(seed: u64, config: SimConfig, disk: SimDisk) -> Rc<World> {
        Rc::new_cyclic(|world| World {
            now: Cell::new(Instant::from_nanos(1)),
            rng: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            events: RefCell::new(BTreeMap::new()),
            next_event: Cell::new(0),
            trace: Cell::new(FNV_OFFSET),
            halted: Cell::new(false),
            net: SimNet::new(config.net.clone(), world.clone()),
            config,
            disk,
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn move_clock(&self, to: Instant) {
        self.now.set(to.max(self.now.get()));
    }

    /// A duration of the range, drawn from the seed.
    pub(super) fn draw(&self, range: &RangeInclusive<Duration>) -> Duration {
        let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (low, high) = (nanos(range.start()), nanos(range.end()));
        if low >= high {
            return *range.start();
        }
        Duration::from_nanos(self.rng.borrow_mut().random_range(low..=high))
    }

    /// True with this probability (0 to 1).
    pub(super) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.rng.borrow_mut().random_bool(probability.min(1.0))
    }

    pub(super) fn at(&self, when: Instant, event: impl FnOnce(&Rc<World>) + 'static) {
        let number = self.next_event.get();
        self.next_event.set(number + 1);
        self.events
            .borrow_mut()
            .insert((when, number), Box::new(event));
    }

    /// Runs one event that is due; false if none is.
    pub(super) fn run_event(self: &Rc<World>) -> bool {
        let event = {
            let mut events = self.events.borrow_mut();
            match events.first_entry() {
                Some(first) if first.key().0 <= self.now.get() => {
                    self.note(first.key().1);
                    first.remove()
                }
                _ => return false,
            }
        };
        event(self);
        true
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.events.borrow().first_key_value().map(|(key, _)| key.0)
    }

    /// Adds to the trace, which tells two runs apart.
    pub(super) fn note(&self, value: u64) {
        let mut hash = self.trace.get();
        for part in [value, self.now.get().as_nanos()] {
            for byte in part.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            }
        }
        self.trace.set(hash);
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// From now on nothing new begins: the machine is off.
    pub(super) fn halt(&self) {
        self.halted.set(true);
        let events = self.events.take();
        drop(events);
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted.get()
    }
}
