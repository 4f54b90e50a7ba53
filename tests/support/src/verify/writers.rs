//! The load: several sessions that write, unmap and flush one volume until the target is gone, and the reader that
//! checks what it serves when it is back.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{BLOCK_SECTORS, Lba, Oracle, SECTOR, Tag, Wrong};
use crate::daemon::IQN;
use crate::initiator::{Durability, Failure, Initiator};
use crate::process::PATIENCE;

/// Lengths of commands in blocks; each as likely as the others, so that most writes are small.
const LENGTHS: [u64; 8] = [1, 1, 1, 2, 4, 16, 64, 256];
/// Sectors that one read of the check asks for.
pub(super) const READ_SECTORS: u64 = 2048;

/// One volume's load over all crashes: what was written to it, and by how many sessions at a time.
#[derive(Clone)]
pub struct Load {
    pub(super) export: String,
    pub(super) sessions: u64,
    pub(super) oracle: Arc<Shared>,
}

pub(super) struct Shared {
    oracle: Mutex<Oracle>,
    pub(super) acknowledged: Condvar,
    /// A session has found something wrong.
    failed: AtomicBool,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        // Who waits has looked before or looks now.
        drop(self.lock());
        self.acknowledged.notify_all();
    }
}

impl Load {
    /// For a new volume of `sectors` sectors, exported as `export`; each of `sessions` sessions writes its own part.
    pub fn new(export: &str, sectors: u64, sessions: u64, tag: Tag) -> Self {
        Self::of(export, sessions, Oracle::new(tag, sectors))
    }

    /// For a volume of which it is known what it may hold.
    pub(super) fn of(export: &str, sessions: u64, oracle: Oracle) -> Self {
        let oracle = Shared {
            oracle: Mutex::new(oracle),
            acknowledged: Condvar::new(),
            failed: AtomicBool::new(false),
        };
        Load {
            export: export.into(),
            sessions,
            oracle: Arc::new(oracle),
        }
    }

    /// Starts to write; each session goes on until it fails, which it does when the target dies.
    pub fn start(&self, portal: SocketAddr, seed: u64) -> Writers {
        let per_session = self.oracle.lock().sectors() / BLOCK_SECTORS / self.sessions;
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..self.sessions).map(|index| {
            let stop = stop.clone();
            let (load, blocks) = (self.clone(), index * per_session..(index + 1) * per_session);
            std::thread::spawn(move || load.write_until(&stop, portal, index, blocks, seed))
        });
        Writers {
            threads: threads.collect(),
            shared: self.oracle.clone(),
            stop,
        }
    }

    pub(super) fn login(&self, portal: SocketAddr, index: u64) -> Result<Initiator, Failure> {
        let target = format!("{IQN}:{}", self.export);
        Initiator::login(
            portal,
            &target,
            &format!("iqn.2026-11.test:{}-{index}", self.export),
        )
    }

    /// Until it is told to stop, or fails: then why.
    fn write_until(
        &self,
        stop: &AtomicBool,
        portal: SocketAddr,
        index: u64,
        blocks: Range<u64>,
        seed: u64,
    ) -> Option<Failure> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ index);
        let mut session = match self.login(portal, index) {
            Ok(session) => session,
            Err(failure) => return Some(failure),
        };
        while !stop.load(Ordering::Relaxed) {
            if let Err(failure) = self.step(&mut session, &mut rng, &blocks) {
                return Some(failure);
            }
        }
        session.logout();
        None
    }

    fn step(
        &self,
        session: &mut Initiator,
        rng: &mut ChaCha8Rng,
        blocks: &Range<u64>,
    ) -> Result<(), Failure> {
        let length = (*LENGTHS.choose(rng).expect("not empty")).min(blocks.end - blocks.start);
        let first = Lba(rng.random_range(blocks.start..=blocks.end - length) * BLOCK_SECTORS);
        match rng.random_range(0..100) {
            0..8 => self.flush(session),
            8..14 => self.unmap(session, first, length * BLOCK_SECTORS),
            // Sectors that are no whole block.
            14..24 => {
                let within = rng.random_range(0..BLOCK_SECTORS);
                let sectors = rng.random_range(1..=BLOCK_SECTORS - within);
                self.write(session, Lba(first.0 + within), sectors, Durability::Flush)
            }
            24..34 => self.write(session, first, length * BLOCK_SECTORS, Durability::Now),
            _ => self.write(session, first, length * BLOCK_SECTORS, Durability::Flush),
        }
    }

    fn write(
        &self,
        session: &mut Initiator,
        lba: Lba,
        sectors: u64,
        durability: Durability,
    ) -> Result<(), Failure> {
        let mut data = vec![0; sectors as usize * SECTOR];
        let ticket = self.oracle.lock().begin_write(lba, &mut data);
        session.write(lba.0, &mut data, durability)?;
        self.oracle
            .lock()
            .acknowledge(&ticket, durability == Durability::Now);
        self.oracle.acknowledged.notify_all();
        Ok(())
    }

    fn unmap(&self, session: &mut Initiator, lba: Lba, sectors: u64) -> Result<(), Failure> {
        let ticket = self.oracle.lock().begin_zero(lba, sectors);
        session.unmap(lba.0, sectors as usize)?;
        self.oracle.lock().acknowledge(&ticket, false);
        Ok(())
    }

    pub(super) fn flush(&self, session: &mut Initiator) -> Result<(), Failure> {
        let flush = self.oracle.lock().begin_flush();
        session.flush()?;
        self.oracle.lock().end_flush(&flush);
        Ok(())
    }
}

/// Running sessions of one load.
pub struct Writers {
    threads: Vec<JoinHandle<Option<Failure>>>,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    /// Waits until `count` more writes have been acknowledged. Panics if the sessions fail before, or nothing moves.
    pub fn wait_for(&self, count: u64) {
        let mut oracle = self.shared.lock();
        let goal = oracle.acknowledged() + count;
        while oracle.acknowledged() < goal {
            let before = oracle.acknowledged();
            let stuck = |oracle: &mut Oracle| oracle.acknowledged() == before;
            let waited = self
                .shared
                .acknowledged
                .wait_timeout_while(oracle, PATIENCE, stuck);
            let timeout;
            (oracle, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            let ended = self
                .threads
                .iter()
                .filter(|thread| thread.is_finished())
                .count();
            assert!(
                !timeout.timed_out(),
                "no write was acknowledged for long; {ended} sessions ended"
            );
        }
    }

    /// Waits for the end of all sessions, which ends with the target; why each ended.
    pub fn join(self) -> Vec<Failure> {
        self.threads
            .into_iter()
            .filter_map(|thread| thread.join().expect("a writer panicked"))
            .collect()
    }

    /// Ends all sessions in order. Panics if one has failed.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self.join().iter().map(Failure::to_string).collect();
        assert!(failures.is_empty(), "sessions failed: {failures:?}");
    }
}

/// Reads the whole volume and checks it, then flushes: what was seen must from now on stay.
/// Panics with the first wrong sector, or torn block.
pub fn verify(load: &Load, portal: SocketAddr) {
    verify_by(load, portal, Oracle::check);
}

/// [`verify`] after a power loss, which may tear what was not flushed at the store's atomic unit: a sector.
pub fn verify_torn(load: &Load, portal: SocketAddr) {
    verify_by(load, portal, Oracle::check_torn);
}

fn verify_by(
    load: &Load,
    portal: SocketAddr,
    check: fn(&mut Oracle, Lba, &[u8]) -> Result<(), Wrong>,
) {
    let mut session = load
        .login(portal, 0)
        .unwrap_or_else(|e| panic!("{}: {e}", load.export));
    let sectors = load.oracle.lock().sectors();
    let found = session
        .sectors()
        .unwrap_or_else(|e| panic!("{}: {e}", load.export));
    assert_eq!(found, sectors, "{}: its size", load.export);
    for lba in (0..sectors).step_by(READ_SECTORS as usize) {
        let count = READ_SECTORS.min(sectors - lba);
        let data = session
            .read(lba, count as usize)
            .unwrap_or_else(|e| panic!("{} LBA {lba}: {e}", load.export));
        if let Err(wrong) = check(&mut load.oracle.lock(), Lba(lba), &data) {
            panic!("{}: {wrong}", load.export);
        }
    }
    load.flush(&mut session)
        .unwrap_or_else(|e| panic!("{}: {e}", load.export));
    session.logout();
}
