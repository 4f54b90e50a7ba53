//! Volumes and snapshots of several trees, and what is known of them: random verbs, those that were answered, and the
//! one that a crash may have met.

use std::collections::{BTreeMap, BTreeSet};

use atoll_e2e::Daemon;
use atoll_e2e::initiator::SECTOR;
use atoll_e2e::verify::{
    Cut, Fork, Image, Load, Tag, verify, verify_image, verify_one_of, verify_torn,
};
use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;

const MAX_VOLUMES: usize = 6;
const MAX_SNAPSHOTS: usize = 8;
/// Sizes in blocks of 4 KiB; not all of them end with an object.
const SIZES: std::ops::RangeInclusive<u64> = 400..=1200;
const BLOCK: u64 = 4096;

/// What is asked for by the command line.
#[derive(Debug)]
pub enum Verb {
    Snapshot {
        volume: String,
        name: String,
    },
    Group {
        volumes: Vec<String>,
        name: String,
    },
    Clone {
        snapshot: String,
        name: String,
        size: Option<u64>,
    },
    Delete {
        name: String,
    },
    RollBack {
        volume: String,
        snapshot: String,
    },
    Flatten {
        volume: String,
    },
    Copy {
        snapshot: String,
        name: String,
    },
    Resize {
        volume: String,
        size: u64,
    },
    Collect,
}

impl Verb {
    pub fn args(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Verb::Snapshot { volume, name } => words(&["volume", "snapshot", volume, name]),
            Verb::Group { volumes, name } => {
                let mut args: Vec<String> = words(&["snapshot", "group", name]);
                args.extend(volumes.iter().cloned());
                args
            }
            Verb::Clone {
                snapshot,
                name,
                size,
            } => {
                let mut args: Vec<String> = words(&["volume", "clone", snapshot, name]);
                args.extend(size.map(|size| format!("--size={size}")));
                args
            }
            Verb::Delete { name } => words(&["volume", "delete", name]),
            Verb::RollBack { volume, snapshot } => words(&["volume", "rollback", volume, snapshot]),
            Verb::Flatten { volume } => words(&["volume", "flatten", volume]),
            Verb::Copy { snapshot, name } => words(&["volume", "copy", snapshot, name]),
            Verb::Resize { volume, size } => {
                words(&["volume", "resize", volume, &size.to_string()])
            }
            Verb::Collect => words(&["gc", "run"]),
        }
    }

    /// Volumes of which it takes a snapshot, with the snapshots' names.
    fn cuts(&self) -> Vec<(&str, String)> {
        match self {
            Verb::Snapshot { volume, name } => vec![(volume, name.clone())],
            Verb::Group { volumes, name } => {
                let member = |volume: &String| format!("{volume}-{name}");
                volumes.iter().map(|v| (v.as_str(), member(v))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A verb that was begun, with the cuts of its snapshots.
pub struct Begun(Verb, Vec<Cut>);

impl Begun {
    pub fn verb(&self) -> &Verb {
        &self.0
    }
}

/// A verb of which it is not known whether it was done, with the snapshots that there are if it was.
pub struct Doubt(Verb, Vec<(String, Image)>);

pub struct Forest {
    volumes: BTreeMap<String, Load>,
    snapshots: BTreeMap<String, Image>,
    /// Volumes that sessions write to.
    busy: BTreeSet<String>,
    numbers: u64,
    /// Crashes may tear writes at sectors.
    torn: bool,
}

impl Forest {
    /// New volumes in the pool `small`.
    pub fn new(daemon: &Daemon, volumes: u64, seed: u64, torn: bool) -> Self {
        let new = |number: u64| {
            let (name, sectors) = (format!("v{number}"), 8 * SIZES.end() * (3 + number) / 5);
            let sectors = sectors.next_multiple_of(8);
            let size = sectors * SECTOR as u64;
            daemon.export_new(&name, &size.to_string(), &["--pool", "small"]);
            let load = Load::new(&name, sectors, 1, Tag(seed ^ number));
            (name, load)
        };
        Forest {
            volumes: (0..volumes).map(new).collect(),
            snapshots: BTreeMap::new(),
            busy: BTreeSet::new(),
            numbers: 0,
            torn,
        }
    }

    /// Some volumes that are to be written to until further notice.
    pub fn occupy(&mut self, count: usize, rng: &mut ChaCha8Rng) -> Vec<Load> {
        let chosen = self.volumes.keys().cloned().choose_multiple(rng, count);
        self.busy = chosen.into_iter().collect();
        let loads = self.busy.iter().map(|name| self.volumes[name].clone());
        loads.collect()
    }

    /// Nobody writes any more.
    pub fn vacate(&mut self) {
        self.busy.clear();
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A verb that has to succeed. What is to be deleted is not exported any more.
    pub fn choose(&mut self, daemon: &Daemon, rng: &mut ChaCha8Rng) -> Verb {
        loop {
            if let Some(verb) = self.draw(daemon, rng) {
                if let Verb::Delete { name } = &verb {
                    daemon.run(&["export", "remove", name]);
                }
                return verb;
            }
        }
    }

    fn draw(&mut self, daemon: &Daemon, rng: &mut ChaCha8Rng) -> Option<Verb> {
        let volume = self.volumes.keys().choose(rng)?.clone();
        let snapshot = self.snapshots.keys().choose(rng).cloned();
        let idle = Some(&volume).filter(|name| !self.busy.contains(*name));
        let (more_volumes, more_snapshots) = (
            self.volumes.len() < MAX_VOLUMES,
            self.snapshots.len() < MAX_SNAPSHOTS,
        );
        let size = rng.random_range(SIZES) * BLOCK;
        match rng.random_range(0..100) {
            0..20 if more_snapshots => Some(Verb::Snapshot {
                volume,
                name: format!("s{}", self.number()),
            }),
            20..30 if more_snapshots => Some(Verb::Group {
                volumes: self.volumes.keys().cloned().choose_multiple(rng, 3),
                name: format!("g{}", self.number()),
            }),
            30..45 if more_volumes => Some(Verb::Clone {
                snapshot: snapshot?,
                name: format!("c{}", self.number()),
                size: rng.random_bool(0.5).then_some(size),
            }),
            45..60 => Some(Verb::Delete { name: snapshot? }),
            60..68 if self.volumes.len() > 3 => Some(Verb::Delete {
                name: idle?.clone(),
            }),
            68..77 => {
                let volume = idle?.clone();
                let snapshot = self.relatives(daemon, &volume).choose(rng)?.clone();
                Some(Verb::RollBack { volume, snapshot })
            }
            77..84 => Some(Verb::Flatten { volume }),
            84..90 if more_volumes => Some(Verb::Copy {
                snapshot: snapshot?,
                name: format!("k{}", self.number()),
            }),
            90..96 => Some(Verb::Resize {
                volume: idle?.clone(),
                size,
            }),
            96.. => Some(Verb::Collect),
            _ => None,
        }
    }

    /// Snapshots of the tree that a volume is in.
    fn relatives(&self, daemon: &Daemon, volume: &str) -> Vec<String> {
        let tree = daemon.json(&["volume", "tree", volume]);
        let nodes = tree.as_array().expect("a list").iter();
        let named = nodes.filter_map(|node| node["resource"]["name"].as_str());
        let snapshots = named.filter(|name| self.snapshots.contains_key(*name));
        snapshots.map(str::to_owned).collect()
    }

    pub fn begin(&self, verb: Verb) -> Begun {
        let cuts = verb.cuts();
        let cuts = cuts.iter().map(|(of, _)| self.volumes[*of].begin_cut());
        let cuts = cuts.collect();
        Begun(verb, cuts)
    }

    fn end_cuts(&self, verb: &Verb, cuts: &[Cut], answered: bool) -> Vec<(String, Image)> {
        let ended = verb.cuts().into_iter().zip(cuts);
        let ended = ended.map(|((of, name), cut)| (name, self.volumes[of].end_cut(cut, answered)));
        ended.collect()
    }

    /// It was answered: it is done, whatever happens.
    pub fn answered(&mut self, Begun(verb, cuts): Begun, daemon: &Daemon) {
        let images = self.end_cuts(&verb, &cuts, true);
        self.done(verb, images, daemon);
    }

    /// The daemon has died before it was answered.
    pub fn unanswered(&self, Begun(verb, cuts): Begun) -> Doubt {
        let images = self.end_cuts(&verb, &cuts, false);
        Doubt(verb, images)
    }

    fn done(&mut self, verb: Verb, images: Vec<(String, Image)>, daemon: &Daemon) {
        let export = |name: &str| drop(daemon.run(&["export", "add", name]));
        images.iter().for_each(|(name, _)| export(name));
        self.snapshots.extend(images);
        match verb {
            Verb::Clone {
                snapshot,
                name,
                size,
            } => {
                export(&name);
                let load = self.begin_as(&snapshot, &name);
                if let Some(size) = size {
                    load.resize(size / SECTOR as u64);
                }
                self.volumes.insert(name, load);
            }
            Verb::Copy { snapshot, name } => {
                export(&name);
                let load = self.begin_as(&snapshot, &name);
                self.volumes.insert(name, load);
            }
            Verb::Delete { name } => {
                self.volumes.remove(&name);
                self.snapshots.remove(&name);
            }
            Verb::RollBack { volume, snapshot } => {
                self.volumes[&volume].roll_back(&self.snapshots[&snapshot]);
            }
            Verb::Resize { volume, size } => self.volumes[&volume].resize(size / SECTOR as u64),
            Verb::Snapshot { .. } | Verb::Group { .. } | Verb::Flatten { .. } | Verb::Collect => {}
        }
    }

    fn begin_as(&mut self, snapshot: &str, name: &str) -> Load {
        let number = Fork(self.number());
        Load::of_image(&self.snapshots[snapshot], number, name, 1)
    }

    fn names(daemon: &Daemon) -> BTreeSet<String> {
        let list = daemon.json(&["volume", "list"]);
        let list = list.as_array().expect("a list").iter();
        list.map(|one| one["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Finds out what became of the verb that the crash met; whether it was done.
    pub fn resolve(&mut self, Doubt(verb, images): Doubt, daemon: &Daemon) -> bool {
        let names = Self::names(daemon);
        let done = match &verb {
            Verb::Snapshot { .. } | Verb::Group { .. } => {
                let there = |(name, _): &&(String, Image)| names.contains(name);
                let count = images.iter().filter(there).count();
                assert!(
                    count == 0 || count == images.len(),
                    "{verb:?}: {count} of its snapshots are there"
                );
                count > 0
            }
            Verb::Clone { name, .. } => names.contains(name),
            Verb::Delete { name } => {
                let done = !names.contains(name);
                if !done {
                    daemon.run(&["export", "add", name]);
                }
                done
            }
            Verb::RollBack { volume, snapshot } => {
                let after = self.volumes[volume].fork();
                after.roll_back(&self.snapshots[snapshot]);
                self.is_other(volume, &after, daemon)
            }
            Verb::Resize { volume, size } => {
                let after = self.volumes[volume].fork();
                after.resize(size / SECTOR as u64);
                self.is_other(volume, &after, daemon)
            }
            // A part of it may be there.
            Verb::Copy { name, .. } => {
                if names.contains(name) {
                    daemon.run(&["volume", "delete", name]);
                }
                false
            }
            Verb::Flatten { .. } | Verb::Collect => false,
        };
        match verb {
            // These are looked at already, and are what was found.
            Verb::RollBack { .. } | Verb::Resize { .. } => {}
            verb if done => self.done(verb, images, daemon),
            _ => {}
        }
        done
    }

    /// Whether a volume has become the other one that it may be.
    fn is_other(&mut self, volume: &str, other: &Load, daemon: &Daemon) -> bool {
        let found = verify_one_of(&[&self.volumes[volume], other], daemon.iscsi());
        if found == 1 {
            self.volumes.insert(volume.into(), other.clone());
        }
        found == 1
    }

    /// After a crash: all is there that has to be and nothing else, and it is what it has to be.
    pub fn verify(&mut self, daemon: &Daemon) {
        let all = self.volumes.keys().chain(self.snapshots.keys()).cloned();
        let all: BTreeSet<String> = all.collect();
        assert_eq!(Self::names(daemon), all);
        for load in self.volumes.values() {
            match self.torn {
                true => verify_torn(load, daemon.iscsi()),
                false => verify(load, daemon.iscsi()),
            }
        }
        for (name, image) in &mut self.snapshots {
            verify_image(image, name, daemon.iscsi());
        }
    }

    /// Everything, in random order.
    pub fn delete_all(&mut self, daemon: &Daemon, rng: &mut ChaCha8Rng) {
        let all = self.volumes.keys().chain(self.snapshots.keys()).cloned();
        let mut all: Vec<String> = all.collect();
        rand::seq::SliceRandom::shuffle(&mut all[..], rng);
        all.iter().for_each(|name| super::delete(daemon, name));
        self.volumes.clear();
        self.snapshots.clear();
    }
}
