//! Rounds: operations at once on some resources, which may overlap, with verbs among them.

use crate::client::Client;
use crate::content::{Content, Stamp};
use crate::history::{Life, name};
use crate::oracle::{ResourceModel, SECTOR};
use atoll_mapper::{Error, ErrorKind, VolumeHandle};
use atoll_reactor::{Buf, JoinHandle, cores};

const MAX_PARALLEL: u64 = 8;

impl Life {
    pub async fn round(&self) {
        // What changes is mostly more worth looking at.
        let wants_a_volume = self.random(0..4) > 0;
        let Some(first) = self.pick(|model| !(model.is_snapshot && wants_a_volume)) else {
            return;
        };
        let mut used = vec![first];
        if self.random(0..3) == 0 {
            let second = self.pick(|model| model.name != used[0]);
            used.extend(second);
        }
        let mut tasks = Vec::new();
        for resource in &used {
            let opened = self.mapper.open_volume(name(resource)).await;
            let handle = opened.expect("it opens");
            self.operations(resource, &handle, &mut tasks);
        }
        for _ in 0..self.random(0..4).saturating_sub(1) {
            tasks.extend(self.verb(&used));
        }
        for task in tasks {
            task.await;
        }
        for resource in &used {
            self.with(resource, ResourceModel::tidy);
        }
    }

    fn operations(&self, resource: &str, handle: &VolumeHandle, tasks: &mut Vec<JoinHandle<()>>) {
        let sectors = handle.size() / SECTOR;
        let parallel = self.random(1..MAX_PARALLEL + 1);
        // Close together or far apart.
        let near = self.random(0..2) == 0;
        let spread = if near { 512.min(sectors) } else { sectors };
        // Mostly where something was written before: what is there already is written in place.
        let base = match near && self.random(0..4) > 0 {
            true => (self.random(0..3) * 200).min(sectors - spread),
            false => self.random(0..sectors - spread + 1),
        };
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
            tasks.push(self.operation(resource, handle, first, count));
        }
    }

    fn operation(
        &self,
        resource: &str,
        handle: &VolumeHandle,
        first: u64,
        count: u64,
    ) -> JoinHandle<()> {
        let resource = resource.to_string();
        let client = self.client(handle);
        let is_snapshot = self.with(&resource, |model| model.is_snapshot);
        let chance = self.random(0..100);
        self.task(move |life| async move {
            match chance {
                0..3 if is_snapshot => life.write_refused(&client, first, count).await,
                3..8 if is_snapshot => life.flush(&resource, &client).await,
                8..80 if is_snapshot => life.read(&resource, &client, first, count).await,
                0..45 => {
                    life.write(&resource, &client, first, count, chance < 8)
                        .await;
                }
                45..60 => {
                    life.zero(&resource, &client, first, count, chance < 54)
                        .await
                }
                60..65 => {
                    // A whole number of objects, so that objects leave the map.
                    let (first, count) = (first / 128 * 128, count.next_multiple_of(128));
                    let size = life.with(&resource, |model| model.size()) / SECTOR;
                    let count = count.min(size.saturating_sub(first)).max(1);
                    life.zero(&resource, &client, first, count, true).await;
                }
                65..80 => life.flush(&resource, &client).await,
                _ => life.read(&resource, &client, first, count).await,
            }
        })
    }

    /// The resource as a core uses it, whichever.
    pub fn client(&self, handle: &VolumeHandle) -> Client {
        let all = cores();
        Client {
            handle: handle.clone(),
            core: all[self.random(0..all.len() as u64) as usize].clone(),
        }
    }

    async fn write_refused(&self, client: &Client, first: u64, count: u64) {
        let data = Buf::alloc((count * SECTOR) as usize).freeze();
        let outcome = client.write(first * SECTOR, data, false).await;
        let error = outcome.expect_err("a snapshot never changes");
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        self.count(|_| {});
    }

    async fn write(&self, volume: &str, client: &Client, first: u64, count: u64, fua: bool) {
        let (begun, data) = {
            let mut shared = self.shared.borrow_mut();
            let stamp: Stamp = shared.next_stamp;
            shared.next_stamp += 1;
            let model = shared.resources.get_mut(volume).expect("known");
            let mut data = Buf::alloc((count * SECTOR) as usize);
            for (sector, bytes) in (first..).zip(data.chunks_mut(SECTOR as usize)) {
                Content::new(model.id, sector, stamp).fill(bytes);
            }
            (model.submit(first, count, stamp), data.freeze())
        };
        match client.write(first * SECTOR, data, fua).await {
            Ok(()) => self.with(volume, |model| model.acknowledge(&begun, fua)),
            Err(error) => {
                self.expect_failure(&error, volume, first + count).await;
                self.with(volume, |model| model.fail(&begun));
            }
        }
        self.count(|progress| progress.writes += 1);
    }

    async fn zero(&self, volume: &str, client: &Client, first: u64, count: u64, unmap: bool) {
        let begun = self.with(volume, |model| model.submit(first, count, 0));
        let outcome = match unmap {
            true => client.unmap(first * SECTOR, count * SECTOR).await,
            false => {
                let may_unmap = first.is_multiple_of(2);
                client
                    .write_zeroes(first * SECTOR, count * SECTOR, may_unmap)
                    .await
            }
        };
        match outcome {
            Ok(()) => self.with(volume, |model| model.acknowledge(&begun, false)),
            Err(error) => {
                self.expect_failure(&error, volume, first + count).await;
                self.with(volume, |model| model.fail(&begun));
            }
        }
        self.count(|progress| progress.unmaps += 1);
    }

    async fn flush(&self, volume: &str, client: &Client) {
        let begun = self.with(volume, ResourceModel::flush_begins);
        match client.flush().await {
            Ok(()) => self.with(volume, |model| model.flush_ends(begun)),
            Err(error) => self.expect_fault(&error, &[volume]).await,
        }
        self.count(|progress| progress.flushes += 1);
    }

    async fn read(&self, volume: &str, client: &Client, first: u64, count: u64) {
        let begun = self.with(volume, ResourceModel::read_begins);
        match read(client, first, count).await {
            Ok(data) => self.with(volume, |model| {
                for (sector, bytes) in (first..).zip(data.chunks(SECTOR as usize)) {
                    model.check(begun, sector, bytes);
                }
            }),
            Err(error) => self.expect_failure(&error, volume, first + count).await,
        }
        self.count(|_| {});
    }

    /// An operation up to sector `end` has failed: by an injected fault, or because a shrink cut it off.
    async fn expect_failure(&self, error: &Error, volume: &str, end: u64) {
        let smallest = self.with(volume, |model| model.sizes.iter().min().copied());
        match error.kind() {
            ErrorKind::OutOfRange if smallest.is_some_and(|size| size < end * SECTOR) => {}
            _ => self.expect_fault(error, &[volume]).await,
        }
    }
}

pub async fn read(client: &Client, first: u64, count: u64) -> atoll_mapper::Result<Vec<u8>> {
    let segments = client.read(first * SECTOR, count * SECTOR).await?;
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
