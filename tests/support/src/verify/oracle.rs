//! The oracle: which contents a sector may have after a crash, given what was written, acknowledged and flushed.
//! Pure bookkeeping; it does no I/O.

use std::fmt;

use super::stamp::{self, Found, Sequence, Tag};
use super::{BLOCK_SECTORS, Lba, SECTOR};

/// Position in the order of acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Acknowledged(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Zeros,
    Data,
}

/// A write or unmap of one sector, and how far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    sequence: Sequence,
    content: Content,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Submitted,
    Acknowledged(Acknowledged),
    Durable,
}

/// A write that was begun; to be acknowledged with [`Oracle::acknowledge`], or never.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    lba: Lba,
    sectors: u64,
    sequence: Sequence,
}

/// A flush that was begun; it makes durable what had been acknowledged by then.
#[derive(Debug)]
#[must_use]
pub struct Flush(Acknowledged);

/// A sector that is not what it may be.
#[derive(Debug)]
pub struct Wrong {
    lba: Lba,
    found: String,
    allowed: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LBA {}: {}, allowed: {}",
            self.lba.0, self.found, self.allowed
        )
    }
}

/// What may be read from a volume of which each sector has one writer at a time.
pub struct Oracle {
    tag: Tag,
    /// Per sector, oldest first: the newest version that must survive, then all later ones.
    sectors: Vec<Vec<Version>>,
    last_sequence: Sequence,
    last_acknowledged: Acknowledged,
    flushed: Acknowledged,
}

impl Oracle {
    /// Of a new volume, which reads as zeros.
    pub fn new(tag: Tag, sectors: u64) -> Self {
        let zeros = Version {
            sequence: Sequence(0),
            content: Content::Zeros,
            progress: Progress::Durable,
        };
        let none = Acknowledged(0);
        let sectors = (0..sectors).map(|_| vec![zeros]).collect();
        Oracle {
            tag,
            sectors,
            last_sequence: Sequence(0),
            last_acknowledged: none,
            flushed: none,
        }
    }

    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// Acknowledged writes so far.
    pub fn acknowledged(&self) -> u64 {
        self.last_acknowledged.0
    }

    /// Begins a write of the sectors that fill `data`, and fills it.
    pub fn begin_write(&mut self, lba: Lba, data: &mut [u8]) -> Ticket {
        let ticket = self.begin(lba, (data.len() / SECTOR) as u64, Content::Data);
        for (sector, at) in data.chunks_exact_mut(SECTOR).zip(lba.0..) {
            stamp::write(sector, self.tag, Lba(at), ticket.sequence);
        }
        ticket
    }

    /// Begins to make `sectors` sectors read as zeros.
    pub fn begin_zero(&mut self, lba: Lba, sectors: u64) -> Ticket {
        self.begin(lba, sectors, Content::Zeros)
    }

    fn begin(&mut self, lba: Lba, sectors: u64, content: Content) -> Ticket {
        self.last_sequence = Sequence(self.last_sequence.0 + 1);
        let (sequence, flushed) = (self.last_sequence, self.flushed);
        for versions in self.range(lba, sectors) {
            forget_older(versions, flushed);
            versions.push(Version {
                sequence,
                content,
                progress: Progress::Submitted,
            });
        }
        Ticket {
            lba,
            sectors,
            sequence,
        }
    }

    /// The write was acknowledged; `durable` if it said FUA.
    pub fn acknowledge(&mut self, ticket: &Ticket, durable: bool) {
        self.last_acknowledged = Acknowledged(self.last_acknowledged.0 + 1);
        let progress = if durable {
            Progress::Durable
        } else {
            Progress::Acknowledged(self.last_acknowledged)
        };
        for versions in self.range(ticket.lba, ticket.sectors) {
            for version in versions
                .iter_mut()
                .filter(|version| version.sequence == ticket.sequence)
            {
                version.progress = progress;
            }
        }
    }

    pub fn begin_flush(&self) -> Flush {
        Flush(self.last_acknowledged)
    }

    /// The flush was acknowledged.
    pub fn end_flush(&mut self, flush: &Flush) {
        self.flushed = self.flushed.max(flush.0);
    }

    fn range(&mut self, lba: Lba, sectors: u64) -> &mut [Vec<Version>] {
        &mut self.sectors[lba.0 as usize..(lba.0 + sectors) as usize]
    }

    /// Checks what was read from `lba` on after a crash. What is found is from then on all that is allowed.
    ///
    /// # Errors
    /// The first sector that is older than what was made durable, or is no write of this volume to this place, or
    /// whose block is torn though only whole blocks were written to it.
    pub fn check(&mut self, lba: Lba, data: &[u8]) -> Result<(), Wrong> {
        let before = self.range(lba, (data.len() / SECTOR) as u64).to_vec();
        self.check_torn(lba, data)?;
        self.check_whole_blocks(lba, &before)
    }

    /// The same where a write may be torn at any sector.
    ///
    /// # Errors
    /// As [`Oracle::check`], torn blocks apart.
    pub fn check_torn(&mut self, lba: Lba, data: &[u8]) -> Result<(), Wrong> {
        let (flushed, tag) = (self.flushed, self.tag);
        for (sector, at) in data.chunks_exact(SECTOR).zip(lba.0..) {
            let versions = &mut self.sectors[at as usize];
            forget_older(versions, flushed);
            let found = stamp::read(sector);
            let matches = |version: &&Version| match found {
                Found::Zeros => version.content == Content::Zeros,
                Found::Stamp {
                    tag: t,
                    lba: l,
                    sequence,
                } => {
                    version.content == Content::Data
                        && (t, l.0, sequence) == (tag, at, version.sequence)
                }
                Found::Garbage => false,
            };
            let Some(&version) = versions.iter().rfind(matches) else {
                return Err(Wrong {
                    lba: Lba(at),
                    found: format!("{found:?}"),
                    allowed: format!("{versions:?}"),
                });
            };
            *versions = vec![version];
        }
        Ok(())
    }

    /// Blocks that were only written whole may be old or new, not both.
    fn check_whole_blocks(&self, lba: Lba, before: &[Vec<Version>]) -> Result<(), Wrong> {
        let per_block = BLOCK_SECTORS as usize;
        assert_eq!(lba.0 % BLOCK_SECTORS, 0, "checks begin at a block");
        for (block, versions) in before.chunks_exact(per_block).enumerate() {
            let at = lba.0 as usize + block * per_block;
            let after = &self.sectors[at..at + per_block];
            let torn =
                versions.iter().all(|v| *v == versions[0]) && after.iter().any(|v| *v != after[0]);
            if torn {
                let (found, allowed) = (
                    format!("a torn block {after:?}"),
                    format!("one of {:?}", versions[0]),
                );
                return Err(Wrong {
                    lba: Lba(at as u64),
                    found,
                    allowed,
                });
            }
        }
        Ok(())
    }
}

/// Drops the versions that something durable has replaced.
fn forget_older(versions: &mut Vec<Version>, flushed: Acknowledged) {
    let durable = |version: &Version| match version.progress {
        Progress::Submitted => false,
        Progress::Acknowledged(at) => at <= flushed,
        Progress::Durable => true,
    };
    if let Some(newest) = versions.iter().rposition(durable) {
        versions.drain(..newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = SECTOR * BLOCK_SECTORS as usize;

    fn write(oracle: &mut Oracle) -> Vec<u8> {
        let mut data = vec![0; BLOCK];
        let ticket = oracle.begin_write(Lba(0), &mut data);
        oracle.acknowledge(&ticket, false);
        data
    }

    fn oracle() -> Oracle {
        Oracle::new(Tag(7), BLOCK_SECTORS)
    }

    #[test]
    fn what_was_not_flushed_may_be_old_or_new() {
        for keep in [true, false] {
            let mut oracle = oracle();
            let data = write(&mut oracle);
            let read = if keep { data } else { vec![0; BLOCK] };
            assert!(oracle.check(Lba(0), &read).is_ok());
        }
    }

    #[test]
    fn what_was_flushed_must_be_there() {
        let mut oracle = oracle();
        let data = write(&mut oracle);
        let flush = oracle.begin_flush();
        oracle.end_flush(&flush);
        assert!(oracle.check(Lba(0), &vec![0; BLOCK]).is_err());
        assert!(oracle.check(Lba(0), &data).is_ok());
    }

    #[test]
    fn a_write_acknowledged_after_the_flush_began_is_not_covered() {
        let mut oracle = oracle();
        let first = write(&mut oracle);
        let flush = oracle.begin_flush();
        let _second = write(&mut oracle);
        oracle.end_flush(&flush);
        assert!(oracle.check(Lba(0), &first).is_ok());
    }

    #[test]
    fn a_torn_block_another_volume_and_another_place_are_found() {
        let mut oracle = oracle();
        let mut torn = write(&mut oracle);
        torn[..SECTOR].fill(0);
        assert!(
            oracle
                .check(Lba(0), &torn)
                .unwrap_err()
                .to_string()
                .contains("torn")
        );

        let mut foreign = vec![0; BLOCK];
        let _ticket = Oracle::new(Tag(8), BLOCK_SECTORS).begin_write(Lba(0), &mut foreign);
        assert!(self::oracle().check(Lba(0), &foreign).is_err());

        let mut oracle = Oracle::new(Tag(7), 2 * BLOCK_SECTORS);
        let elsewhere = write(&mut oracle);
        assert!(oracle.check(Lba(BLOCK_SECTORS), &elsewhere).is_err());
    }

    #[test]
    fn what_was_seen_once_stays() {
        let mut oracle = oracle();
        let data = write(&mut oracle);
        assert!(oracle.check(Lba(0), &data).is_ok());
        assert!(
            oracle.check(Lba(0), &vec![0; BLOCK]).is_err(),
            "it went back to older data"
        );
    }
}
