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

/// A place in the order of what the history has seen begin and end.
pub type Moment = u64;

const NEVER: Moment = Moment::MAX;

/// A value that a sector was told to hold. It takes effect at one moment between its beginning and
/// its end, if it was acknowledged; else then or never.
#[derive(Clone, Copy, Debug)]
struct Version {
    stamp: Stamp,
    begun: Moment,
    /// It takes no effect later.
    over: Moment,
    acknowledged: Moment,
    durable: bool,
}

impl Version {
    fn begun(stamp: Stamp, begun: Moment) -> Version {
        Version {
            stamp,
            begun,
            over: NEVER,
            acknowledged: NEVER,
            durable: false,
        }
    }

    fn settled(stamp: Stamp, at: Moment) -> Version {
        Version {
            stamp,
            begun: at,
            over: at,
            acknowledged: at,
            durable: true,
        }
    }
}

/// In the order of their beginnings; never none.
#[derive(Clone, Debug)]
struct Sector(Vec<Version>);

impl Default for Sector {
    fn default() -> Sector {
        Sector(vec![Version::settled(0, 0)])
    }
}

impl Sector {
    /// Those that none of `replacing` has replaced: one that began after their end.
    fn without(&self, replacing: impl Fn(&Version) -> bool) -> Vec<Stamp> {
        let newest = self.0.iter().filter(|v| replacing(v)).map(|v| v.begun);
        let newest = newest.max().unwrap_or(0);
        let left = self.0.iter().filter(|version| version.over >= newest);
        left.map(|version| version.stamp).collect()
    }

    /// What a read may show that began at a moment.
    fn visible(&self, begun: Moment) -> Vec<Stamp> {
        self.without(|version| version.acknowledged <= begun)
    }

    /// What may be there after a power loss.
    fn kept(&self) -> Vec<Stamp> {
        self.without(|version| version.durable)
    }

    /// Drops what neither a read that begins now nor a power loss brings back.
    fn tidy(&mut self) {
        let durable = self.0.iter().filter(|version| version.durable);
        let newest = durable.map(|version| version.begun).max().unwrap_or(0);
        self.0.retain(|version| version.over >= newest);
    }
}

/// An operation that was begun on a range of sectors.
#[derive(Clone, Debug)]
pub struct Begun {
    at: Moment,
    sectors: std::ops::Range<u64>,
}

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
    now: Moment,
}

impl VolumeModel {
    pub fn new(id: u64, name: String, size: u64) -> VolumeModel {
        VolumeModel {
            id,
            name,
            sizes: vec![size],
            doubtful: false,
            sectors: BTreeMap::new(),
            now: 0,
        }
    }

    pub fn size(&self) -> u64 {
        self.sizes[0]
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A value is submitted for a range.
    pub fn submit(&mut self, first: u64, count: u64, stamp: Stamp) -> Begun {
        let at = self.tick();
        for sector in first..first + count {
            let state = self.sectors.entry(sector).or_default();
            state.0.push(Version::begun(stamp, at));
        }
        Begun {
            at,
            sectors: first..first + count,
        }
    }

    /// It was acknowledged; with `durable` it survives a power loss.
    pub fn acknowledge(&mut self, begun: &Begun, durable: bool) {
        let now = self.tick();
        self.each(begun, |version| {
            version.over = now;
            version.acknowledged = now;
            version.durable |= durable;
        });
    }

    /// It has failed: it may have taken effect, and does not any more.
    pub fn fail(&mut self, begun: &Begun) {
        let now = self.tick();
        self.each(begun, |version| version.over = now);
    }

    /// Sectors that were cut off meanwhile are not there any more.
    fn each(&mut self, begun: &Begun, change: impl Fn(&mut Version)) {
        for (_, sector) in self.sectors.range_mut(begun.sectors.clone()) {
            let version = sector.0.iter_mut().find(|v| v.begun == begun.at);
            version.into_iter().for_each(&change);
        }
    }

    /// What was acknowledged by now is what a flush that begins now makes durable.
    pub fn flush_begins(&mut self) -> Moment {
        self.tick()
    }

    pub fn flush_ends(&mut self, begun: Moment) {
        for sector in self.sectors.values_mut() {
            for version in &mut sector.0 {
                version.durable |= version.acknowledged <= begun;
            }
        }
    }

    pub fn read_begins(&mut self) -> Moment {
        self.tick()
    }

    /// Checks one sector of a read that began at a moment.
    pub fn check(&self, begun: Moment, sector: u64, data: &[u8]) {
        let zero = Sector::default();
        let state = self.sectors.get(&sector).unwrap_or(&zero);
        self.check_any(&state.visible(begun), sector, data);
    }

    /// Nothing runs: what is replaced for good is forgotten.
    pub fn tidy(&mut self) {
        self.sectors.values_mut().for_each(Sector::tidy);
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
            state.0.iter().find(|version| {
                fill(self.id, sector, version.stamp, &mut expected);
                data == expected
            })
        });
        panic!(
            "volume {} ({}) sector {sector}: allowed stamps {allowed:?}, found {} {:02x?}; {state:?}",
            self.name,
            self.id,
            match found {
                Some(version) => format!("the older stamp {}", version.stamp),
                None if data.iter().all(|byte| *byte == 0) => "zeros".into(),
                None => "foreign or torn bytes".into(),
            },
            &data[..16]
        );
    }

    /// After a power loss: what is read is what is there from now on.
    pub fn settle(&mut self, sector: u64, data: &[u8]) {
        let allowed = match self.sectors.get(&sector) {
            Some(state) => state.kept(),
            None => vec![0],
        };
        let stamp = self.check_any(&allowed, sector, data);
        let now = self.tick();
        match stamp {
            0 => self.sectors.remove(&sector),
            _ => {
                let there = Sector(vec![Version::settled(stamp, now)]);
                self.sectors.insert(sector, there)
            }
        };
    }

    /// Sectors that were ever touched.
    pub fn touched(&self) -> Vec<u64> {
        self.sectors.keys().copied().collect()
    }

    /// A shrink to `size` begins: what lies beyond may be gone from now on.
    pub fn shrink_begins(&mut self, size: u64) -> Begun {
        self.sizes.push(size);
        let at = self.tick();
        let beyond = size / SECTOR..u64::MAX;
        for (_, sector) in self.sectors.range_mut(beyond.clone()) {
            sector.0.push(Version::begun(0, at));
        }
        Begun {
            at,
            sectors: beyond,
        }
    }

    /// The size is known again; what lies beyond it is gone for good.
    pub fn size_is(&mut self, size: u64) {
        self.sizes = vec![size];
        self.sectors.split_off(&(size / SECTOR));
    }
}
