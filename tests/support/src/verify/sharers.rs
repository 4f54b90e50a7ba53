//! The load of sessions that share a volume: each keeps several commands outstanding, anywhere in it, mostly where the
//! others are too, and checks what it reads against the oracle that all of them tell what they do.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::PoisonError;
use std::thread::JoinHandle;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::oracle::{Flush, Oracle, Reading, Ticket};
use super::writers::Load;
use super::{BLOCK_SECTORS, Lba, SECTOR};
use crate::initiator::Durability;
use crate::pipeline::{Ended, Pipeline, Request, Tag};
use crate::process::PATIENCE;

/// Commands that a session keeps outstanding.
const DEPTH: usize = 8;
/// The longest is twice this, in sectors, less one; a length is as likely to be of one power of two as of another, and
/// of three that are drawn the shortest is taken, so that the mean is some 15 KiB.
const LONGEST_POWER: u32 = 10;
const LENGTHS_DRAWN: usize = 3;
/// The longest command in sectors: 1 MiB.
const LONGEST: u64 = 2048;
/// Short commands meet in so many blocks in the middle of the volume.
const CROWDED_BLOCKS: u64 = 12;

/// Running sessions of one load.
pub struct Sharers {
    load: Load,
    threads: Vec<JoinHandle<()>>,
}

/// A command and what the oracle knows of it.
enum Doing {
    Read(Reading),
    Write(Ticket, Durability),
    Zero(Ticket),
    Flush(Flush),
}

struct Session {
    load: Load,
    pipeline: Pipeline,
    rng: ChaCha8Rng,
    doing: Vec<(Tag, Request, Doing)>,
}

/// Tells the others of a session that panics: they stop, too.
struct Tell(Load);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.oracle.fail();
        }
    }
}

impl Load {
    /// Starts to share the volume; all sessions together end `operations` operations, refused ones not counted.
    pub fn share(&self, portal: SocketAddr, seed: u64, operations: u64) -> Sharers {
        let threads = (0..self.sessions).map(|index| {
            let load = self.clone();
            let own = operations / self.sessions;
            std::thread::spawn(move || {
                let _told = Tell(load.clone());
                let session = load.login(portal, index).unwrap_or_else(|e| panic!("{e}"));
                let session = Session {
                    pipeline: Pipeline::new(session),
                    rng: ChaCha8Rng::seed_from_u64(seed ^ index),
                    doing: Vec::new(),
                    load,
                };
                session.run(own);
            })
        });
        Sharers {
            load: self.clone(),
            threads: threads.collect(),
        }
    }

    /// Runs what cuts the volume off at a sector, then what gives it its size back. What was acknowledged before that
    /// reads as zeros then, also if it was begun before the cut.
    pub fn cut(&self, at: Lba, shrink: impl FnOnce(), grow: impl FnOnce()) {
        self.zeroed_by(at, shrink);
        self.zeroed_by(at, grow);
    }

    fn zeroed_by(&self, at: Lba, resize: impl FnOnce()) {
        let ticket = {
            let mut oracle = self.oracle.lock();
            let sectors = oracle.sectors() - at.0;
            oracle.begin_zero(at, sectors)
        };
        resize();
        self.oracle.lock().acknowledge(&ticket, false);
    }

    /// Where commands crowd, in sectors.
    pub fn crowd(&self) -> Range<u64> {
        let middle = self.oracle.lock().sectors() / 2;
        middle..middle + CROWDED_BLOCKS * BLOCK_SECTORS
    }
}

impl Sharers {
    /// Waits until `count` operations have ended since the load's beginning. Panics if a session has failed.
    pub fn wait_for(&self, count: u64) {
        let shared = &self.load.oracle;
        let mut oracle = shared.lock();
        while oracle.ended() < count && !shared.has_failed() {
            let before = oracle.ended();
            let stuck = |oracle: &mut Oracle| oracle.ended() == before && !shared.has_failed();
            let waited = shared
                .acknowledged
                .wait_timeout_while(oracle, PATIENCE, stuck);
            let timeout;
            (oracle, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            assert!(!timeout.timed_out(), "no operation has ended for long");
        }
        assert!(!shared.has_failed(), "a session found it wrong");
    }

    /// Waits for the end of all sessions. Panics if one of them did: it has said what was wrong.
    pub fn join(self) {
        let ends: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        assert!(ends.iter().all(Result::is_ok), "a session found it wrong");
    }
}

impl Session {
    fn run(mut self, operations: u64) {
        let mut good = 0;
        while good < operations && !self.load.oracle.has_failed() {
            while self.doing.len() < DEPTH && good + (self.doing.len() as u64) < operations {
                self.begin();
            }
            let ended = self.pipeline.wait();
            let ended = ended.unwrap_or_else(|e| panic!("{e}"));
            good += u64::from(self.end(ended));
        }
        if self.pipeline.outstanding() == 0 {
            self.pipeline.logout();
        }
    }

    fn submit(&mut self, request: Request, data: Vec<u8>, doing: Doing) {
        let tag = self.pipeline.submit(request, data);
        let tag = tag.unwrap_or_else(|e| panic!("{request:?}: {e}"));
        self.doing.push((tag, request, doing));
    }

    /// Begins one operation, drawn from the seed alone.
    fn begin(&mut self) {
        let (kind, (lba, sectors)) = (self.rng.random_range(0..100), self.range());
        let count = u32::try_from(sectors).expect("short");
        match kind {
            0..3 => {
                let flush = self.load.oracle.lock().begin_flush();
                self.submit(Request::Flush, Vec::new(), Doing::Flush(flush));
            }
            3..10 => {
                let ticket = self.load.oracle.lock().begin_zero(lba, sectors);
                let request = Request::Unmap {
                    lba: lba.0,
                    sectors: count,
                };
                self.submit(request, Vec::new(), Doing::Zero(ticket));
            }
            10..55 => {
                let durability = match kind {
                    10..13 => Durability::Now,
                    _ => Durability::Flush,
                };
                let mut data = vec![0; sectors as usize * SECTOR];
                let ticket = self.load.oracle.lock().begin_write(lba, &mut data);
                let request = Request::Write {
                    lba: lba.0,
                    durability,
                };
                self.submit(request, data, Doing::Write(ticket, durability));
            }
            _ => {
                let reading = self.load.oracle.lock().begin_read(lba, sectors);
                let request = Request::Read {
                    lba: lba.0,
                    sectors: count,
                };
                self.submit(request, Vec::new(), Doing::Read(reading));
            }
        }
    }

    /// Where an operation goes.
    fn range(&mut self) -> (Lba, u64) {
        let crowd = self.load.crowd();
        let size = self.load.oracle.lock().sectors();
        let rng = &mut self.rng;
        let powers = (0..LENGTHS_DRAWN).map(|_| rng.random_range(0..=LONGEST_POWER + 1));
        let power = powers.min().expect("some are drawn");
        let mut sectors = rng.random_range(1_u64 << power..2 << power).min(LONGEST);
        let whole_blocks = rng.random_bool(0.5);
        if whole_blocks {
            sectors = sectors.next_multiple_of(BLOCK_SECTORS);
        }
        let short = sectors <= (crowd.end - crowd.start) / 2;
        let within = match rng.random_bool(0.5) && short {
            true => crowd,
            false => 0..size,
        };
        let mut lba = rng.random_range(within.start..=within.end - sectors);
        if whole_blocks {
            lba -= lba % BLOCK_SECTORS;
        }
        (Lba(lba), sectors)
    }

    /// Tells the oracle how a command has ended. False if that was no end: refused, or to be run again.
    fn end(&mut self, ended: Ended) -> bool {
        let known = self.doing.iter().position(|(tag, ..)| *tag == ended.tag);
        let (_, request, doing) = self.doing.swap_remove(known.expect("a command of ours"));
        let mut oracle = self.load.oracle.lock();
        match (&ended.result, &doing) {
            (Ok(data), Doing::Read(reading)) => {
                if let Err(wrong) = oracle.end_read(reading, data) {
                    panic!("{request:?}: {wrong}");
                }
            }
            (Ok(_), Doing::Write(ticket, durability)) => {
                oracle.acknowledge(ticket, *durability == Durability::Now);
            }
            (Ok(_), Doing::Zero(ticket)) => oracle.acknowledge(ticket, false),
            (Ok(_), Doing::Flush(flush)) => oracle.end_flush(flush),
            (Err(failure), _) if failure.is_unit_attention() => {
                drop(oracle);
                self.submit(request, ended.written, doing);
                return false;
            }
            (Err(failure), Doing::Read(reading)) if failure.is_out_of_range() => {
                oracle.give_up_read(reading);
                return false;
            }
            (Err(failure), Doing::Write(ticket, _) | Doing::Zero(ticket))
                if failure.is_out_of_range() =>
            {
                oracle.refuse(ticket);
                return false;
            }
            (Err(failure), _) => panic!("{request:?}: {failure}"),
        }
        oracle.count_end();
        drop(oracle);
        self.load.oracle.acknowledged.notify_all();
        true
    }
}
