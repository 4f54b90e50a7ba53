//! The load of one measurement: on each core that takes part a number of tasks, each with one operation at a time at
//! random places. What it gives is operations per second of all cores together.

use crate::world::{PoolUnder, VOLUME_BYTES, World};
use atoll_mapper::VolumeHandle;
use atoll_reactor::{Buf, CoreHandle, Instant, now, oneshot, spawn, yield_now};
use std::fmt;
use std::hint::black_box;
use std::time::Duration;

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
/// Operations of a task between two looks at the clock.
const CLOCK_EVERY: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// None.
    Turn,
    Read,
    Write,
    /// A part of a block: only the home core does it.
    WriteSector,
}

impl Operation {
    pub const ALL: [Operation; 4] = [
        Operation::Turn,
        Operation::Read,
        Operation::Write,
        Operation::WriteSector,
    ];
    /// Those that reach the pool.
    pub const ON_POOLS: [Operation; 3] =
        [Operation::Read, Operation::Write, Operation::WriteSector];

    /// Where it is measured; the home core first.
    pub fn places(self) -> &'static [Place] {
        match self {
            Operation::Turn => &[Place::Home],
            _ => &[Place::Home, Place::Other, Place::Both],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Turn => "turn",
            Operation::Read => "read 4096",
            Operation::Write => "write 4096",
            Operation::WriteSector => "write 512",
        })
    }
}

/// The cores that take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Home,
    Other,
    Both,
}

impl Place {
    pub fn cores(self) -> usize {
        match self {
            Place::Home | Place::Other => 1,
            Place::Both => 2,
        }
    }

    fn has(self, home: bool) -> bool {
        match self {
            Place::Home => home,
            Place::Other => !home,
            Place::Both => true,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Home => "home",
            Place::Other => "other",
            Place::Both => "both",
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub pool: PoolUnder,
    /// Operations under way on each core.
    pub depth: usize,
    pub operation: Operation,
    pub place: Place,
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Time(Duration),
    /// So many on each core, as far as the depth divides them.
    Operations(u64),
}

/// Operations per second.
pub async fn run(world: &World, case: Case, until: Until) -> f64 {
    let volume = world.volume(case.pool);
    let cores = world.cores.iter();
    let running: Vec<_> = cores
        .filter(|core| case.place.has(core.id() == volume.home().id()))
        .map(|core| begin(core, volume.clone(), case, until))
        .collect();
    let mut rate = 0.0;
    for running in running {
        rate += running.await.expect("the core runs to the end");
    }
    rate
}

fn begin(
    core: &CoreHandle,
    volume: VolumeHandle,
    case: Case,
    until: Until,
) -> oneshot::Receiver<f64> {
    let (sender, receiver) = oneshot::channel();
    let begun = core.spawn(move || async move {
        // Who asks waits for it.
        let _ = sender.send(on_this_core(volume, case, until).await);
    });
    begun.expect("an idle core takes it");
    receiver
}

async fn on_this_core(volume: VolumeHandle, case: Case, until: Until) -> f64 {
    let start = now();
    let tasks: Vec<_> = (0..case.depth)
        .map(|number| {
            let end = match until {
                Until::Time(span) => End::At(start + span),
                Until::Operations(count) => End::After(count / case.depth as u64),
            };
            // Of one seed per task, the same in each round.
            let places = Places(number as u64 + 1);
            spawn(task(volume.clone(), case.operation, places, end))
        })
        .collect();
    let mut operations = 0;
    for task in tasks {
        operations += task.await;
    }
    operations as f64 / now().since(start).as_secs_f64()
}

#[derive(Clone, Copy)]
enum End {
    At(Instant),
    After(u64),
}

impl End {
    fn reached(self, done: u64) -> bool {
        match self {
            End::At(end) => done.is_multiple_of(CLOCK_EVERY) && now() >= end,
            End::After(count) => done >= count,
        }
    }
}

/// Gives how many operations it did.
async fn task(volume: VolumeHandle, operation: Operation, mut places: Places, end: End) -> u64 {
    let block = Buf::zeroed(BLOCK as usize).freeze();
    let sector = Buf::zeroed(SECTOR as usize).freeze();
    let mut done = 0;
    while !end.reached(done) {
        let at = places.next();
        match operation {
            Operation::Turn => {
                black_box(at);
            }
            Operation::Read => {
                let read = volume.read(at, BLOCK).await;
                black_box(read.expect("what was written is read"));
            }
            Operation::Write => {
                let written = volume.write(at, block.clone(), false).await;
                written.expect("an object that is there is written");
            }
            Operation::WriteSector => {
                let written = volume.write(at + SECTOR, sector.clone(), false).await;
                written.expect("a part of a block is written");
            }
        }
        done += 1;
        // What comes by a socket comes in a turn of its own, too; and a store that answers at once would keep a
        // task running for ever.
        yield_now().await;
    }
    done
}

/// Random blocks of the volume (splitmix64).
struct Places(u64);

impl Places {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (VOLUME_BYTES / BLOCK) * BLOCK
    }
}
