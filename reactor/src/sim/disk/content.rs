//! The content of one simulated file in 4 KiB blocks: what reads see, and for each block that was
//! changed since the last sync what the medium may still hold. It knows no names and no time.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::space::Space;

/// Bytes of a block, the unit of the page cache and of allocation.
pub(super) const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
/// Lengths between syncs that a crash may bring back.
const LENGTHS_KEPT: usize = 8;

/// Space of a file that is not a hole.
#[derive(Clone)]
enum Block {
    /// Reserved, reads as zeros.
    Reserved,
    Data(Rc<[u8]>),
}

type Place = Option<Block>;

/// How much of what was not synced a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survival {
    Everything,
    Nothing,
    /// Each block by itself.
    Random,
}

impl Survival {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Survival {
        match rng.random_range(0..6) {
            0 => Survival::Everything,
            1 => Survival::Nothing,
            _ => Survival::Random,
        }
    }
}

#[derive(Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Block>,
    /// Length at the last sync, and lengths since.
    synced_len: u64,
    lengths: Vec<u64>,
    /// What the medium holds of blocks that changed since the last sync.
    dirty: BTreeMap<u64, Place>,
    /// As `dirty`, of blocks that a failed sync has given up: a later sync does not help them.
    lost: BTreeMap<u64, Place>,
}

fn index_of(offset: u64) -> u64 {
    offset / BLOCK_BYTES
}

/// The part of block `index` that lies in `range`, as positions in the block.
fn part_of(range: &Range<u64>, index: u64) -> Range<usize> {
    let start = index * BLOCK_BYTES;
    let within = |at: u64| {
        usize::try_from(at.saturating_sub(start).min(BLOCK_BYTES)).expect("at most a block")
    };
    within(range.start)..within(range.end)
}

fn bytes_of(place: &Place) -> Vec<u8> {
    match place {
        Some(Block::Data(bytes)) => bytes.to_vec(),
        _ => vec![0; BLOCK],
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES
    }

    /// Reads to `out` from `offset`; the number of bytes before the end.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let wanted = out.len() as u64;
        let end = self.len.min(offset.saturating_add(wanted));
        let range = offset..end.max(offset);
        let mut at = 0;
        for index in index_of(range.start)..range.end.div_ceil(BLOCK_BYTES) {
            let part = part_of(&range, index);
            let to = &mut out[at..at + part.len()];
            at += part.len();
            match self.blocks.get(&index) {
                Some(Block::Data(bytes)) => to.copy_from_slice(&bytes[part]),
                _ => to.fill(0),
            }
        }
        at
    }

    fn set(&mut self, index: u64, new: Place, rng: &mut ChaCha8Rng) {
        let old = match new {
            Some(block) => self.blocks.insert(index, block),
            None => self.blocks.remove(&index),
        };
        match self.dirty.get_mut(&index) {
            // The kernel may have written an earlier version back on its own.
            Some(medium) => {
                if rng.random_bool(0.25) {
                    *medium = old;
                }
            }
            None => {
                let medium = self.lost.remove(&index).unwrap_or(old);
                self.dirty.insert(index, medium);
            }
        }
    }

    fn grow_to(&mut self, len: u64) {
        if len > self.len {
            self.note_len();
            self.len = len;
        }
    }

    fn note_len(&mut self) {
        if self.lengths.len() == LENGTHS_KEPT {
            self.lengths.remove(0);
        }
        self.lengths.push(self.len);
    }

    fn patch(
        &mut self,
        index: u64,
        at: usize,
        data: &[u8],
        space: &Space,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        let old = self.blocks.get(&index).cloned();
        if old.is_none() {
            space.take(BLOCK_BYTES)?;
        }
        let new = if data.len() == BLOCK {
            Rc::from(data)
        } else {
            let mut bytes = bytes_of(&old);
            bytes[at..at + data.len()].copy_from_slice(data);
            Rc::from(bytes)
        };
        self.set(index, Some(Block::Data(new)), rng);
        Ok(())
    }

    /// Writes those pieces of `data` for which `keep` says so; pieces are at most `unit` bytes and
    /// do not cross a multiple of it. The file grows to the last one written.
    pub(super) fn write_pieces(
        &mut self,
        offset: u64,
        data: &[u8],
        unit: usize,
        space: &Space,
        rng: &mut ChaCha8Rng,
        mut keep: impl FnMut(&mut ChaCha8Rng) -> bool,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % unit as u64).expect("less than a unit");
            let len = (unit - within).min(data.len() - done);
            if keep(rng) {
                let place = usize::try_from(at % BLOCK_BYTES).expect("less than a block");
                self.patch(index_of(at), place, &data[done..done + len], space, rng)?;
                self.grow_to(at + len as u64);
            }
            done += len;
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        space: &Space,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        self.write_pieces(offset, data, BLOCK, space, rng, |_| true)
    }

    pub(super) fn set_len(&mut self, len: u64, space: &Space, rng: &mut ChaCha8Rng) {
        if len < self.len {
            let first = len.div_ceil(BLOCK_BYTES);
            self.punch_blocks(first..u64::MAX, space, rng);
            self.zero_tail(len, rng);
        }
        if len != self.len {
            self.note_len();
            self.len = len;
        }
    }

    fn punch_blocks(&mut self, range: Range<u64>, space: &Space, rng: &mut ChaCha8Rng) {
        if range.is_empty() {
            return;
        }
        let there: Vec<u64> = self.blocks.range(range).map(|(index, _)| *index).collect();
        for index in there {
            self.set(index, None, rng);
            space.give(BLOCK_BYTES);
        }
    }

    fn zero_part(&mut self, index: u64, part: Range<usize>, rng: &mut ChaCha8Rng) {
        if let Some(Block::Data(bytes)) = self.blocks.get(&index)
            && bytes[part.clone()].iter().any(|byte| *byte != 0)
        {
            let mut bytes = bytes.to_vec();
            bytes[part].fill(0);
            self.set(index, Some(Block::Data(Rc::from(bytes))), rng);
        }
    }

    fn zero_tail(&mut self, len: u64, rng: &mut ChaCha8Rng) {
        let part = part_of(&(len..u64::MAX), index_of(len));
        if part.start > 0 {
            self.zero_part(index_of(len), part, rng);
        }
    }

    /// The blocks that lie wholly in the range, after zeroing what it covers of others.
    fn whole_blocks(&mut self, range: &Range<u64>, rng: &mut ChaCha8Rng) -> Range<u64> {
        let whole = range.start.div_ceil(BLOCK_BYTES)..index_of(range.end);
        for index in [index_of(range.start), index_of(range.end)] {
            let part = part_of(range, index);
            if !part.is_empty() && part.len() < BLOCK {
                self.zero_part(index, part, rng);
            }
        }
        whole
    }

    pub(super) fn punch(&mut self, range: &Range<u64>, space: &Space, rng: &mut ChaCha8Rng) {
        let whole = self.whole_blocks(range, rng);
        self.punch_blocks(whole, space, rng);
    }

    /// Zeros that take space; the length stays.
    pub(super) fn zero(
        &mut self,
        range: &Range<u64>,
        space: &Space,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        let whole = self.whole_blocks(range, rng);
        self.reserve(range, space, rng)?;
        for index in whole {
            if matches!(self.blocks.get(&index), Some(Block::Data(_))) {
                self.set(index, Some(Block::Reserved), rng);
            }
        }
        Ok(())
    }

    fn reserve(
        &mut self,
        range: &Range<u64>,
        space: &Space,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        for index in index_of(range.start)..range.end.div_ceil(BLOCK_BYTES) {
            if !self.blocks.contains_key(&index) {
                space.take(BLOCK_BYTES)?;
                self.set(index, Some(Block::Reserved), rng);
            }
        }
        Ok(())
    }

    pub(super) fn extend(
        &mut self,
        range: &Range<u64>,
        space: &Space,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        self.reserve(range, space, rng)?;
        self.grow_to(range.end);
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.lengths.clear();
        self.synced_len = self.len;
    }

    /// A sync that failed: the kernel marks what it could not write clean. Some of it is dropped
    /// from memory at once, the rest is still read until a crash.
    pub(super) fn fail_sync(&mut self, space: &Space, rng: &mut ChaCha8Rng) {
        for (index, medium) in std::mem::take(&mut self.dirty) {
            if rng.random_bool(0.5) {
                self.restore(index, medium, space);
            } else {
                self.lost.insert(index, medium);
            }
        }
    }

    fn restore(&mut self, index: u64, place: Place, space: &Space) {
        let (had, has) = (self.blocks.contains_key(&index), place.is_some());
        match place {
            Some(block) => self.blocks.insert(index, block),
            None => self.blocks.remove(&index),
        };
        match (had, has) {
            (true, false) => space.give(BLOCK_BYTES),
            (false, true) => space.take_anyway(BLOCK_BYTES),
            _ => {}
        }
    }

    /// What is left after power loss.
    pub(super) fn after_crash(
        &self,
        survival: Survival,
        unit: usize,
        rng: &mut ChaCha8Rng,
    ) -> Content {
        let mut blocks = self.blocks.clone();
        let dirty = self.dirty.iter().map(|(index, medium)| {
            let chosen = self.surviving(*index, medium, survival, unit, rng);
            (*index, chosen)
        });
        let dirty: Vec<(u64, Place)> = dirty.collect();
        let lost = self.lost.iter().map(|(i, medium)| (*i, medium.clone()));
        for (index, place) in dirty.into_iter().chain(lost) {
            match place {
                Some(block) => blocks.insert(index, block),
                None => blocks.remove(&index),
            };
        }
        let len = self.surviving_len(survival, rng);
        blocks.split_off(&len.div_ceil(BLOCK_BYTES));
        let mut content = Content {
            len,
            blocks,
            ..Content::default()
        };
        content.zero_tail(len, rng);
        content.sync();
        content
    }

    fn surviving_len(&self, survival: Survival, rng: &mut ChaCha8Rng) -> u64 {
        match survival {
            Survival::Everything => self.len,
            Survival::Nothing => self.synced_len,
            Survival::Random => match rng.random_range(0..self.lengths.len() + 2) {
                0 => self.synced_len,
                1 => self.len,
                pick => self.lengths[pick - 2],
            },
        }
    }

    fn surviving(
        &self,
        index: u64,
        medium: &Place,
        survival: Survival,
        unit: usize,
        rng: &mut ChaCha8Rng,
    ) -> Place {
        let cached = self.blocks.get(&index).cloned();
        let choice = match survival {
            Survival::Everything => 0,
            Survival::Nothing => 1,
            Survival::Random => rng.random_range(0..5),
        };
        match choice {
            0 | 2 => cached,
            1 | 3 => medium.clone(),
            _ => {
                let mut mixed = bytes_of(medium);
                let new = bytes_of(&cached);
                for (to, from) in mixed.chunks_mut(unit).zip(new.chunks(unit)) {
                    if rng.random_bool(0.5) {
                        to.copy_from_slice(from);
                    }
                }
                Some(Block::Data(Rc::from(mixed)))
            }
        }
    }

    /// Changes content on the medium behind everybody's back.
    pub(super) fn corrupt(&mut self, range: &Range<u64>) {
        for index in index_of(range.start)..range.end.div_ceil(BLOCK_BYTES) {
            if let Some(Block::Data(bytes)) = self.blocks.get_mut(&index) {
                let mut changed = bytes.to_vec();
                changed[part_of(range, index)]
                    .iter_mut()
                    .for_each(|byte| *byte ^= 0xFF);
                *bytes = Rc::from(changed);
            }
        }
    }
}
