//! Where an import goes: writes what comes into a volume, several requests at a time, and nothing
//! that is zero already.

use crate::admin::client::Client;
use crate::admin::lanes::{Lanes, Pending, Work};
use crate::api::{
    BeginImport, CheckpointImport, DATA_UNIT, DataRange, FinishImport, ImportState, Imported,
    MAX_DATA, MAX_ZEROED, ResizeVolume, Volume,
};
use crate::error::Result;
use crate::name::ResourceName;
use crate::transfer::zeros;
use crate::units::ByteSize;

/// Bytes after which what has come is made durable and remembered.
const CHECKPOINT: u64 = 1 << 30;

/// How what does not come is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// As it is: of differences.
    Kept,
    /// Zero, and it is so already: nothing was ever written to the volume.
    Empty,
    /// Zero, whatever is there.
    Cleared,
}

/// An import under way.
pub struct Importer<'a> {
    client: &'a Client,
    lanes: Lanes,
    pending: Pending,
    pub volume: Volume,
    state: ImportState,
    gaps: Gaps,
    /// End of what has come.
    at: u64,
    since_checkpoint: u64,
    /// Bytes that were written.
    pub written: u64,
}

impl<'a> Importer<'a> {
    /// Begins, or goes on.
    pub fn begin(client: &'a Client, volume: Volume, request: &BeginImport) -> Result<Self> {
        let name = &volume.name;
        let path = format!("/v1/volumes/{name}/import");
        let state: ImportState = client.post(&path, request)?.value;
        let lanes = Lanes::open(client.socket(), name)?;
        let volume = client.get(&format!("/v1/volumes/{name}"))?;
        let gaps = match (request.base, state.resumed) {
            (Some(_), _) => Gaps::Kept,
            (None, true) => Gaps::Cleared,
            (None, false) => Gaps::Empty,
        };
        Ok(Self {
            client,
            lanes,
            pending: Pending::default(),
            volume,
            state,
            gaps,
            at: 0,
            since_checkpoint: 0,
            written: 0,
        })
    }

    pub fn resumed(&self) -> bool {
        self.state.resumed
    }

    /// Content; in ascending order, whole units.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gap(offset)?;
        self.at = offset + bytes.len() as u64;
        for run in zeros::runs(bytes) {
            let start = offset + run.range.start as u64;
            match (run.zero, self.gaps) {
                (true, Gaps::Empty) => {}
                (true, _) => self.clear(start, run.range.len() as u64)?,
                (false, _) => {
                    for part in bytes[run.range.clone()].chunks(MAX_DATA as usize) {
                        let at = offset + (part.as_ptr().addr() - bytes.as_ptr().addr()) as u64;
                        self.write(at, part)?;
                    }
                }
            }
        }
        self.checkpoint_when_due()
    }

    /// A range that reads as zeros.
    pub fn zeros(&mut self, offset: u64, length: u64) -> Result<()> {
        self.gap(offset)?;
        self.at = offset + length;
        match self.gaps {
            Gaps::Empty => Ok(()),
            Gaps::Kept | Gaps::Cleared => self.clear(offset, length),
        }
    }

    /// What lies between that what came and `offset`.
    fn gap(&mut self, offset: u64) -> Result<()> {
        let length = offset - self.at;
        match self.gaps {
            Gaps::Cleared if length > 0 => self.clear(self.at, length),
            _ => Ok(()),
        }
    }

    fn range(&self, offset: u64, length: u64) -> DataRange {
        DataRange {
            id: self.volume.id,
            offset,
            length,
            session: Some(self.state.session),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        if offset + length <= self.state.done.get() {
            return Ok(());
        }
        let range = self.range(offset, length);
        self.written += length;
        self.since_checkpoint += length;
        let work = Work::Write(range, bytes.to_vec().into());
        self.pending.add(self.lanes.begin(work))
    }

    fn clear(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset + length;
        let mut at = offset.max(self.state.done.get().min(end));
        while at < end {
            let part = (end - at).min(MAX_ZEROED);
            let work = Work::Zero(self.range(at, part));
            self.pending.add(self.lanes.begin(work))?;
            at += part;
        }
        Ok(())
    }

    /// Makes room for what an image of unknown length has still to come.
    pub fn grow(&mut self, end: u64) -> Result<()> {
        let size = self.volume.size.get();
        if end <= size {
            return Ok(());
        }
        let wanted = (size * 2).max(end.next_multiple_of(DATA_UNIT));
        let most = crate::api::MAX_VOLUME_SIZE.get();
        self.resize(wanted.min(most.max(end)))
    }

    /// Gives the volume its size, once that is known.
    pub fn resize(&mut self, size: u64) -> Result<()> {
        self.pending.settle()?;
        let size = ByteSize::bytes(size);
        if size != self.volume.size {
            let path = format!("/v1/volumes/{}/resize", self.volume.name);
            self.volume = self.client.post(&path, &ResizeVolume { size })?.value;
        }
        Ok(())
    }

    fn checkpoint_when_due(&mut self) -> Result<()> {
        if self.since_checkpoint < CHECKPOINT {
            return Ok(());
        }
        self.checkpoint(self.at)
    }

    fn checkpoint(&mut self, done: u64) -> Result<()> {
        self.pending.settle()?;
        self.since_checkpoint = 0;
        // An image has no identity: whoever goes on begins from the start.
        let image = self.state.source.is_nil();
        let request = CheckpointImport {
            id: self.volume.id,
            session: self.state.session,
            done: ByteSize::bytes(if image { 0 } else { done }),
        };
        let path = format!("/v1/volumes/{}/import/checkpoint", self.volume.name);
        self.client.post::<ImportState>(&path, &request).map(drop)
    }

    /// Everything has come, up to the volume's end.
    pub fn finish(&mut self, snapshot: Option<ResourceName>) -> Result<Imported> {
        let size = self.volume.size.get();
        self.gap(size.max(self.at))?;
        self.checkpoint(size)?;
        let request = FinishImport {
            id: self.volume.id,
            session: self.state.session,
            snapshot,
        };
        let path = format!("/v1/volumes/{}/import/finish", self.volume.name);
        Ok(self.client.post(&path, &request)?.value)
    }
}
