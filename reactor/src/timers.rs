//! The timers of one core: a hierarchical wheel. Setting and removing one takes constant time and,
//! in the steady state, no memory. They fire in the order of their deadlines, equal ones in the
//! order in which they were set, never early.

use crate::time::Instant;
use slab::Slab;
use std::task::Waker;

/// A tick is `2^TICK_BITS` nanoseconds, 131 µs. Within a tick deadlines are compared exactly.
const TICK_BITS: u32 = 17;
/// Each level has 64 slots, a slot of one level spans all slots of the level below.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough for every value of the clock.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(LEVEL_BITS) as usize;

const NONE: u32 = u32::MAX;

/// Names a timer until it has fired or was removed; harmless afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    number: u64,
}

struct Timer {
    deadline: Instant,
    /// Counts the timers of the core: makes keys unique and orders equal deadlines.
    number: u64,
    waker: Waker,
    place: Place,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
enum Place {
    Slot { level: u8, slot: u8 },
    Due,
}

#[derive(Clone)]
struct Level {
    /// One bit per slot that has timers.
    occupied: u64,
    /// First timer of each slot.
    heads: [u32; SLOTS],
}

/// The timers of one core.
pub(crate) struct Timers {
    timers: Slab<Timer>,
    levels: [Level; LEVELS],
    /// No timer in the wheel belongs to an earlier tick.
    tick: u64,
    next_number: u64,
    /// Timers whose tick has come, the first to fire at the end; removed ones stay in it.
    due: Vec<TimerKey>,
}

fn tick_of(at: Instant) -> u64 {
    at.as_nanos() >> TICK_BITS
}

/// First tick of the slot that `tick` lies in.
fn slot_start(level: usize, tick: u64) -> u64 {
    tick >> (level as u32 * LEVEL_BITS) << (level as u32 * LEVEL_BITS)
}

fn slot_of(level: usize, tick: u64) -> usize {
    (tick >> (level as u32 * LEVEL_BITS)) as usize % SLOTS
}

impl Timers {
    pub(crate) fn new() -> Timers {
        let level = Level {
            occupied: 0,
            heads: [NONE; SLOTS],
        };
        Timers {
            timers: Slab::new(),
            levels: [const { None }; LEVELS].map(|_: Option<()>| level.clone()),
            tick: 0,
            next_number: 0,
            due: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, at: Instant, waker: Waker) -> TimerKey {
        let number = self.next_number;
        self.next_number += 1;
        let index = self.timers.insert(Timer {
            deadline: at,
            number,
            waker,
            place: Place::Due,
            previous: NONE,
            next: NONE,
        });
        let index = u32::try_from(index).expect("fewer than 2^32 timers");
        self.link(index);
        TimerKey { index, number }
    }

    pub(crate) fn remove(&mut self, key: TimerKey) {
        if self.get(key).is_some() {
            self.unlink(key.index);
            self.timers.remove(key.index as usize);
        }
    }

    pub(crate) fn set_waker(&mut self, key: TimerKey, waker: &Waker) {
        if let Some(timer) = self.get(key) {
            timer.waker.clone_from(waker);
        }
    }

    fn get(&mut self, key: TimerKey) -> Option<&mut Timer> {
        let timer = self.timers.get_mut(key.index as usize);
        timer.filter(|timer| timer.number == key.number)
    }

    /// Not later than when the next one is due; with each call of [`Self::pop_due`] at that time
    /// it moves on, to the exact time in the end.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let due = self.due.iter().rev().find_map(|key| {
            let timer = self.timers.get(key.index as usize);
            timer.filter(|timer| timer.number == key.number)
        });
        if let Some(timer) = due {
            return Some(timer.deadline);
        }
        let (level, start) = self.next_slot()?;
        if level > 0 {
            return Some(Instant::from_nanos(start << TICK_BITS));
        }
        self.slot_timers(level, slot_of(level, start))
            .map(|timer| timer.deadline)
            .min()
    }

    /// The waker of the next timer whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        loop {
            while let Some(key) = self.due.pop() {
                if self.get(key).is_some() {
                    return Some(self.timers.remove(key.index as usize).waker);
                }
            }
            if !self.advance(now) {
                return None;
            }
        }
    }

    /// Takes the next step towards `now`; false if there is nothing more to come by then.
    fn advance(&mut self, now: Instant) -> bool {
        let target = tick_of(now);
        let Some((level, start)) = self.next_slot().filter(|(_, start)| *start <= target) else {
            self.tick = self.tick.max(target);
            return false;
        };
        self.tick = self.tick.max(start);
        let slot = slot_of(level, start);
        let mut index = self.levels[level].heads[slot];
        while index != NONE {
            let timer = &self.timers[index as usize];
            let next = timer.next;
            if level > 0 {
                self.unlink(index);
                self.link(index);
            } else if timer.deadline <= now {
                let number = timer.number;
                self.unlink(index);
                self.timers[index as usize].place = Place::Due;
                self.due.push(TimerKey { index, number });
            }
            index = next;
        }
        if level > 0 {
            return true;
        }
        let timers = &self.timers;
        // The first to fire at the end.
        self.due.sort_unstable_by_key(|key| {
            std::cmp::Reverse((timers[key.index as usize].deadline, key.number))
        });
        !self.due.is_empty()
    }

    /// Level and first tick of the slot that comes next.
    fn next_slot(&self) -> Option<(usize, u64)> {
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            let from = slot_of(level, self.tick);
            let ahead = slots.occupied >> from;
            (ahead != 0).then(|| {
                let first = slot_start(level, self.tick);
                let step = u64::from(ahead.trailing_zeros()) << (level as u32 * LEVEL_BITS);
                (level, first + step)
            })
        })
    }

    fn slot_timers(&self, level: usize, slot: usize) -> impl Iterator<Item = &Timer> {
        let first = self.levels[level].heads[slot];
        let timer = |index: u32| (index != NONE).then(|| &self.timers[index as usize]);
        std::iter::successors(timer(first), move |known| timer(known.next))
    }

    /// Puts a timer into the slot for its deadline: on the lowest level where it lies in the same
    /// round as the current tick. One that is late goes to the current tick.
    fn link(&mut self, index: u32) {
        let at = tick_of(self.timers[index as usize].deadline).max(self.tick);
        let differ = u64::BITS - (at ^ self.tick).leading_zeros();
        let level = (differ.saturating_sub(1) / LEVEL_BITS) as usize;
        let slot = slot_of(level, at);
        let slots = &mut self.levels[level];
        let next = std::mem::replace(&mut slots.heads[slot], index);
        slots.occupied |= 1 << slot;
        if next != NONE {
            self.timers[next as usize].previous = index;
        }
        let timer = &mut self.timers[index as usize];
        timer.place = Place::Slot {
            level: level as u8,
            slot: slot as u8,
        };
        timer.previous = NONE;
        timer.next = next;
    }

    fn unlink(&mut self, index: u32) {
        let timer = &self.timers[index as usize];
        let Place::Slot { level, slot } = timer.place else {
            return;
        };
        let (previous, next) = (timer.previous, timer.next);
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous != NONE {
            self.timers[previous as usize].next = next;
            return;
        }
        let slots = &mut self.levels[usize::from(level)];
        slots.heads[usize::from(slot)] = next;
        if next == NONE {
            slots.occupied &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    /// Leaves its number behind when it is woken.
    struct Named(u64, Arc<AtomicU64>);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0, Ordering::Relaxed);
        }
    }

    struct Wheel {
        timers: Timers,
        woken: Arc<AtomicU64>,
        /// The oracle: what is to fire, in order.
        expected: BTreeMap<(Instant, u64), TimerKey>,
        count: u64,
    }

    impl Wheel {
        fn set(&mut self, at: Instant) {
            let number = self.count;
            self.count += 1;
            let waker = Waker::from(Arc::new(Named(number, self.woken.clone())));
            let key = self.timers.insert(at, waker);
            self.expected.insert((at, number), key);
        }

        fn fire(&mut self, now: Instant) {
            while let Some(waker) = self.timers.pop_due(now) {
                waker.wake();
                let (first, _) = self.expected.pop_first().expect("nothing is left to fire");
                assert_eq!(first.1, self.woken.load(Ordering::Relaxed));
                assert!(first.0 <= now, "early");
            }
            let next = self.expected.first_key_value().map(|(key, _)| key.0);
            assert!(next.is_none_or(|next| next > now), "late");
            let told = self.timers.next_deadline();
            assert_eq!(told.is_some(), next.is_some());
            assert!(told <= next && told.is_none_or(|told| told > now));
        }
    }

    /// As often small as large.
    fn any_size(rng: &mut ChaCha8Rng) -> u64 {
        let bits = rng.random_range(4..63);
        rng.random_range(0..1 << bits)
    }

    #[test]
    fn the_wheel_fires_what_a_sorted_map_would() {
        for seed in 0..200 {
            println!("seed {seed}");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut wheel = Wheel {
                timers: Timers::new(),
                woken: Arc::default(),
                expected: BTreeMap::new(),
                count: 0,
            };
            let mut now = any_size(&mut rng);
            for _ in 0..500 {
                for _ in 0..rng.random_range(0..4) {
                    let at = now.saturating_add(any_size(&mut rng));
                    wheel.set(Instant::from_nanos(at));
                }
                if rng.random_bool(0.1) {
                    wheel.set(Instant::from_nanos(now / 2));
                }
                if rng.random_bool(0.3) && !wheel.expected.is_empty() {
                    let nth = rng.random_range(0..wheel.expected.len());
                    let name = *wheel.expected.keys().nth(nth).unwrap();
                    let key = wheel.expected.remove(&name).unwrap();
                    wheel.timers.remove(key);
                    wheel.timers.remove(key);
                }
                let told = wheel.timers.next_deadline().map_or(now, Instant::as_nanos);
                now = match rng.random_range(0..3) {
                    0 => now.max(told),
                    1 => now.saturating_add(rng.random_range(0..1 << 18)),
                    _ => now.saturating_add(rng.random_range(0..1 << 40)),
                };
                wheel.fire(Instant::from_nanos(now));
            }
        }
    }

    #[test]
    fn a_clock_that_follows_the_deadlines_reaches_each_of_them_exactly() {
        let mut timers = Timers::new();
        let deadlines = [
            1,
            70_000,
            1 << 20,
            3 << 30,
            86_400_000_000_007,
            u64::MAX >> 1,
        ];
        for at in deadlines {
            timers.insert(Instant::from_nanos(at), Waker::noop().clone());
        }
        let mut fired = Vec::new();
        let mut steps = 0;
        while let Some(at) = timers.next_deadline() {
            if timers.pop_due(at).is_some() {
                fired.push(at.as_nanos());
            }
            steps += 1;
            assert!(steps < 100, "no progress");
        }
        assert_eq!(fired, deadlines);
    }
}
