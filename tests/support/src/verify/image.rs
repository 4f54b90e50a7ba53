//! What a snapshot may hold, by the oracle of the volume that it was taken of: for each sector one of what could be read
//! between asking and answer, all of it of one instant, and the same for ever once it was read. Pure bookkeeping.

use super::oracle::{Oracle, Reading, Wrong, shows, wrong};
use super::stamp::{self, Sequence, Tag};
use super::versions::{Moment, Versions};
use super::{BLOCK_SECTORS, Lba, SECTOR};

/// Volumes that begin as a snapshot number their writes from a multiple of this on, so that no two of a tree have one
/// number.
const NUMBERS: u64 = 1 << 40;

/// A snapshot that was asked for; to be ended with [`Oracle::end_cut`].
#[derive(Debug)]
#[must_use]
pub struct Cut(Reading);

/// What a snapshot may hold.
#[derive(Clone)]
pub struct Image {
    tag: Tag,
    sectors: Vec<Versions>,
}

impl Oracle {
    /// A snapshot is being asked for.
    pub fn begin_cut(&mut self) -> Cut {
        Cut(self.begin_read(Lba(0), self.sectors()))
    }

    /// The snapshot was answered, which makes durable what had been acknowledged when it was asked for; or the target
    /// has died.
    pub fn end_cut(&mut self, cut: &Cut, answered: bool) -> Image {
        let begun = cut.0.begun;
        self.give_up_read(&cut.0);
        let sectors = self.sectors.iter().map(|all| all.visible_since(begun));
        let sectors = sectors.collect();
        if answered {
            self.flushed = self.flushed.max(begun);
        }
        Image {
            tag: self.tag,
            sectors,
        }
    }

    /// The volume has become what a snapshot is, durably.
    pub fn roll_back(&mut self, image: &Image) {
        self.sectors = image.since_the_start();
    }

    /// The volume has another size, durably; what it gained reads as zeros.
    pub fn resize(&mut self, sectors: u64) {
        self.sectors.resize_with(sectors as usize, Versions::new);
    }
}

impl Image {
    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    fn since_the_start(&self) -> Vec<Versions> {
        self.sectors.iter().map(Versions::since_the_start).collect()
    }

    /// Of a volume that begins as this snapshot is: the `number`th of its tree, the first one being 0.
    pub fn volume(&self, number: u64) -> Oracle {
        let mut oracle = Oracle::new(self.tag, 0);
        oracle.sectors = self.since_the_start();
        oracle.last_sequence = Sequence(number * NUMBERS);
        oracle
    }

    /// Checks all that was read from it. What is found is from then on all that is allowed.
    ///
    /// # Errors
    /// The first sector that could not be read from the volume at any moment between asking and answer, or that
    /// is not what it was before; whose block is torn though only whole blocks were written to it; or that was
    /// replaced for sure before another was begun that is there.
    pub fn check(&mut self, data: &[u8]) -> Result<(), Wrong> {
        assert_eq!(data.len(), self.sectors.len() * SECTOR, "all of it");
        let before: Vec<Vec<Sequence>> = self.sectors.iter().map(|v| v.all().collect()).collect();
        for ((sector, versions), at) in data
            .chunks_exact(SECTOR)
            .zip(&mut self.sectors)
            .zip(0_u64..)
        {
            let found = stamp::read(sector);
            if !versions.narrow(|version| shows(version, found, self.tag, Lba(at))) {
                return Err(wrong(at, &format!("{found:?} in a snapshot"), versions));
            }
        }
        self.check_whole_blocks(&before)?;
        self.check_instant()
    }

    /// As after a crash: a block that was only written whole is of one write.
    fn check_whole_blocks(&self, before: &[Vec<Sequence>]) -> Result<(), Wrong> {
        let per_block = BLOCK_SECTORS as usize;
        for (block, versions) in before.chunks_exact(per_block).enumerate() {
            let at = block * per_block;
            let after = &self.sectors[at..at + per_block];
            let whole = versions.iter().all(|v| *v == versions[0]);
            if whole && !after.iter().all(|v| v.all().eq(after[0].all())) {
                return Err(Wrong {
                    lba: Lba(at as u64),
                    found: format!("a torn block in a snapshot: {after:?}"),
                    allowed: format!("one of {:?}", versions[0]),
                });
            }
        }
        Ok(())
    }

    /// There is an instant before which all was begun that is there, and after which the first of it was replaced.
    fn check_instant(&self) -> Result<(), Wrong> {
        let spans = || (0_u64..).zip(self.sectors.iter().map(Versions::span));
        let newest = spans().max_by_key(|(_, (begun, _))| *begun);
        let oldest = spans().min_by_key(|(_, (_, replaced))| *replaced);
        let (Some((new, (begun, _))), Some((old, (_, replaced)))) = (newest, oldest) else {
            return Ok(());
        };
        let one_instant: fn(Moment, Moment) -> bool = |begun, replaced| begun < replaced;
        if one_instant(begun, replaced) {
            return Ok(());
        }
        Err(Wrong {
            lba: Lba(old),
            found: format!(
                "what was replaced by {replaced:?}, and at LBA {new} what was begun at {begun:?}"
            ),
            allowed: format!(
                "what was there at one instant: {:?} and {:?}",
                self.sectors[old as usize], self.sectors[new as usize]
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = SECTOR * BLOCK_SECTORS as usize;

    fn write(oracle: &mut Oracle, block: u64) -> Vec<u8> {
        let mut data = vec![0; BLOCK];
        let ticket = oracle.begin_write(Lba(block * BLOCK_SECTORS), &mut data);
        oracle.acknowledge(&ticket, false);
        data
    }

    #[test]
    fn a_snapshot_has_what_was_answered_before_it_was_asked_for_and_nothing_begun_later() {
        let mut oracle = Oracle::new(Tag(7), BLOCK_SECTORS);
        let (old, answered) = (write(&mut oracle, 0), write(&mut oracle, 0));
        let cut = oracle.begin_cut();
        let between = write(&mut oracle, 0);
        let image = oracle.end_cut(&cut, true);
        let later = write(&mut oracle, 0);
        for (data, right) in [
            (old, false),
            (answered, true),
            (between, true),
            (later, false),
        ] {
            assert_eq!(image.clone().check(&data).is_ok(), right);
        }
    }

    #[test]
    fn a_snapshot_never_changes_once_it_was_read() {
        let mut oracle = Oracle::new(Tag(7), BLOCK_SECTORS);
        let before = write(&mut oracle, 0);
        let cut = oracle.begin_cut();
        let between = write(&mut oracle, 0);
        let mut image = oracle.end_cut(&cut, true);
        assert!(image.check(&before).is_ok());
        assert!(image.check(&between).is_err());
        assert!(image.check(&before).is_ok());
    }

    #[test]
    fn of_two_writes_one_after_the_other_a_snapshot_has_not_only_the_second() {
        let mut oracle = Oracle::new(Tag(7), 2 * BLOCK_SECTORS);
        let cut = oracle.begin_cut();
        let (first, second) = (write(&mut oracle, 0), write(&mut oracle, 1));
        let image = oracle.end_cut(&cut, true);
        let none = vec![0; BLOCK];
        for (parts, right) in [
            ([&none, &none], true),
            ([&first, &none], true),
            ([&first, &second], true),
            ([&none, &second], false),
        ] {
            let data = [&parts[0][..], &parts[1][..]].concat();
            assert_eq!(image.clone().check(&data).is_ok(), right, "{right}");
        }
    }

    #[test]
    fn a_torn_block_is_found_in_a_snapshot() {
        let mut oracle = Oracle::new(Tag(7), BLOCK_SECTORS);
        let cut = oracle.begin_cut();
        let mut data = write(&mut oracle, 0);
        let mut image = oracle.end_cut(&cut, true);
        data[..SECTOR].fill(0);
        assert!(image.check(&data).is_err());
    }

    #[test]
    fn an_answered_snapshot_makes_durable_what_was_acknowledged_before() {
        for answered in [true, false] {
            let mut oracle = Oracle::new(Tag(7), BLOCK_SECTORS);
            let _data = write(&mut oracle, 0);
            let cut = oracle.begin_cut();
            let _image = oracle.end_cut(&cut, answered);
            assert_eq!(oracle.check(Lba(0), &vec![0; BLOCK]).is_err(), answered);
        }
    }

    #[test]
    fn a_clone_and_a_rolled_back_volume_begin_as_the_snapshot_is_and_write_what_nobody_else_writes()
    {
        let mut oracle = Oracle::new(Tag(7), BLOCK_SECTORS);
        let old = write(&mut oracle, 0);
        let cut = oracle.begin_cut();
        let image = oracle.end_cut(&cut, true);
        let new = write(&mut oracle, 0);
        let mut clone = image.volume(1);
        assert!(clone.clone().check(Lba(0), &new).is_err());
        assert!(clone.clone().check(Lba(0), &old).is_ok());
        let of_clone = write(&mut clone, 0);
        assert!(oracle.clone().check(Lba(0), &of_clone).is_err());
        assert!(clone.check(Lba(0), &of_clone).is_ok());
        oracle.roll_back(&image);
        assert!(oracle.clone().check(Lba(0), &new).is_err());
        assert!(oracle.check(Lba(0), &old).is_ok());
        oracle.resize(2 * BLOCK_SECTORS);
        assert!(
            oracle
                .check(Lba(0), &[old, vec![0; BLOCK]].concat())
                .is_ok()
        );
    }
}
