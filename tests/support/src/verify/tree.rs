//! Loads whose volumes have snapshots, are clones, are rolled back and resized; and the reading of volumes and snapshots
//! by a session of its own.

use std::net::SocketAddr;

use super::image::{Cut, Image};
use super::oracle::Oracle;
use super::writers::{Load, READ_SECTORS};
use super::{Lba, SECTOR};
use crate::daemon::IQN;
use crate::initiator::Initiator;

/// Number of a volume in its tree; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork(pub u64);

impl Load {
    /// For a volume that begins as a snapshot is.
    pub fn of_image(image: &Image, number: Fork, export: &str, sessions: u64) -> Self {
        Load::of(export, sessions, image.volume(number.0))
    }

    /// The same as of now, of which nobody else knows.
    pub fn fork(&self) -> Self {
        let oracle = self.oracle.lock().clone();
        Load::of(&self.export, self.sessions, oracle)
    }

    pub fn export(&self) -> &str {
        &self.export
    }

    pub fn sectors(&self) -> u64 {
        self.oracle.lock().sectors()
    }

    /// See [`Oracle::begin_cut`].
    pub fn begin_cut(&self) -> Cut {
        self.oracle.lock().begin_cut()
    }

    /// See [`Oracle::end_cut`].
    pub fn end_cut(&self, cut: &Cut, answered: bool) -> Image {
        self.oracle.lock().end_cut(cut, answered)
    }

    /// See [`Oracle::roll_back`].
    pub fn roll_back(&self, image: &Image) {
        self.oracle.lock().roll_back(image);
    }

    /// See [`Oracle::resize`].
    pub fn resize(&self, sectors: u64) {
        self.oracle.lock().resize(sectors);
    }

    /// What somebody else writes to the volume's beginning, and flushes, before anything else happens to it.
    pub fn begins_with(&self, data: &mut [u8]) {
        let mut oracle = self.oracle.lock();
        let ticket = oracle.begin_write(Lba(0), data);
        oracle.acknowledge(&ticket, true);
    }
}

fn read_all(export: &str, portal: SocketAddr) -> (Initiator, Vec<u8>) {
    let name = format!("iqn.2026-11.test:reader-of-{export}");
    let session = Initiator::login(portal, &format!("{IQN}:{export}"), &name);
    let mut session = session.unwrap_or_else(|e| panic!("{export}: {e}"));
    let sectors = session.sectors();
    let sectors = sectors.unwrap_or_else(|e| panic!("{export}: {e}"));
    let mut data = Vec::with_capacity(sectors as usize * SECTOR);
    for lba in (0..sectors).step_by(READ_SECTORS as usize) {
        let count = READ_SECTORS.min(sectors - lba);
        let part = session.read(lba, count as usize);
        data.extend(part.unwrap_or_else(|e| panic!("{export} LBA {lba}: {e}")));
    }
    (session, data)
}

/// Reads the whole snapshot, as it is exported, and checks it. Panics with the first wrong sector.
pub fn verify_image(image: &mut Image, export: &str, portal: SocketAddr) {
    let (session, data) = read_all(export, portal);
    session.logout();
    assert_eq!(
        data.len() as u64,
        image.sectors() * SECTOR as u64,
        "{export}: its size"
    );
    image
        .check(&data)
        .unwrap_or_else(|wrong| panic!("{export}: {wrong}"));
}

/// Reads the whole volume, which nobody is writing to and no crash has met, and checks it. Panics with the first wrong
/// sector.
pub fn look(load: &Load, portal: SocketAddr) {
    let reading = {
        let mut oracle = load.oracle.lock();
        let sectors = oracle.sectors();
        oracle.begin_read(Lba(0), sectors)
    };
    let (session, data) = read_all(&load.export, portal);
    session.logout();
    let checked = load.oracle.lock().end_read(&reading, &data);
    checked.unwrap_or_else(|wrong| panic!("{}: {wrong}", load.export));
}

/// [`verify`](super::verify) of a volume of which it is not known what became of it before the crash: which of several
/// it is. Panics if it is none.
pub fn verify_one_of(loads: &[&Load], portal: SocketAddr) -> usize {
    let export = &loads[0].export;
    let (mut session, data) = read_all(export, portal);
    let mut wrongs = Vec::new();
    for (load, index) in loads.iter().zip(0..) {
        let mut oracle: Oracle = load.oracle.lock().clone();
        if oracle.sectors() * SECTOR as u64 != data.len() as u64 {
            wrongs.push(format!("it has {} sectors", data.len() / SECTOR));
            continue;
        }
        match oracle.check(Lba(0), &data) {
            Err(wrong) => wrongs.push(wrong.to_string()),
            Ok(()) => {
                *load.oracle.lock() = oracle;
                let flushed = load.flush(&mut session);
                flushed.unwrap_or_else(|e| panic!("{export}: {e}"));
                session.logout();
                return index;
            }
        }
    }
    panic!("{export} is none of what it may be: {wrongs:#?}")
}
