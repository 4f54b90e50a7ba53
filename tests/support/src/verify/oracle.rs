//! The oracle: which contents a sector may have, given what was written, acknowledged, read and flushed before: while
//! several sessions share it, and after a crash. Pure bookkeeping; it does no I/O.

use std::collections::BTreeMap;
use std::fmt;

use super::stamp::{self, Found, Sequence, Tag};
use super::versions::{Content, Moment, Version, Versions};
use super::{BLOCK_SECTORS, Lba, SECTOR};

/// A write that was begun; to be acknowledged with [`Oracle::acknowledge`], or never.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    lba: Lba,
    sectors: u64,
    sequence: Sequence,
}

/// A read that was begun; to be ended with [`Oracle::end_read`] or [`Oracle::give_up_read`].
#[derive(Debug)]
#[must_use]
pub struct Reading {
    lba: Lba,
    sectors: u64,
    pub(super) begun: Moment,
}

/// A flush that was begun; it makes durable what had been acknowledged by then.
#[derive(Debug)]
#[must_use]
pub struct Flush(Moment);

/// A sector that is not what it may be.
#[derive(Debug)]
pub struct Wrong {
    pub(super) lba: Lba,
    pub(super) found: String,
    pub(super) allowed: String,
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

/// What may be read from a volume.
#[derive(Clone)]
pub struct Oracle {
    pub(super) tag: Tag,
    pub(super) sectors: Vec<Versions>,
    pub(super) now: Moment,
    pub(super) last_sequence: Sequence,
    acknowledged: u64,
    ended: u64,
    /// What was acknowledged before is durable.
    pub(super) flushed: Moment,
    /// When the reads that run were begun, and how many at once.
    reads: BTreeMap<Moment, u32>,
}

impl Oracle {
    /// Of a new volume, which reads as zeros.
    pub fn new(tag: Tag, sectors: u64) -> Self {
        Oracle {
            tag,
            sectors: (0..sectors).map(|_| Versions::new()).collect(),
            now: Moment::START,
            last_sequence: Sequence(0),
            acknowledged: 0,
            ended: 0,
            flushed: Moment::START,
            reads: BTreeMap::new(),
        }
    }

    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// Acknowledged writes so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Operations of sharers that have ended well so far.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    pub(super) fn count_end(&mut self) {
        self.ended += 1;
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
        let now = self.now.tick();
        self.last_sequence = Sequence(self.last_sequence.0 + 1);
        let (sequence, flushed) = (self.last_sequence, self.flushed);
        let oldest_read = self.reads.keys().next().copied().unwrap_or(now);
        for versions in self.range(lba, sectors) {
            versions.forget(flushed, oldest_read);
            versions.begin(Version::begun(sequence, content, now));
        }
        Ticket {
            lba,
            sectors,
            sequence,
        }
    }

    /// The write was acknowledged; `durable` if it said FUA.
    pub fn acknowledge(&mut self, ticket: &Ticket, durable: bool) {
        let now = self.now.tick();
        self.acknowledged += 1;
        for versions in self.range(ticket.lba, ticket.sectors) {
            versions.acknowledge(ticket.sequence, now, durable);
        }
    }

    /// The write was refused; it may have been done in part.
    pub fn refuse(&mut self, ticket: &Ticket) {
        let now = self.now.tick();
        for versions in self.range(ticket.lba, ticket.sectors) {
            versions.refuse(ticket.sequence, now);
        }
    }

    pub fn begin_flush(&mut self) -> Flush {
        Flush(self.now.tick())
    }

    /// The flush was acknowledged.
    pub fn end_flush(&mut self, flush: &Flush) {
        self.flushed = self.flushed.max(flush.0);
    }

    fn range(&mut self, lba: Lba, sectors: u64) -> &mut [Versions] {
        &mut self.sectors[lba.0 as usize..(lba.0 + sectors) as usize]
    }

    /// Begins a read beside whatever else runs.
    pub fn begin_read(&mut self, lba: Lba, sectors: u64) -> Reading {
        let begun = self.now.tick();
        *self.reads.entry(begun).or_insert(0) += 1;
        Reading {
            lba,
            sectors,
            begun,
        }
    }

    /// The read was refused.
    pub fn give_up_read(&mut self, reading: &Reading) {
        if let Some(count) = self.reads.get_mut(&reading.begun) {
            *count -= 1;
            if *count == 0 {
                self.reads.remove(&reading.begun);
            }
        }
    }

    /// Checks what a read brought. What it has shown is taken into account for later ones.
    ///
    /// # Errors
    /// The first sector that is no write of this volume to this place, or one that another had replaced before the
    /// read began; or whose block is torn though nothing but whole blocks was written to it, and nothing meanwhile.
    pub fn end_read(&mut self, reading: &Reading, data: &[u8]) -> Result<(), Wrong> {
        let (tag, begun, now) = (self.tag, reading.begun, self.now.tick());
        self.give_up_read(reading);
        assert_eq!(data.len(), reading.sectors as usize * SECTOR, "all of it");
        let founds: Vec<Found> = data.chunks_exact(SECTOR).map(stamp::read).collect();
        self.check_stable_blocks(reading, &founds)?;
        for (found, at) in founds.iter().zip(reading.lba.0..) {
            let versions = &mut self.sectors[at as usize];
            let visible = |version: &Version| {
                version.is_visible(begun) && shows(version, *found, tag, Lba(at))
            };
            if !versions.observe(visible, begun, now) {
                let found = format!("{found:?} in a read since {begun:?}");
                return Err(wrong(at, &found, versions));
            }
        }
        Ok(())
    }

    /// Blocks that were only written whole, and that nobody wrote while they were read, are of one write.
    fn check_stable_blocks(&self, reading: &Reading, founds: &[Found]) -> Result<(), Wrong> {
        let first = reading.lba.0.next_multiple_of(BLOCK_SECTORS);
        let end = reading.lba.0 + reading.sectors;
        for at in (first..end).step_by(BLOCK_SECTORS as usize) {
            if at + BLOCK_SECTORS > end {
                break;
            }
            let block = &self.sectors[at as usize..(at + BLOCK_SECTORS) as usize];
            let candidates = || block.iter().map(|v| v.visible(reading.begun));
            let mut all = candidates();
            let one = all.next().expect("a block has sectors");
            let stable = block.iter().all(|v| v.is_stable(reading.begun));
            if !stable || !all.all(|other| other.eq(one.clone())) {
                continue;
            }
            let place = (at - reading.lba.0) as usize;
            let found = &founds[place..place + BLOCK_SECTORS as usize];
            if let Some(other) = found.iter().position(|f| !f.is_of_one_write(&found[0])) {
                let torn = format!("a torn block {found:?}");
                return Err(wrong(at + other as u64, &torn, &block[other]));
            }
        }
        Ok(())
    }

    /// Checks what was read from `lba` on after a crash. What is found is from then on all that is allowed.
    ///
    /// # Errors
    /// The first sector that is older than what was made durable, or is no write of this volume to this place, or
    /// whose block is torn though only whole blocks were written to it.
    pub fn check(&mut self, lba: Lba, data: &[u8]) -> Result<(), Wrong> {
        let before: Vec<Vec<Sequence>> = self
            .range(lba, (data.len() / SECTOR) as u64)
            .iter()
            .map(|versions| versions.all().collect())
            .collect();
        self.check_torn(lba, data)?;
        self.check_whole_blocks(lba, &before)
    }

    /// The same where a write may be torn at any sector.
    ///
    /// # Errors
    /// As [`Oracle::check`], torn blocks apart.
    pub fn check_torn(&mut self, lba: Lba, data: &[u8]) -> Result<(), Wrong> {
        self.reads.clear();
        let (flushed, tag, now) = (self.flushed, self.tag, self.now.tick());
        for (sector, at) in data.chunks_exact(SECTOR).zip(lba.0..) {
            let versions = &mut self.sectors[at as usize];
            let found = stamp::read(sector);
            versions.forget(flushed, now);
            if !versions.settle(|version| shows(version, found, tag, Lba(at)), now) {
                return Err(wrong(at, &format!("{found:?} after a crash"), versions));
            }
        }
        Ok(())
    }

    /// Blocks that were only written whole may be old or new, not both.
    fn check_whole_blocks(&self, lba: Lba, before: &[Vec<Sequence>]) -> Result<(), Wrong> {
        let per_block = BLOCK_SECTORS as usize;
        assert_eq!(lba.0 % BLOCK_SECTORS, 0, "checks begin at a block");
        for (block, versions) in before.chunks_exact(per_block).enumerate() {
            let at = lba.0 as usize + block * per_block;
            let after: Vec<Sequence> = self.sectors[at..at + per_block]
                .iter()
                .flat_map(Versions::all)
                .collect();
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

pub(super) fn wrong(at: u64, found: &str, versions: &Versions) -> Wrong {
    Wrong {
        lba: Lba(at),
        found: found.into(),
        allowed: format!("what is visible of {versions:?}"),
    }
}

/// Whether what was found is this version.
pub(super) fn shows(version: &Version, found: Found, tag: Tag, lba: Lba) -> bool {
    match found {
        Found::Zeros => version.content == Content::Zeros,
        Found::Stamp {
            tag: t,
            lba: l,
            sequence,
        } => version.content == Content::Data && (t, l, sequence) == (tag, lba, version.sequence),
        Found::Garbage => false,
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

    fn read(oracle: &mut Oracle, data: &[u8]) -> Result<(), Wrong> {
        let reading = oracle.begin_read(Lba(0), BLOCK_SECTORS);
        oracle.end_read(&reading, data)
    }

    #[test]
    fn a_read_shows_no_older_write_than_one_that_ended_before_it_began() {
        let mut oracle = oracle();
        let (first, second) = (write(&mut oracle), write(&mut oracle));
        assert!(read(&mut oracle, &vec![0; BLOCK]).is_err());
        assert!(read(&mut oracle, &first).is_err());
        assert!(read(&mut oracle, &second).is_ok());
    }

    #[test]
    fn a_read_beside_a_write_shows_either_and_the_next_none_older_than_that() {
        for sees_new in [true, false] {
            let mut oracle = oracle();
            let old = write(&mut oracle);
            let reading = oracle.begin_read(Lba(0), BLOCK_SECTORS);
            let mut new = vec![0; BLOCK];
            let ticket = oracle.begin_write(Lba(0), &mut new);
            let seen = if sees_new { &new } else { &old };
            assert!(oracle.end_read(&reading, seen).is_ok());
            assert_eq!(read(&mut oracle, &old).is_ok(), !sees_new);
            oracle.acknowledge(&ticket, false);
            assert!(read(&mut oracle, &old).is_err());
            assert!(read(&mut oracle, &new).is_ok());
        }
    }

    #[test]
    fn of_two_writes_at_once_either_is_last_but_only_one() {
        let mut oracle = oracle();
        let (mut one, mut other) = (vec![0; BLOCK], vec![0; BLOCK]);
        let tickets = [
            oracle.begin_write(Lba(0), &mut one),
            oracle.begin_write(Lba(0), &mut other),
        ];
        for ticket in &tickets {
            oracle.acknowledge(ticket, false);
        }
        let torn = [&one[..SECTOR], &other[SECTOR..]].concat();
        let wrong = read(&mut oracle, &torn).expect_err("torn");
        assert!(wrong.to_string().contains("torn"), "{wrong}");
        assert!(read(&mut oracle, &one).is_ok());
        assert!(read(&mut oracle, &other).is_err());
    }

    #[test]
    fn a_refused_write_may_be_there_or_not_until_another_has_ended() {
        for done in [true, false] {
            let mut oracle = oracle();
            let old = write(&mut oracle);
            let mut refused = vec![0; BLOCK];
            let ticket = oracle.begin_write(Lba(0), &mut refused);
            oracle.refuse(&ticket);
            let there = if done { &refused } else { &old };
            assert!(read(&mut oracle, there).is_ok());
            let new = write(&mut oracle);
            assert!(read(&mut oracle, &refused).is_err());
            assert!(read(&mut oracle, &new).is_ok());
        }
    }

    #[test]
    fn a_replaced_version_that_is_not_durable_comes_back_after_a_crash_only() {
        let mut oracle = oracle();
        let old = write(&mut oracle);
        let new = write(&mut oracle);
        assert!(read(&mut oracle, &old).is_err());
        assert!(oracle.check(Lba(0), &old).is_ok());
        assert!(oracle.check(Lba(0), &new).is_err());
    }
}
