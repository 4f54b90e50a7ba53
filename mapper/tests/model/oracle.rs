//! What may be read: per sector of a resource the values that it may have now, and after a power loss.

use crate::content::{Choice, Content, Stamp, Value};
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::ops::Range;

pub const SECTOR: u64 = 512;

/// A place in the order of what the history has seen begin and end.
pub type Moment = u64;

const NEVER: Moment = Moment::MAX;
/// Later than all that has happened.
const NOW: Moment = NEVER - 1;

/// A value that a sector was told to hold. It takes effect at one moment between its beginning and
/// its end, if it was acknowledged; else then or never.
#[derive(Clone, Debug)]
struct Version {
    value: Value,
    begun: Moment,
    /// It takes no effect later.
    over: Moment,
    acknowledged: Moment,
    durable: bool,
}

impl Version {
    fn begun(value: Value, begun: Moment) -> Version {
        Version {
            value,
            begun,
            over: NEVER,
            acknowledged: NEVER,
            durable: false,
        }
    }

    fn settled(value: Value, at: Moment) -> Version {
        Version {
            value,
            begun: at,
            over: at,
            acknowledged: at,
            durable: true,
        }
    }
}

/// In the order of their beginnings; never none.
#[derive(Clone, Debug)]
struct Sector(SmallVec<[Version; 1]>);

impl Sector {
    fn settled(value: Value, at: Moment) -> Sector {
        Sector(smallvec![Version::settled(value, at)])
    }

    /// Those that none of `replacing` has replaced: one that began after their end.
    fn without(&self, replacing: impl Fn(&Version) -> bool) -> Vec<Value> {
        let newest = self.0.iter().filter(|v| replacing(v)).map(|v| v.begun);
        let newest = newest.max().unwrap_or(0);
        let left = self.0.iter().filter(|version| version.over >= newest);
        left.map(|version| version.value.clone()).collect()
    }

    /// What a read may show that began at a moment.
    fn visible(&self, begun: Moment) -> Vec<Value> {
        self.without(|version| version.acknowledged <= begun)
    }

    /// What may be there after a power loss.
    fn kept(&self) -> Vec<Value> {
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
    sectors: Range<u64>,
}

/// A range that is being copied from here: what is written to it meanwhile may be in the copy.
#[derive(Clone, Debug)]
struct CopyingFrom {
    at: Moment,
    first: u64,
    choices: Vec<Choice>,
}

/// Whether it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existence {
    Sure,
    /// A creation was cut by a crash, or a deletion (which may also be done).
    InDoubt,
}

/// A volume or snapshot as it should be.
#[derive(Clone, Debug)]
pub struct ResourceModel {
    pub id: u64,
    pub name: String,
    pub is_snapshot: bool,
    /// Bytes; two while its size is being changed, or where that was cut by a crash.
    pub sizes: Vec<u64>,
    pub existence: Existence,
    /// `None`: a change was cut by a crash.
    pub protected: Option<bool>,
    /// Resources with the same one inherit from each other, or have a common ancestor.
    pub tree: u64,
    sectors: BTreeMap<u64, Sector>,
    now: Moment,
    /// A rollback is under way, to a resource of this size.
    rolling: Option<(Moment, u64)>,
    copying: Vec<CopyingFrom>,
}

impl ResourceModel {
    pub fn new(id: u64, name: String, size: u64) -> ResourceModel {
        ResourceModel {
            id,
            name,
            is_snapshot: false,
            sizes: vec![size],
            existence: Existence::Sure,
            protected: Some(false),
            tree: id,
            sectors: BTreeMap::new(),
            now: 0,
            rolling: None,
            copying: Vec::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.sizes[0]
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// What a sector is before anything was submitted for it here.
    fn untouched(rolling: Option<(Moment, u64)>) -> Sector {
        let mut sector = Sector::settled(Value::ZERO, 0);
        if let Some((at, _)) = rolling {
            // It was not in what is rolled back to.
            sector.0.push(Version::begun(Value::ZERO, at));
        }
        sector
    }

    fn begin(&mut self, at: Moment, sector: u64, value: Value) {
        let rolling = self.rolling;
        let state = self.sectors.entry(sector);
        let state = state.or_insert_with(|| ResourceModel::untouched(rolling));
        state.0.push(Version::begun(value, at));
    }

    /// A value is submitted for a range.
    pub fn submit(&mut self, first: u64, count: u64, stamp: Stamp) -> Begun {
        let at = self.tick();
        for sector in first..first + count {
            let value = Value::Known(Content::new(self.id, sector, stamp));
            for copying in &self.copying {
                let place = sector.checked_sub(copying.first);
                let choice = place.and_then(|place| copying.choices.get(place as usize));
                choice.into_iter().for_each(|choice| choice.widen(&value));
            }
            self.begin(at, sector, value);
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

    fn visible(&self, begun: Moment, sector: u64) -> Vec<Value> {
        match self.sectors.get(&sector) {
            Some(state) => state.visible(begun),
            None => vec![Value::ZERO],
        }
    }

    /// Checks one sector of a read that began at a moment. What can be one thing only is that from now on.
    pub fn check(&self, begun: Moment, sector: u64, data: &[u8]) {
        let allowed = self.visible(begun, sector);
        let Some(seen) = find(&allowed, data) else {
            panic!("{}", self.complaint(&allowed, sector, data));
        };
        if let [single] = &allowed[..] {
            single.is_seen_as(seen);
        }
    }

    /// Whether a read that begins now may show this; nothing is learned of it.
    pub fn allows(&self, sector: u64, data: &[u8]) -> bool {
        find(&self.visible(NOW, sector), data).is_some()
    }

    /// Nothing runs: what is replaced for good is forgotten.
    pub fn tidy(&mut self) {
        self.sectors.values_mut().for_each(Sector::tidy);
    }

    fn complaint(&self, allowed: &[Value], sector: u64, data: &[u8]) -> String {
        let state = self.sectors.get(&sector);
        let found = state.into_iter().flat_map(|state| &state.0);
        let found = found.map(|version| version.value.clone());
        let found = match find(&found.collect::<Vec<_>>(), data) {
            Some(content) => format!("the older {content:?}"),
            None if data.iter().all(|byte| *byte == 0) => "zeros".into(),
            None => format!("foreign or torn bytes {:02x?}", &data[..16]),
        };
        format!(
            "{} ({}) sector {sector}: allowed {allowed:?}, found {found}; {state:?}",
            self.name, self.id
        )
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
            sector.0.push(Version::begun(Value::ZERO, at));
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

    /// A resource that holds what this one holds, or held at some moment since `begun`, all of it durable.
    pub fn copy(&self, id: u64, name: &str) -> ResourceModel {
        self.copy_since(NOW, id, name)
    }

    pub fn copy_since(&self, begun: Moment, id: u64, name: &str) -> ResourceModel {
        let mut copy = ResourceModel::new(id, name.into(), self.size());
        copy.tree = self.tree;
        for (sector, state) in &self.sectors {
            let value = Value::one_of(&state.visible(begun));
            copy.sectors.insert(*sector, Sector::settled(value, 0));
        }
        copy
    }

    /// A rollback to a snapshot begins.
    pub fn rollback_begins(&mut self, snapshot: &ResourceModel) -> Moment {
        let at = self.tick();
        let mut sectors = self.touched();
        sectors.extend(snapshot.touched());
        sectors.sort_unstable();
        sectors.dedup();
        for sector in sectors {
            self.begin(at, sector, Value::one_of(&snapshot.visible(NOW, sector)));
        }
        self.rolling = Some((at, snapshot.size()));
        self.sizes.push(snapshot.size());
        at
    }

    /// It was done, or nothing of it.
    pub fn rollback_ends(&mut self, done: bool) {
        let (at, size) = self.rolling.take().expect("it has begun");
        let all = Begun {
            at,
            sectors: 0..u64::MAX,
        };
        match done {
            true => {
                self.acknowledge(&all, true);
                self.size_is(size);
            }
            false => {
                for sector in self.sectors.values_mut() {
                    sector.0.retain(|version| version.begun != at);
                }
                self.sizes.truncate(1);
            }
        }
    }

    /// A copy from here begins, to another resource or within this one.
    pub fn copy_from_begins(&mut self, first: u64, count: u64) -> (Moment, Vec<Choice>) {
        let at = self.tick();
        let sectors = first..first + count;
        let choices: Vec<Choice> = sectors
            .map(|sector| Choice::of(&self.visible(at, sector)))
            .collect();
        self.copying.push(CopyingFrom {
            at,
            first,
            choices: choices.clone(),
        });
        (at, choices)
    }

    pub fn copy_from_ends(&mut self, at: Moment) {
        self.copying.retain(|copying| copying.at != at);
    }

    /// What is copied to here from sector `first` on.
    pub fn copy_to_begins(&mut self, first: u64, choices: &[Choice]) -> Begun {
        let at = self.tick();
        for (sector, choice) in (first..).zip(choices) {
            self.begin(at, sector, Value::OneOf(choice.clone()));
        }
        Begun {
            at,
            sectors: first..first + choices.len() as u64,
        }
    }

    /// What it may be after a power loss, where its size is this now: what is there stays, whatever it is.
    pub fn after_crash(&self, size: u64) -> Vec<ResourceModel> {
        let outcomes = match self.rolling {
            Some(_) => vec![true, false],
            None => vec![false],
        };
        let mut possible = Vec::new();
        for done in outcomes {
            let mut after = self.clone();
            if self.rolling.is_some() {
                after.rollback_ends(done);
            }
            if !after.sizes.contains(&size) {
                continue;
            }
            after.size_is(size);
            after.copying.clear();
            let at = after.tick();
            after.sectors = std::mem::take(&mut after.sectors)
                .into_iter()
                .map(|(sector, state)| (sector, Value::one_of(&state.kept())))
                .map(|(sector, value)| (sector, Sector::settled(value, at)))
                .collect();
            possible.push(after);
        }
        possible
    }

    /// What is seen here says nothing of other resources any more.
    pub fn unshare(&mut self) {
        for sector in self.sectors.values_mut() {
            for version in &mut sector.0 {
                let value = Value::OneOf(Choice::of(std::slice::from_ref(&version.value)));
                version.value = value;
            }
        }
    }

    /// Sectors whose content is known: that of none else is zeros, unless `None`.
    pub fn known(&self) -> BTreeMap<u64, Option<Content>> {
        let known = |state: &Sector| Value::one_of(&state.visible(NOW)).known();
        let sectors = self.sectors.iter();
        sectors
            .map(|(sector, state)| (*sector, known(state)))
            .collect()
    }
}

/// Which of these contents the bytes are.
fn find(allowed: &[Value], data: &[u8]) -> Option<Content> {
    let mut expected = [0; SECTOR as usize];
    let newest_first = allowed.iter().rev().flat_map(Value::contents);
    newest_first.into_iter().find(|content| {
        content.fill(&mut expected);
        data == expected
    })
}
