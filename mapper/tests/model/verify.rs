//! What the last life left: every resource exists that must, none that must not, and holds what it may.

use crate::history::{Life, name};
use crate::io::read;
use crate::oracle::{Existence, ResourceModel, SECTOR};
use atoll_mapper::format::ResourceKind;
use atoll_mapper::{VolumeHandle, VolumeInfo};
use std::collections::BTreeMap;

/// Sectors of a resource that are compared at a start where nothing is in doubt.
const SAMPLE: usize = 2000;
/// Of a read, at most.
const MAX_RUN: usize = 2048;

impl Life {
    /// Compares what was ever touched, or a part of it, with what may be there now.
    pub async fn verify_all(&self) {
        let crashed = std::mem::replace(&mut self.shared.borrow_mut().crashed, false);
        let listed = self.mapper.volumes().await.expect("volumes are listed");
        let listed: BTreeMap<&str, &VolumeInfo> = listed
            .iter()
            .map(|info| (info.row.name.as_str(), info))
            .collect();
        self.settle_snapshots(&listed);
        for there in listed.keys() {
            let known = self.shared.borrow().resources.contains_key(*there);
            assert!(known, "resource {there} should not be there");
        }
        for resource in self.names(|_| true) {
            let existence = self.with(&resource, |model| model.existence);
            let Some(info) = listed.get(resource.as_str()) else {
                assert!(existence != Existence::Sure, "resource {resource} is lost");
                self.shared.borrow_mut().resources.remove(&resource);
                continue;
            };
            let possible = self.with(&resource, |model| {
                model.existence = Existence::Sure;
                check_row(model, info);
                match crashed {
                    true => model.after_crash(info.row.size),
                    false => vec![model.clone()],
                }
            });
            let handle = self.mapper.open_volume(name(&resource)).await;
            let handle = handle.expect("it opens");
            self.verify(&resource, &handle, possible).await;
        }
    }

    /// Of the snapshots that were being created those of a group exist all or none.
    fn settle_snapshots(&self, listed: &BTreeMap<&str, &VolumeInfo>) {
        let mut shared = self.shared.borrow_mut();
        let pending = std::mem::take(&mut shared.pending);
        let exists = |name: &str| listed.contains_key(name);
        for snapshot in &pending {
            let group = pending.iter().filter(|other| other.group == snapshot.group);
            let there = exists(&snapshot.name);
            assert!(
                group.clone().all(|other| exists(&other.name) == there),
                "a part of {group:?} is there",
                group = group.collect::<Vec<_>>()
            );
            if there {
                shared.is_snapshot(snapshot);
            }
        }
    }

    /// The resource is one of these.
    async fn verify(&self, resource: &str, handle: &VolumeHandle, possible: Vec<ResourceModel>) {
        let all = match possible.len() {
            0 => panic!(
                "{resource} has a size that it cannot have: {}",
                handle.size()
            ),
            1 => self.random(0..8) == 0,
            _ => true,
        };
        let mut sectors: Vec<u64> = possible.iter().flat_map(ResourceModel::touched).collect();
        sectors.sort_unstable();
        sectors.dedup();
        if !all && sectors.len() > SAMPLE {
            let first = self.random(0..(sectors.len() - SAMPLE) as u64) as usize;
            sectors = sectors[first..first + SAMPLE].to_vec();
        }
        let count = handle.size() / SECTOR;
        sectors.extend((0..16).map(|_| self.random(0..count)));
        sectors.sort_unstable();
        sectors.dedup();
        sectors.retain(|sector| *sector < count);
        let client = self.client(handle);
        let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut rest = &sectors[..];
        while let Some(first) = rest.first() {
            let run = rest.iter().enumerate().take(MAX_RUN);
            let run = run.take_while(|(n, s)| **s == first + *n as u64).count();
            let data = read(&client, *first, run as u64)
                .await
                .expect("what is there is readable");
            found.push((*first, data));
            rest = &rest[run..];
        }
        let mut model = self.the_one(possible, &found);
        let begun = model.read_begins();
        for (first, data) in &found {
            for (sector, bytes) in (*first..).zip(data.chunks(SECTOR as usize)) {
                model.check(begun, sector, bytes);
            }
        }
        let mut shared = self.shared.borrow_mut();
        shared.progress.verified += sectors.len() as u64;
        shared.resources.insert(resource.into(), model);
    }

    /// That which agrees with all that was read; one that does not, if none does.
    fn the_one(&self, mut possible: Vec<ResourceModel>, found: &[(u64, Vec<u8>)]) -> ResourceModel {
        let agrees = |model: &ResourceModel| {
            found.iter().all(|(first, data)| {
                let mut sectors = (*first..).zip(data.chunks(SECTOR as usize));
                sectors.all(|(sector, bytes)| model.allows(sector, bytes))
            })
        };
        if possible.len() == 1 {
            return possible.remove(0);
        }
        let place = possible.iter().position(agrees).unwrap_or(0);
        let is_sure = possible.iter().filter(|model| agrees(model)).count() < 2;
        let mut one = possible.swap_remove(place);
        if !is_sure {
            // What it shares with others in one case says nothing of them in the other.
            one.unshare();
        }
        one
    }
}

fn check_row(model: &mut ResourceModel, info: &VolumeInfo) {
    let row = &info.row;
    assert!(
        model.sizes.contains(&row.size),
        "{}: {:?}: {}",
        model.name,
        model.sizes,
        row.size
    );
    let kind = match model.is_snapshot {
        true => ResourceKind::Snapshot,
        false => ResourceKind::Volume,
    };
    assert_eq!(row.kind, kind, "{}", model.name);
    let protected = model.protected.unwrap_or(row.protected);
    assert_eq!(row.protected, protected, "{}", model.name);
    model.protected = Some(protected);
}
