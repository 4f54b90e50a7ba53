//! Verbs on resources, beside the operations of a round: what each may change is the model's from its
//! beginning to its end, and a power loss in between leaves all of it or nothing.

use crate::history::{Life, MAX_VOLUME, MIN_VOLUME, name, resource_id};
use crate::oracle::{Existence, ResourceModel, SECTOR};
use crate::world::{OBJECT_SIZE, PendingSnapshot};
use atoll_mapper::format::ResourceKind;
use atoll_mapper::{Error, ErrorKind, FlattenProgress, NewClone, NewSnapshot};
use atoll_reactor::JoinHandle;

const MAX_SNAPSHOTS: usize = 6;
const OBJECT_SECTORS: u64 = OBJECT_SIZE as u64 / SECTOR;
/// Longest copies: some objects, now and then many.
const COPIED_OBJECTS: [u64; 4] = [2, 4, 8, 64];

impl Life {
    /// Begins a verb, if what it needs is there. What operations use meanwhile is not deleted.
    pub fn verb(&self, used: &[String]) -> Option<JoinHandle<()>> {
        match self.random(0..100) {
            0..25 => self.snapshot_some(),
            25..40 => self.clone_some(),
            40..50 => {
                let snapshot = self.claim(|model| model.is_snapshot)?;
                let tree = self.with(&snapshot, |model| model.tree);
                let volume = self.claim(|model| !model.is_snapshot && model.tree == tree);
                let Some(volume) = volume else {
                    self.release(&[snapshot]);
                    return None;
                };
                Some(self.task(|life| async move {
                    life.rollback(&volume, &snapshot).await;
                    life.release(&[volume, snapshot]);
                }))
            }
            50..64 => {
                let deleted = self.claim(|model| !used.contains(&model.name))?;
                Some(self.task(|life| async move {
                    life.delete(&deleted).await;
                    life.release(&[deleted]);
                }))
            }
            64..74 => {
                let volume = self.claim(|model| !model.is_snapshot)?;
                Some(self.task(|life| async move {
                    life.resize(&volume).await;
                    life.release(&[volume]);
                }))
            }
            74..80 => {
                let volume = self.claim(|model| !model.is_snapshot)?;
                Some(self.task(|life| async move {
                    life.flatten(&volume).await;
                    life.release(&[volume]);
                }))
            }
            80..90 => {
                let from = self.claim(|_| true)?;
                let to = match self.random(0..6) {
                    0 => Some(from.clone()).filter(|_| !self.with(&from, |m| m.is_snapshot)),
                    _ => self.claim(|model| !model.is_snapshot),
                };
                let Some(to) = to else {
                    self.release(&[from]);
                    return None;
                };
                Some(self.task(|life| async move {
                    life.copy(&from, &to).await;
                    life.release(&[from, to]);
                }))
            }
            90..93 => {
                let resource = self.claim(|_| true)?;
                Some(self.task(|life| async move {
                    life.protect(&resource).await;
                    life.release(&[resource]);
                }))
            }
            _ => Some(self.task(|life| async move {
                life.mapper.gc_run().await.expect("it begins");
                life.count(|_| {});
            })),
        }
    }

    /// Takes a resource for a verb; there is only one at a time that changes it.
    fn claim(&self, like: impl Fn(&ResourceModel) -> bool) -> Option<String> {
        let claimed = self.shared.borrow().claimed.clone();
        let name = self.pick(|model| {
            !claimed.contains(&model.name) && model.existence == Existence::Sure && like(model)
        })?;
        self.shared.borrow_mut().claimed.insert(name.clone());
        Some(name)
    }

    fn release(&self, resources: &[String]) {
        let claimed = &mut self.shared.borrow_mut().claimed;
        claimed.retain(|name| !resources.contains(name));
    }

    fn snapshot_some(&self) -> Option<JoinHandle<()>> {
        let there = self.names(|model| model.is_snapshot).len();
        let most = if self.random(0..3) == 0 { 3 } else { 1 };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for _ in there..MAX_SNAPSHOTS.min(there + most) {
            let snapshot = self.free_name('s', 9);
            let snapshot = snapshot.filter(|name| pairs.iter().all(|(_, other)| other != name));
            let Some(snapshot) = snapshot else { break };
            let Some(volume) = self.claim(|model| !model.is_snapshot) else {
                break;
            };
            pairs.push((volume, snapshot));
        }
        if pairs.is_empty() {
            return None;
        }
        // Nobody else takes the names until the verb begins.
        let begun = self.snapshots_begin(&pairs);
        Some(self.task(|life| async move {
            life.snapshot(begun).await;
            let volumes: Vec<String> = pairs.into_iter().map(|(volume, _)| volume).collect();
            life.release(&volumes);
        }))
    }

    fn snapshots_begin(&self, pairs: &[(String, String)]) -> Vec<PendingSnapshot> {
        let mut shared = self.shared.borrow_mut();
        let group = shared.new_id();
        let mut all = Vec::new();
        for (volume, snapshot) in pairs {
            let id = shared.new_id();
            let model = shared.resources.get_mut(volume).expect("claimed");
            all.push(PendingSnapshot {
                id,
                name: snapshot.clone(),
                volume: volume.clone(),
                begun: model.flush_begins(),
                group,
            });
        }
        shared.pending.extend(all.iter().cloned());
        all
    }

    async fn snapshot(&self, mut begun: Vec<PendingSnapshot>) {
        for snapshot in &mut begun {
            // What was acknowledged until now is in.
            snapshot.begun = self.with(&snapshot.volume, ResourceModel::flush_begins);
            let mut shared = self.shared.borrow_mut();
            let pending = shared.pending.iter_mut();
            let this = pending.filter(|pending| pending.id == snapshot.id);
            this.for_each(|pending| pending.begun = snapshot.begun);
        }
        let wanted = begun.iter().map(|snapshot| NewSnapshot {
            id: resource_id(snapshot.id),
            volume: name(&snapshot.volume),
            name: name(&snapshot.name),
        });
        let outcome = self.mapper.create_snapshots(wanted.collect()).await;
        match &outcome {
            Ok(made) => {
                assert_eq!(made.len(), begun.len());
                for snapshot in &begun {
                    let size = self.with(&snapshot.volume, |model| model.size());
                    let mut made = made.iter();
                    let info = made.find(|info| info.row.name.as_str() == snapshot.name);
                    let info = info.expect("all that were asked for");
                    assert_eq!(info.row.size, size, "{}", snapshot.name);
                    assert_eq!(info.row.kind, ResourceKind::Snapshot);
                    self.shared.borrow_mut().is_snapshot(snapshot);
                }
            }
            Err(error) => {
                let volumes: Vec<&str> = begun.iter().map(|s| s.volume.as_str()).collect();
                self.expect_fault(error, &volumes).await;
                for snapshot in &begun {
                    let there = self.mapper.volume(name(&snapshot.name)).await;
                    let error = there.expect_err("it could not be created");
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                }
            }
        }
        let group = begun[0].group;
        let mut shared = self.shared.borrow_mut();
        shared.pending.retain(|pending| pending.group != group);
        shared.progress.snapshots += begun.len() as u64;
        shared.progress.operations += 1;
    }

    fn clone_some(&self) -> Option<JoinHandle<()>> {
        if !self.has_room_for_a_volume() {
            return None;
        }
        let text = self.free_name('v', 6)?;
        let snapshot = self.claim(|model| model.is_snapshot)?;
        let size = match self.random(0..3) {
            0 => Some(self.random(MIN_VOLUME / 4096..MAX_VOLUME / 4096) * 4096),
            _ => None,
        };
        let id = {
            let mut shared = self.shared.borrow_mut();
            let id = shared.new_id();
            let origin = &shared.resources[&snapshot];
            let mut model = origin.copy(id, &text);
            model.size_is(size.unwrap_or(origin.size()));
            model.existence = Existence::InDoubt;
            shared.resources.insert(text.clone(), model);
            shared.claimed.insert(text.clone());
            id
        };
        Some(self.task(move |life| async move {
            let new = NewClone {
                id: resource_id(id),
                snapshot: name(&snapshot),
                name: name(&text),
                size,
            };
            match life.mapper.create_clone(new).await {
                Ok(info) => life.with(&text, |model| {
                    assert_eq!(info.row.size, model.size());
                    assert_eq!(info.row.kind, ResourceKind::Volume);
                    model.existence = Existence::Sure;
                }),
                Err(error) => {
                    life.expect_fault(&error, &[&snapshot]).await;
                    life.shared.borrow_mut().resources.remove(&text);
                }
            }
            life.release(&[snapshot, text]);
            life.count(|progress| progress.clones += 1);
        }))
    }

    async fn rollback(&self, volume: &str, snapshot: &str) {
        let protected = self.with(volume, |model| model.protected);
        if protected == Some(false) {
            let to = self.with(snapshot, |model| model.clone());
            self.with(volume, |model| model.rollback_begins(&to));
        }
        let outcome = self.mapper.rollback(name(volume), name(snapshot)).await;
        if protected == Some(true) {
            self.is_protected(outcome.map(drop));
            return;
        }
        match outcome {
            Ok(info) => self.with(volume, |model| {
                model.rollback_ends(true);
                assert_eq!(info.row.size, model.size());
            }),
            Err(error) => {
                self.expect_fault(&error, &[volume, snapshot]).await;
                self.with(volume, |model| model.rollback_ends(false));
            }
        }
        self.count(|progress| progress.rollbacks += 1);
    }

    fn is_protected(&self, outcome: Result<(), Error>) {
        let error = outcome.expect_err("it is protected");
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        self.count(|_| {});
    }

    async fn protect(&self, resource: &str) {
        let on = self.with(resource, |model| {
            let before = model.protected.take();
            before != Some(true)
        });
        let info = self.mapper.protect(name(resource), on).await;
        assert_eq!(info.expect("it is there").row.protected, on);
        self.with(resource, |model| model.protected = Some(on));
        self.count(|_| {});
    }

    async fn delete(&self, resource: &str) {
        if self.with(resource, |model| model.protected) == Some(true) {
            self.is_protected(self.mapper.delete_volume(name(resource)).await);
            // Few resources stay protected: they would fill the place.
            return self.protect(resource).await;
        }
        self.with(resource, |model| model.existence = Existence::InDoubt);
        self.mapper
            .delete_volume(name(resource))
            .await
            .expect("a resource is deleted");
        self.shared.borrow_mut().resources.remove(resource);
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
                self.expect_fault(&error, &[volume]).await;
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

    /// To its end, or a part of it only. Nothing that is read changes.
    async fn flatten(&self, volume: &str) {
        {
            // It will have no ancestor, perhaps only by a call that a crash cuts.
            let mut shared = self.shared.borrow_mut();
            let alone = shared.new_id();
            shared.resources.get_mut(volume).expect("claimed").tree = alone;
        }
        let most = if self.random(0..3) == 0 { 3 } else { u64::MAX };
        let mut from = 0;
        for _ in 0..most {
            match self.mapper.flatten(name(volume), from).await {
                Ok(FlattenProgress {
                    ended: false, done, ..
                }) => {
                    assert!(done > from, "it comes to an end");
                    from = done;
                }
                Ok(_) => break,
                Err(error) => {
                    self.expect_fault(&error, &[volume]).await;
                    break;
                }
            }
        }
        self.count(|progress| progress.flattened += 1);
    }

    async fn copy(&self, from: &str, to: &str) {
        let [source, target] =
            [from, to].map(|resource| self.with(resource, |model| model.size() / SECTOR));
        let objects = COPIED_OBJECTS[self.random(0..4) as usize];
        // Mostly near the beginning, where things are.
        let far = self.random(0..4) == 0;
        let place = |size: u64| self.random(0..if far { size } else { size.min(1024) });
        let mut len = self.random(1..objects * OBJECT_SECTORS + 1);
        let (mut at, mut to_at) = (place(source), place(target));
        match self.random(0..8) {
            0 => {}
            1..3 => {
                (at, to_at, len) = (at / 8 * 8, to_at / 8 * 8, len.next_multiple_of(8));
            }
            3..5 => to_at = to_at / OBJECT_SECTORS * OBJECT_SECTORS + at % OBJECT_SECTORS,
            _ => {
                let down = |place: u64| place / OBJECT_SECTORS * OBJECT_SECTORS;
                (at, to_at) = (down(at), down(to_at));
                len = len.next_multiple_of(OBJECT_SECTORS);
            }
        }
        // As a client may have the ends wrong, but not here.
        len = len
            .min(source.saturating_sub(at))
            .min(target.saturating_sub(to_at));
        if len == 0 || (from == to && at.abs_diff(to_at) < len) {
            return;
        }
        let (reading, choices) = self.with(from, |model| model.copy_from_begins(at, len));
        let writing = self.with(to, |model| model.copy_to_begins(to_at, &choices));
        let bytes = [at, to_at, len].map(|sectors| sectors * SECTOR);
        let (from_name, to_name) = (name(from), name(to));
        let copying = self
            .mapper
            .copy_range(from_name, bytes[0], to_name, bytes[1], bytes[2]);
        let outcome = copying.await;
        self.with(from, |model| model.copy_from_ends(reading));
        match outcome {
            Ok(copied) => {
                assert_eq!(copied.shared + copied.copied, bytes[2], "{copied:?}");
                self.with(to, |model| model.acknowledge(&writing, true));
            }
            Err(error) => {
                self.expect_fault(&error, &[from, to]).await;
                self.with(to, |model| model.fail(&writing));
            }
        }
        self.count(|progress| progress.copies += 1);
    }
}
