//! Bytes of one file of the power-loss file system: what programs see, what is on the medium, and the changes
//! between the two. Knows nothing of names, of FUSE or of when power is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::Survival;

const PAGE: u64 = 4096;
/// A medium tears a write at its sectors, never inside one.
const SECTOR_SIZES: [u64; 2] = [512, 4096];

type Page = Arc<[u8; PAGE as usize]>;

/// Sparse bytes with a length; a page that is absent reads as zeros.
#[derive(Clone, Default)]
struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Page>,
}

impl Bytes {
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = (offset.saturating_add(len as u64)).min(self.len);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % PAGE) as usize;
            let take = (PAGE as usize - within).min((end - at) as usize);
            match self.pages.get(&(at / PAGE)) {
                Some(page) => out.extend_from_slice(&page[within..within + take]),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        out
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let take = (PAGE as usize - within).min(data.len() - done);
            let page = self
                .pages
                .entry(at / PAGE)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + take].copy_from_slice(&data[done..done + take]);
            done += take;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Makes `[offset, offset + len)` read as zeros and gives back whole pages; the length stays.
    fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE..end.div_ceil(PAGE))
            .map(|(&page, _)| page)
            .collect();
        for index in touched {
            let start = index * PAGE;
            let (from, to) = (offset.max(start) - start, end.min(start + PAGE) - start);
            if from == 0 && to == PAGE {
                self.pages.remove(&index);
            } else if let Some(page) = self.pages.get_mut(&index) {
                Arc::make_mut(page)[from as usize..to as usize].fill(0);
            }
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
        }
        self.len = len;
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let page = self
            .pages
            .range(offset / PAGE..)
            .next()
            .map(|(&page, _)| (page * PAGE).max(offset))?;
        (page < self.len).then_some(page)
    }

    fn next_hole(&self, offset: u64) -> u64 {
        let mut index = offset / PAGE;
        while self.pages.contains_key(&index) {
            index += 1;
        }
        (index * PAGE).clamp(offset, self.len.max(offset))
    }
}

/// One change that programs see and that the medium may not have yet.
enum Change {
    Write {
        offset: u64,
        data: Box<[u8]>,
    },
    SetLen(u64),
    Zero {
        offset: u64,
        len: u64,
    },
    /// Lengthens the file to at least this.
    Extend(u64),
}

impl Change {
    fn apply(&self, to: &mut Bytes) {
        match self {
            Change::Write { offset, data } => to.write(*offset, data),
            Change::SetLen(len) => to.set_len(*len),
            Change::Zero { offset, len } => to.zero(*offset, *len),
            Change::Extend(len) => to.len = to.len.max(*len),
        }
    }

    /// A part of the change, as a medium that lost power in the middle of it would have it.
    fn apply_torn(&self, to: &mut Bytes, rng: &mut impl Rng) {
        let Change::Write { offset, data } = self else {
            if rng.random() {
                self.apply(to);
            }
            return;
        };
        let sector = *SECTOR_SIZES.choose(rng).expect("not empty");
        let kept = [0.1, 0.5, 0.9].choose(rng).copied().expect("not empty");
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let take = ((sector - at % sector) as usize).min(data.len() - done);
            if rng.random_bool(kept) {
                to.write(at, &data[done..done + take]);
            }
            done += take;
        }
        if rng.random() {
            to.len = to.len.max(offset + data.len() as u64);
        }
    }
}

/// A file's bytes as programs see them and as a power loss would leave them.
#[derive(Default)]
pub(super) struct Content {
    now: Bytes,
    durable: Bytes,
    pending: Vec<Change>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    /// Bytes that take space, in units of 512 as `stat` counts them.
    pub(super) fn blocks_512(&self) -> u64 {
        self.now.pages.len() as u64 * (PAGE / 512)
    }

    pub(super) fn is_synced(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.now.read(offset, len)
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.change(Change::Write {
            offset,
            data: data.into(),
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len != self.now.len {
            self.change(Change::SetLen(len));
        }
    }

    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        self.change(Change::Zero { offset, len });
    }

    pub(super) fn extend(&mut self, len: u64) {
        if len > self.now.len {
            self.change(Change::Extend(len));
        }
    }

    /// First byte at or after `offset` that is in a page with data, for `SEEK_DATA`.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        self.now.next_data(offset)
    }

    pub(super) fn next_hole(&self, offset: u64) -> u64 {
        self.now.next_hole(offset)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// What `fsync` and `fdatasync` promise: everything until now is on the medium, the length included.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Power is lost: of what was not synced some survives, and that is all there is from now on.
    pub(super) fn lose_power(&mut self, survival: Survival, rng: &mut impl Rng) {
        let pending = std::mem::take(&mut self.pending);
        let prefix = rng.random_range(0..=pending.len());
        for (position, change) in pending.iter().enumerate() {
            match survival {
                Survival::Nothing => {}
                Survival::Everything => change.apply(&mut self.durable),
                Survival::Prefix if position < prefix => change.apply(&mut self.durable),
                Survival::Prefix if position == prefix => change.apply_torn(&mut self.durable, rng),
                Survival::Prefix => {}
                Survival::Scatter => change.apply_torn(&mut self.durable, rng),
            }
        }
        self.now = self.durable.clone();
    }
}
