//! What may be read: per sector the values that it may have now, and after a power loss.

use std::collections::BTreeMap;

pub const SECTOR: u64 = 512;

/// Which write a sector's content comes from; 0 is zeros.
pub type Stamp = u32;

/// The content that a stamp stands for at a place: nothing else looks like it.
pub fn fill(volume: u64, sector: u64, stamp: Stamp, out: &mut [u8]) {
    if stamp == 0 {
        out.fill(0);
        return;
    }
    let mut word = volume
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(sector.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(u64::from(stamp).wrapping_mul(0x94d0_49bb_1331_11eb))
        | 1;
    for chunk in out.chunks_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

#[derive(Clone, Debug)]
struct Sector {
    /// Values in the order of their submission.
    versions: Vec<Stamp>,
    /// The oldest that a read may show now.
    now: usize,
    /// The oldest that may show after a power loss.
    durable: usize,
}

impl Default for Sector {
    fn default() -> Sector {
        Sector {
            versions: vec![0],
            now: 0,
            durable: 0,
        }
    }
}

/// Positions in sectors' versions, taken when an operation begins.
pub type Marks = BTreeMap<u64, usize>;

/// A volume as it should be.
#[derive(Clone, Debug)]
pub struct VolumeModel {
    pub id: u64,
    pub name: String,
    /// Bytes; two while a resize is under way or was cut by a crash.
    pub sizes: Vec<u64>,
    /// May not exist: a creation was cut by a crash, or a deletion (which may also be done).
    pub doubtful: bool,
    sectors: BTreeMap<u64, Sector>,
}

impl VolumeModel {
    pub fn new(id: u64, name: String, size: u64) -> VolumeModel {
        VolumeModel {
            id,
            name,
            sizes: vec![size],
            doubtful: false,
            sectors: BTreeMap::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.sizes[0]
    }

    /// Values are submitted for a range; the marks say which versions they are.
    pub fn submit(&mut self, first: u64, stamps: impl Iterator<Item = Stamp>) -> Marks {
        let mut marks = Marks::new();
        for (sector, stamp) in (first..).zip(stamps) {
            let state = self.sectors.entry(sector).or_default();
            state.versions.push(stamp);
            marks.insert(sector, state.versions.len() - 1);
        }
        marks
    }

    /// They were acknowledged; with `durable` they survive a power loss.
    pub fn acknowledge(&mut self, marks: &Marks, durable: bool) {
        for (sector, version) in marks {
            let state = self.sectors.get_mut(sector).expect("submitted before");
            state.now = state.now.max(*version);
            if durable {
                state.durable = state.durable.max(*version);
            }
        }
    }

    /// What a flush that begins now makes durable.
    pub fn flush_begins(&self) -> Marks {
        self.sectors
            .iter()
            .filter(|(_, state)| state.durable < state.now)
            .map(|(sector, state)| (*sector, state.now))
            .collect()
    }

    pub fn flush_ends(&mut self, marks: &Marks) {
        for (sector, version) in marks {
            if let Some(state) = self.sectors.get_mut(sector) {
                state.durable = state.durable.max(*version);
            }
        }
    }

    /// The oldest versions that a read of this range which begins now may show.
    pub fn read_begins(&self, first: u64, count: u64) -> Marks {
        self.sectors
            .range(first..first + count)
            .map(|(s, state)| (*s, state.now))
            .collect()
    }

    /// Checks one sector of a read that began at `marks`.
    pub fn check(&self, marks: &Marks, sector: u64, data: &[u8]) {
        let zero = Sector::default();
        let state = self.sectors.get(&sector).unwrap_or(&zero);
        let from = marks.get(&sector).copied().unwrap_or(0);
        self.check_any(&state.versions[from..], sector, data);
    }

    fn check_any(&self, allowed: &[Stamp], sector: u64, data: &[u8]) -> Stamp {
        let mut expected = [0; SECTOR as usize];
        for stamp in allowed.iter().rev() {
            fill(self.id, sector, *stamp, &mut expected);
            if data == expected {
                return *stamp;
            }
        }
        let state = self.sectors.get(&sector);
        let found = state.and_then(|state| {
            state.versions.iter().find(|stamp| {
                fill(self.id, sector, **stamp, &mut expected);
                data == expected
            })
        });
        panic!(
            "volume {} ({}) sector {sector}: allowed stamps {allowed:?}, found {} {:02x?}; {state:?}",
            self.name,
            self.id,
            match found {
                Some(stamp) => format!("the older stamp {stamp}"),
                None if data.iter().all(|byte| *byte == 0) => "zeros".into(),
                None => "foreign or torn bytes".into(),
            },
            &data[..16]
        );
    }

    /// After a power loss: what is read is what is there from now on.
    pub fn settle(&mut self, sector: u64, data: &[u8]) {
        let allowed = match self.sectors.get(&sector) {
            Some(state) => state.versions[state.durable..].to_vec(),
            None => vec![0],
        };
        let stamp = self.check_any(&allowed, sector, data);
        match stamp {
            0 => self.sectors.remove(&sector),
            _ => self.sectors.insert(
                sector,
                Sector {
                    versions: vec![stamp],
                    now: 0,
                    durable: 0,
                },
            ),
        };
    }

    /// Sectors that were ever touched.
    pub fn touched(&self) -> Vec<u64> {
        self.sectors.keys().copied().collect()
    }

    /// A shrink to `size` begins: what lies beyond may be gone from now on.
    pub fn shrink_begins(&mut self, size: u64) {
        let beyond: Vec<u64> = self
            .sectors
            .range(size / SECTOR..)
            .map(|(s, _)| *s)
            .collect();
        for sector in beyond {
            self.submit(sector, std::iter::once(0));
        }
        self.sizes.push(size);
    }

    /// The size is known again; what lies beyond it is gone for good.
    pub fn size_is(&mut self, size: u64) {
        self.sizes = vec![size];
        self.sectors.split_off(&(size / SECTOR));
    }
}
