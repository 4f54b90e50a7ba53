//! One life of the mapper: verify what the last one left, then rounds of random operations on disjoint
//! ranges, with flushes, resizes, creations and deletions between.

use crate::client::Client;
use crate::oracle::{Moment, SECTOR, Stamp, VolumeModel, fill};
use crate::world::{OBJECT_SIZE, SharedRef};
use atoll_backends::chaos::{Fault, Op};
use atoll_backends::{ChaosHandle, ErrorKind as StoreError, ObjectSize, Pool, PoolId};
use atoll_mapper::format::{LogicalBlock, PoolKind};
use atoll_mapper::meta::{MetaStore, SimMeta};
use atoll_mapper::types::{InstanceId, PoolNumber, ResourceId, ResourceName};
use atoll_mapper::{
    ErrorKind, Mapper, MapperConfig, NewPool, NewVolume, PoolFactory, VolumeHandle, clear_faults,
    faulted_pools, fsck,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{Buf, JoinHandle, cores, sleep, spawn};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// What happened, to be sure that something did.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    pub operations: u64,
    pub writes: u64,
    pub unmaps: u64,
    pub flushes: u64,
    pub resizes: u64,
    pub created: u64,
    pub deleted: u64,
    pub errors: u64,
    pub crashes: u64,
    pub clean_stops: u64,
    /// Sectors compared after a start.
    pub verified: u64,
}

impl Progress {
    pub fn add(&mut self, other: &Progress) {
        self.operations += other.operations;
        self.writes += other.writes;
        self.unmaps += other.unmaps;
        self.flushes += other.flushes;
        self.resizes += other.resizes;
        self.created += other.created;
        self.deleted += other.deleted;
        self.errors += other.errors;
        self.crashes += other.crashes;
        self.clean_stops += other.clean_stops;
        self.verified += other.verified;
    }
}

pub const POOL_ID: PoolId = PoolId([9; 16]);
const MAX_VOLUMES: usize = 3;
const MAX_PARALLEL: usize = 8;
/// Largest volume: over two pages of 512 objects.
const MAX_VOLUME: u64 = 1100 * OBJECT_SIZE as u64;
/// Longer than a sync at the store takes.
const SYNC_ENDS: Duration = Duration::from_secs(1);
const MIN_VOLUME: u64 = 1 << 20;
/// Bytes of resident map, one chosen per life: with the least nearly everything is evicted all the time, with
/// more pages go while their group stays.
const PAGE_MEMORY: [usize; 4] = [12 << 10, 24 << 10, 36 << 10, 48 << 10];

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a valid name")
}

/// Runs until it is dropped, or the mapper was stopped cleanly. Faults come by `chaos` if there is one.
pub async fn life(
    meta: Arc<dyn MetaStore>,
    factory: Arc<dyn PoolFactory>,
    chaos: Option<ChaosHandle>,
    shared: SharedRef,
) {
    let config = MapperConfig {
        page_memory: PAGE_MEMORY[shared.borrow_mut().rng.random_range(0..PAGE_MEMORY.len())],
        io_timeout: Duration::from_secs(30),
        ..MapperConfig::default()
    };
    let mapper = Mapper::start(meta, factory, InstanceId([7; 16]), cores(), config)
        .await
        .expect("the mapper starts on what is left");
    let pool = NewPool {
        name: name("main"),
        id: POOL_ID,
        kind: PoolKind::File,
        object_size: ObjectSize::new(OBJECT_SIZE).expect("valid"),
        options: String::new(),
    };
    match mapper.add_pool(pool).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
    }
    let life = Life {
        mapper,
        shared,
        chaos,
    };
    life.verify_all().await;
    life.arm_faults();
    loop {
        let chance = life.random(0..1000);
        match chance {
            0..50 => life.create().await,
            50..80 => life.delete().await,
            160..163 => {
                life.heal();
                if life.stop().await {
                    return;
                }
            }
            _ => life.round().await,
        }
    }
}

struct Life {
    mapper: Mapper,
    shared: SharedRef,
    chaos: Option<ChaosHandle>,
}

impl Life {
    fn arm_faults(&self) {
        let Some(chaos) = &self.chaos else { return };
        if self.shared.borrow().faults {
            for (op, probability) in [
                (Op::Write, 0.01),
                (Op::Read, 0.01),
                (Op::Sync, 0.02),
                (Op::WriteZeroes, 0.01),
            ] {
                chaos.fail_with_probability(op, probability, Fault::Error(StoreError::Io));
            }
        }
        for op in [Op::Write, Op::Read, Op::Sync, Op::WriteZeroes, Op::Delete] {
            chaos.delay(op, Duration::ZERO..Duration::from_millis(3));
        }
    }

    fn heal(&self) {
        if let Some(chaos) = &self.chaos {
            chaos.heal();
        }
    }

    fn random(&self, range: std::ops::Range<u64>) -> u64 {
        self.shared.borrow_mut().rng.random_range(range)
    }

    fn count(&self, what: impl FnOnce(&mut Progress)) {
        let mut shared = self.shared.borrow_mut();
        shared.progress.operations += 1;
        what(&mut shared.progress);
    }

    fn names(&self) -> Vec<String> {
        self.shared.borrow().volumes.keys().cloned().collect()
    }

    fn pick(&self) -> Option<String> {
        let names = self.names();
        if names.is_empty() {
            return None;
        }
        let place = self.random(0..names.len() as u64) as usize;
        Some(names[place].clone())
    }

    fn with<R>(&self, volume: &str, f: impl FnOnce(&mut VolumeModel) -> R) -> R {
        f(self
            .shared
            .borrow_mut()
            .volumes
            .get_mut(volume)
            .expect("a volume of the model"))
    }

    /// Compares everything that was ever touched with what may be there now.
    async fn verify_all(&self) {
        let crashed = std::mem::replace(&mut self.shared.borrow_mut().crashed, false);
        let listed = self.mapper.volumes().await.expect("volumes are listed");
        for info in &listed {
            let known = self
                .shared
                .borrow()
                .volumes
                .contains_key(info.row.name.as_str());
            assert!(known, "volume {} should not be there", info.row.name);
        }
        for volume in self.names() {
            let info = listed.iter().find(|info| info.row.name.as_str() == volume);
            let Some(info) = info else {
                let doubtful = self.with(&volume, |model| model.doubtful);
                assert!(doubtful, "volume {volume} is lost");
                self.shared.borrow_mut().volumes.remove(&volume);
                continue;
            };
            self.with(&volume, |model| {
                model.doubtful = false;
                assert!(
                    model.sizes.contains(&info.row.size),
                    "{:?}: {}",
                    model.sizes,
                    info.row.size
                );
                model.size_is(info.row.size);
            });
            let handle = self
                .mapper
                .open_volume(name(&volume))
                .await
                .expect("it opens");
            self.verify_volume(&volume, &handle, crashed).await;
        }
    }

    async fn verify_volume(&self, volume: &str, handle: &VolumeHandle, crashed: bool) {
        let mut sectors = self.with(volume, |model| model.touched());
        let count = handle.size() / SECTOR;
        sectors.extend((0..16).map(|_| self.random(0..count)));
        sectors.sort_unstable();
        sectors.dedup();
        let all = cores();
        let core = all[self.random(0..all.len() as u64) as usize].clone();
        let client = Client {
            handle: handle.clone(),
            core,
        };
        let mut rest = &sectors[..];
        while let Some(first) = rest.first() {
            let run = rest
                .iter()
                .enumerate()
                .take_while(|(n, s)| **s == first + *n as u64)
                .count();
            let data = read(&client, *first, run as u64)
                .await
                .expect("what is there is readable");
            let mut shared = self.shared.borrow_mut();
            let model = shared.volumes.get_mut(volume).expect("known");
            let begun = model.read_begins();
            for (sector, bytes) in rest[..run].iter().zip(data.chunks(SECTOR as usize)) {
                match crashed {
                    true => model.settle(*sector, bytes),
                    false => model.check(begun, *sector, bytes),
                }
            }
            shared.progress.verified += run as u64;
            rest = &rest[run..];
        }
    }

    async fn create(&self) {
        if self.names().len() >= MAX_VOLUMES {
            return;
        }
        let blocks = self.random(MIN_VOLUME / 4096..MAX_VOLUME / 4096);
        // Few names, so that they are used again.
        let text = format!("v{}", self.random(0..5));
        if self.shared.borrow().volumes.contains_key(&text) {
            return;
        }
        let number = {
            let mut shared = self.shared.borrow_mut();
            let number = shared.next_volume;
            shared.next_volume += 1;
            let mut model = VolumeModel::new(number, text.clone(), blocks * 4096);
            model.doubtful = true;
            shared.volumes.insert(text.clone(), model);
            number
        };
        let new = NewVolume {
            id: ResourceId(u128::from(number).to_be_bytes()),
            name: name(&text),
            size: blocks * 4096,
            block: LogicalBlock::Bytes512,
            pool: name("main"),
        };
        self.mapper
            .create_volume(new)
            .await
            .expect("a volume is created");
        self.with(&text, |model| model.doubtful = false);
        self.count(|progress| progress.created += 1);
    }

    async fn delete(&self) {
        let Some(volume) = self.pick() else { return };
        self.with(&volume, |model| model.doubtful = true);
        self.mapper
            .delete_volume(name(&volume))
            .await
            .expect("a volume is deleted");
        self.shared.borrow_mut().volumes.remove(&volume);
        self.count(|progress| progress.deleted += 1);
    }

    async fn resize(&self, volume: &str) {
        let size = self.random(MIN_VOLUME / 4096..MAX_VOLUME / 4096) * 4096;
        let shrinking = self.with(volume, |model| match size < model.size() {
            true => Some(model.shrink_begins(size)),
            false => {
                model.sizes.push(size);
                None
            }
        });
        match self.mapper.resize_volume(name(volume), size).await {
            Ok(_) => self.with(volume, |model| model.size_is(size)),
            Err(error) => {
                self.expect_fault(&error, None).await;
                let info = self.mapper.volume(name(volume)).await.expect("it is there");
                self.with(volume, |model| {
                    // Refused, or failed on its way: the size tells.
                    let before = model.size();
                    model.sizes = vec![before];
                    assert_eq!(info.row.size, before);
                    if let Some(begun) = shrinking {
                        model.fail(&begun);
                    }
                });
            }
        }
        self.count(|progress| progress.resizes += 1);
    }

    /// An error is one that the injected faults explain.
    async fn expect_fault(&self, error: &atoll_mapper::Error, handle: Option<&VolumeHandle>) {
        assert!(
            self.shared.borrow().faults,
            "an error where none was injected: {error}"
        );
        match (error.kind(), handle) {
            (ErrorKind::Io | ErrorKind::Faulted, _) => {}
            (ErrorKind::Corrupt, Some(handle)) => {
                // A sync that fails loses objects before the volume hears of it: it does soon.
                sleep(SYNC_ENDS).await;
                assert!(handle.shared().is_faulted(), "{error}");
            }
            (kind, _) => panic!("{kind:?} {error}"),
        }
        self.shared.borrow_mut().progress.errors += 1;
    }

    /// True if the stop was clean.
    async fn stop(&self) -> bool {
        let begun: Vec<(String, Moment)> = self
            .names()
            .into_iter()
            .map(|volume| {
                (
                    volume.clone(),
                    self.with(&volume, |model| model.flush_begins()),
                )
            })
            .collect();
        match self.mapper.stop().await {
            Ok(()) => {
                for (volume, begun) in begun {
                    self.with(&volume, |model| model.flush_ends(begun));
                }
                self.shared.borrow_mut().stopped = true;
                true
            }
            Err(error) => {
                assert!(self.shared.borrow().faults, "{error}");
                self.shared.borrow_mut().hopeless = true;
                // Not clean: only the power button is left.
                std::future::pending().await
            }
        }
    }

    /// Some operations at once on one volume, which may overlap, and now and then a resize among them.
    async fn round(&self) {
        let Some(volume) = self.pick() else { return };
        let handle = self
            .mapper
            .open_volume(name(&volume))
            .await
            .expect("it opens");
        let sectors = handle.size() / SECTOR;
        let parallel = self.random(1..MAX_PARALLEL as u64 + 1);
        // Close together or far apart.
        let near = self.random(0..2) == 0;
        let spread = if near { 512.min(sectors) } else { sectors };
        // Mostly where something was written before: what is there already is written in place.
        let base = match near && self.random(0..4) > 0 {
            true => (self.random(0..3) * 200).min(sectors - spread),
            false => self.random(0..sectors - spread + 1),
        };
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        for _ in 0..parallel {
            let longest = match self.random(0..10) {
                0..6 => 24,
                6..9 => 160,
                _ => 2048,
            };
            let mut first = base + self.random(0..spread);
            let mut count = self.random(1..longest + 1);
            if self.random(0..2) == 0 {
                (first, count) = (first / 8 * 8, count.next_multiple_of(8));
            }
            count = count.min(sectors - first);
            tasks.push(self.operation(&volume, &handle, first, count));
        }
        if self.random(0..8) == 0 {
            let (life, volume) = (self.again(), volume.clone());
            tasks.push(spawn(async move { life.resize(&volume).await }));
        }
        for task in tasks {
            task.await;
        }
        self.with(&volume, VolumeModel::tidy);
    }

    fn again(&self) -> Life {
        Life {
            mapper: self.mapper.clone(),
            shared: self.shared.clone(),
            chaos: self.chaos.clone(),
        }
    }

    fn operation(
        &self,
        volume: &str,
        handle: &VolumeHandle,
        first: u64,
        count: u64,
    ) -> JoinHandle<()> {
        let all = cores();
        let core = all[self.random(0..all.len() as u64) as usize].clone();
        let handle = Client {
            handle: handle.clone(),
            core,
        };
        let life = self.again();
        let volume = volume.to_string();
        let chance = self.random(0..100);
        spawn(async move {
            if life.shared.borrow().ended {
                // The model has been taken away: nothing may be submitted behind its back.
                return std::future::pending().await;
            }
            match chance {
                0..45 => life.write(&volume, &handle, first, count, chance < 8).await,
                45..60 => life.zero(&volume, &handle, first, count, chance < 54).await,
                60..65 => {
                    // A whole number of objects, so that objects leave the map.
                    life.zero(&volume, &handle, first, count, true).await;
                }
                65..80 => life.flush(&volume, &handle).await,
                _ => life.read(&volume, &handle, first, count).await,
            }
        })
    }

    async fn write(&self, volume: &str, handle: &Client, first: u64, count: u64, fua: bool) {
        let (begun, data) = {
            let mut shared = self.shared.borrow_mut();
            let stamp: Stamp = shared.next_stamp;
            shared.next_stamp += 1;
            let model = shared.volumes.get_mut(volume).expect("known");
            let mut data = Buf::alloc((count * SECTOR) as usize);
            for (sector, bytes) in (first..).zip(data.chunks_mut(SECTOR as usize)) {
                fill(model.id, sector, stamp, bytes);
            }
            (model.submit(first, count, stamp), data.freeze())
        };
        match handle.write(first * SECTOR, data, fua).await {
            Ok(()) => self.with(volume, |model| model.acknowledge(&begun, fua)),
            Err(error) => {
                self.expect_failure(&error, volume, handle, first + count)
                    .await;
                self.with(volume, |model| model.fail(&begun));
            }
        }
        self.count(|progress| progress.writes += 1);
    }

    async fn zero(&self, volume: &str, handle: &Client, first: u64, count: u64, unmap: bool) {
        let begun = self.with(volume, |model| model.submit(first, count, 0));
        let outcome = match unmap {
            true => handle.unmap(first * SECTOR, count * SECTOR).await,
            false => {
                let may_unmap = first.is_multiple_of(2);
                handle
                    .write_zeroes(first * SECTOR, count * SECTOR, may_unmap)
                    .await
            }
        };
        match outcome {
            Ok(()) => self.with(volume, |model| model.acknowledge(&begun, false)),
            Err(error) => {
                self.expect_failure(&error, volume, handle, first + count)
                    .await;
                self.with(volume, |model| model.fail(&begun));
            }
        }
        self.count(|progress| progress.unmaps += 1);
    }

    async fn flush(&self, volume: &str, handle: &Client) {
        let begun = self.with(volume, VolumeModel::flush_begins);
        match handle.flush().await {
            Ok(()) => self.with(volume, |model| model.flush_ends(begun)),
            Err(error) => self.expect_fault(&error, Some(&handle.handle)).await,
        }
        self.count(|progress| progress.flushes += 1);
    }

    async fn read(&self, volume: &str, handle: &Client, first: u64, count: u64) {
        let begun = self.with(volume, VolumeModel::read_begins);
        match read(handle, first, count).await {
            Ok(data) => self.with(volume, |model| {
                for (sector, bytes) in (first..).zip(data.chunks(SECTOR as usize)) {
                    model.check(begun, sector, bytes);
                }
            }),
            Err(error) => {
                self.expect_failure(&error, volume, handle, first + count)
                    .await
            }
        }
        self.count(|_| {});
    }

    /// An operation up to sector `end` has failed: by an injected fault, or because a shrink cut it off.
    async fn expect_failure(
        &self,
        error: &atoll_mapper::Error,
        volume: &str,
        handle: &Client,
        end: u64,
    ) {
        let smallest = self.with(volume, |model| model.sizes.iter().min().copied());
        match error.kind() {
            ErrorKind::OutOfRange if smallest.is_some_and(|size| size < end * SECTOR) => {}
            _ => self.expect_fault(error, Some(&handle.handle)).await,
        }
    }
}

async fn read(handle: &Client, first: u64, count: u64) -> atoll_mapper::Result<Vec<u8>> {
    let segments = handle.read(first * SECTOR, count * SECTOR).await?;
    let data: Vec<u8> = segments
        .iter()
        .flat_map(|segment| segment.iter().copied())
        .collect();
    assert_eq!(
        data.len() as u64,
        count * SECTOR,
        "a read is as long as asked"
    );
    Ok(data)
}

/// The separate reader of the formats finds nothing wrong; then volumes that a failed sync had faulted are
/// as good as their last flush that succeeded, which the next life verifies: they are let in again.
pub fn check_stores(sim: &mut Sim, meta: SimMeta, pool: Arc<dyn Pool>) {
    let report = sim.block_on(async move {
        let store = pool.attach().await.expect("the pool is there");
        let pools = [(PoolNumber::FIRST, store)];
        let report = fsck::check(&meta, &pools, fsck::Options::default(), &mut |_| {}).await;
        let faulted = faulted_pools(&meta).await.expect("readable");
        clear_faults(&meta, &faulted).await.expect("cleared");
        report
    });
    let report = report.expect("the metadata store is readable");
    assert!(report.is_clean(), "{:#?}", report.findings);
}
