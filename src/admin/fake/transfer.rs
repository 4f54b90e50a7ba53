//! Content of the resources of the engine of memory: blocks by their number, changes found by
//! comparing. The rules of imports are the engine's, without its care for crashes.

use std::collections::BTreeMap;
use std::future::ready;

use axum::body::Bytes;
use uuid::Uuid;

use super::{Catalogue, FakeControl, no};
use crate::api::*;
use crate::control::{Answer, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

const BLOCK: u64 = DATA_UNIT;

/// What is stored, by the number of the block.
pub type Content = BTreeMap<u64, Vec<u8>>;

/// An import that was begun.
pub struct Unfinished {
    pub source: Uuid,
    base: Option<Uuid>,
    pub done: u64,
    session: Uuid,
}

impl FakeControl {
    /// Writes as an initiator would.
    pub fn put(&self, name: &str, offset: u64, bytes: &[u8]) {
        let name = name.parse().unwrap();
        self.with(|c| {
            let id = c.volume(&name)?.id;
            c.write(id, offset, bytes);
            Ok(())
        })
        .unwrap();
    }

    /// The whole content.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let name = name.parse().unwrap();
        self.with(|c| {
            let volume = c.volume(&name)?;
            Ok(c.read(volume.id, 0, volume.size.get()))
        })
        .unwrap()
    }

    /// Snapshots without a verb.
    pub fn snapshot(&self, volume: &str, name: &str) {
        let (volume, name) = (volume.parse().unwrap(), name.parse().unwrap());
        self.with(|c| c.keep(&volume, name, None)).unwrap();
    }

    /// Writes fail from now on, after this many.
    pub fn fail_writes_after(&self, writes: u64) {
        self.with(|c| {
            c.writes_left = Some(writes);
            Ok(())
        })
        .unwrap();
    }

    pub fn writes_succeed(&self) {
        self.with(|c| {
            c.writes_left = None;
            Ok(())
        })
        .unwrap();
    }

    /// How far an import is.
    pub fn import_done(&self, name: &str) -> Option<u64> {
        let name = name.parse().unwrap();
        self.with(|c| {
            let id = c.volume(&name)?.id;
            Ok(c.imports.get(&id).map(|import| import.done))
        })
        .unwrap()
    }
}

impl Catalogue {
    fn resource(&self, name: &ResourceName, id: Uuid) -> Result<Volume> {
        let found = self.volumes.get(name).filter(|volume| volume.id == id);
        found.cloned().ok_or_else(|| no("volume", name))
    }

    fn write(&mut self, id: Uuid, offset: u64, bytes: &[u8]) {
        let content = self.contents.entry(id).or_default();
        for (n, block) in bytes.chunks(BLOCK as usize).enumerate() {
            content.insert(offset / BLOCK + n as u64, block.to_vec());
        }
    }

    fn read(&self, id: Uuid, offset: u64, length: u64) -> Vec<u8> {
        let content = self.contents.get(&id);
        let blocks = offset / BLOCK..(offset + length) / BLOCK;
        let block = |n| content.and_then(|content| content.get(&n).cloned());
        blocks
            .flat_map(|n| block(n).unwrap_or_else(|| vec![0; BLOCK as usize]))
            .collect()
    }

    /// A snapshot begins with what the volume has.
    pub fn copy_content(&mut self, from: Uuid, to: Uuid) {
        let content = self.contents.get(&from).cloned();
        self.contents.insert(to, content.unwrap_or_default());
    }

    /// A snapshot, with an id of somebody else's choice.
    fn keep(&mut self, volume: &ResourceName, name: ResourceName, id: Option<Uuid>) -> Result<()> {
        let member = SnapshotOf {
            volume: volume.clone(),
            name: name.clone(),
        };
        self.take_snapshots(&[member])?;
        if let (Some(id), Some(snapshot)) = (id, self.volumes.get_mut(&name)) {
            let before = std::mem::replace(&mut snapshot.id, id);
            self.copy_content(before, id);
        }
        Ok(())
    }

    fn changes(&self, name: &ResourceName, query: &ChangesQuery) -> Result<ChangePage> {
        let to = self.resource(name, query.id)?;
        let empty = Content::new();
        let later = self.contents.get(&to.id).unwrap_or(&empty);
        let from = match (&query.from, query.from_id) {
            (Some(from), Some(id)) => Some(self.resource(from, id)?.id),
            _ => None,
        };
        let earlier = from.and_then(|id| self.contents.get(&id)).unwrap_or(&empty);
        let is_zero = |block: Option<&Vec<u8>>| block.is_none_or(|b| b.iter().all(|b| *b == 0));
        let mut blocks: Vec<u64> = later.keys().chain(earlier.keys()).copied().collect();
        blocks.sort_unstable();
        blocks.dedup();
        let mut page = ChangePage::default();
        for n in blocks {
            let [now, before] = [later.get(&n), earlier.get(&n)];
            let same = now == before || (is_zero(now) && is_zero(before));
            let range = ChangedRange {
                offset: n * BLOCK,
                length: BLOCK,
                zero: from.is_some() && is_zero(now),
            };
            let outside = range.offset < query.offset || range.offset >= to.size.get();
            if outside || (from.is_some() && same) {
                continue;
            }
            let full = page.ranges.len() == query.most as usize;
            match page.ranges.last_mut() {
                Some(last)
                    if last.offset + last.length == range.offset && last.zero == range.zero =>
                {
                    last.length += BLOCK;
                }
                Some(last) if full => {
                    page.next = Some(last.offset + last.length);
                    break;
                }
                _ => page.ranges.push(range),
            }
        }
        Ok(page)
    }

    fn writing(&mut self, range: &DataRange) -> Result<()> {
        let session = range.session.unwrap_or_default();
        let import = self.imports.get(&range.id);
        if import.is_none_or(|import| import.session != session) {
            return Err(Error::refused("no import into this volume has begun"));
        }
        match &mut self.writes_left {
            Some(0) => Err(Error::internal("the disk is broken")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn unchanged_since(&self, volume: &Volume, snapshot: &Volume) -> bool {
        let query = ChangesQuery {
            id: volume.id,
            from: Some(snapshot.name.clone()),
            from_id: Some(snapshot.id),
            offset: 0,
            most: 1,
        };
        volume.size == snapshot.size
            && self
                .changes(&volume.name, &query)
                .is_ok_and(|page| page.ranges.is_empty())
    }

    fn begin_import(&mut self, name: &ResourceName, request: &BeginImport) -> Result<ImportState> {
        let volume = self.resource(name, request.id)?;
        self.not_exported(name)?;
        let mut volumes = self.volumes.values();
        let kept = imported_id(volume.id, request.source);
        let session = Uuid::from_u128(0x7000 + self.imports.len() as u128);
        if let Some(import) = self.imports.get_mut(&request.id) {
            if !request.resume || (import.source, import.base) != (request.source, request.base) {
                return Err(Error::refused("it is incomplete").hint("--resume"));
            }
            import.session = session;
            return Ok(ImportState {
                source: import.source,
                base: import.base,
                done: ByteSize::bytes(import.done),
                resumed: true,
                session,
            });
        }
        if volumes.any(|volume| volume.id == kept) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "it was imported already",
            ));
        }
        let fits = match request.base {
            None => self.contents.get(&volume.id).is_none_or(Content::is_empty),
            Some(base) => {
                let wanted = [base, imported_id(volume.id, base)];
                let mut bases = self.volumes.values().filter(|v| wanted.contains(&v.id));
                bases.any(|snapshot| self.unchanged_since(&volume, snapshot))
            }
        };
        if !fits && !request.force {
            return Err(Error::refused("it is not at the base"));
        }
        if let (Some(size), Some(volume)) = (request.size, self.volumes.get_mut(name)) {
            volume.size = size;
        }
        let import = Unfinished {
            source: request.source,
            base: request.base,
            done: 0,
            session,
        };
        self.imports.insert(request.id, import);
        Ok(ImportState {
            source: request.source,
            base: request.base,
            done: ByteSize::default(),
            resumed: false,
            session,
        })
    }

    fn checkpoint(&mut self, request: &CheckpointImport) -> Result<ImportState> {
        let import = self.imports.get_mut(&request.id);
        let import = import.ok_or_else(|| Error::refused("no import"))?;
        import.done = request.done.get();
        Ok(ImportState {
            source: import.source,
            base: import.base,
            done: request.done,
            resumed: true,
            session: import.session,
        })
    }

    fn finish(&mut self, name: &ResourceName, request: FinishImport) -> Result<Imported> {
        let volume = self.resource(name, request.id)?;
        let import = self.imports.get(&request.id);
        let source = import.ok_or_else(|| Error::refused("no import"))?.source;
        if let Some(snapshot) = &request.snapshot {
            let id = imported_id(volume.id, source);
            self.keep(name, snapshot.clone(), Some(id))?;
        }
        self.imports.remove(&request.id);
        Ok(Imported {
            volume,
            snapshot: request.snapshot,
        })
    }
}

impl Transfer for FakeControl {
    fn changes(&self, name: ResourceName, query: ChangesQuery) -> Answer<'_, ChangePage> {
        self.answer(|c| c.changes(&name, &query))
    }

    fn read_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, Bytes> {
        let read = self.with(|c| {
            c.resource(&name, range.id)?;
            Ok(c.read(range.id, range.offset, range.length))
        });
        Box::pin(ready(read.map(Bytes::from)))
    }

    fn write_data(&self, name: ResourceName, range: DataRange, data: Bytes) -> Answer<'_, ()> {
        self.answer(|c| {
            c.resource(&name, range.id)?;
            c.writing(&range)?;
            c.write(range.id, range.offset, &data);
            Ok(())
        })
    }

    fn zero_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, ()> {
        self.answer(|c| {
            c.resource(&name, range.id)?;
            c.writing(&range)?;
            let blocks = range.offset / BLOCK..(range.offset + range.length) / BLOCK;
            let content = c.contents.entry(range.id).or_default();
            content.retain(|n, _| !blocks.contains(n));
            Ok(())
        })
    }

    fn begin_import(&self, name: ResourceName, request: BeginImport) -> Answer<'_, ImportState> {
        self.answer(|c| c.begin_import(&name, &request))
    }

    fn checkpoint_import(
        &self,
        _name: ResourceName,
        request: CheckpointImport,
    ) -> Answer<'_, ImportState> {
        self.answer(|c| c.checkpoint(&request))
    }

    fn finish_import(&self, name: ResourceName, request: FinishImport) -> Answer<'_, Imported> {
        self.answer(|c| c.finish(&name, request))
    }
}
