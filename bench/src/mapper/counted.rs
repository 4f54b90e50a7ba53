//! A pool around a pool that counts the bytes which are written to it.

use atoll_backends::{
    BlockRange, Capacity, Generation, ListCursor, ListPage, ObjectId, ObjectStat, ObjectStore,
    Pool, Properties, ReadHint, Record, Result, WriteMode, ZeroMode,
};
use atoll_reactor::{LocalFuture, SharedBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes written, of all pools that count here.
#[derive(Clone, Default)]
pub struct Written(Arc<AtomicU64>);

impl Written {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub struct CountedPool {
    pub below: Arc<dyn Pool>,
    pub written: Written,
}

impl Pool for CountedPool {
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>> {
        LocalFuture::new(async move {
            let store = CountedStore {
                below: self.below.attach().await?,
                written: self.written.clone(),
            };
            Ok(Rc::new(store) as Rc<dyn ObjectStore>)
        })
    }
}

struct CountedStore {
    below: Rc<dyn ObjectStore>,
    written: Written,
}

impl ObjectStore for CountedStore {
    fn properties(&self) -> &Properties {
        self.below.properties()
    }

    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>> {
        self.below.read(id, range, hint)
    }

    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        self.written.add(data.len());
        self.below.write(id, first, data, mode)
    }

    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        self.written.add(range.byte_len());
        self.below.write_zeroes(id, range, zero, mode)
    }

    fn sync<'a>(&'a self, ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>> {
        self.below.sync(ids)
    }

    fn sync_all(&self) -> LocalFuture<'_, Result<()>> {
        self.below.sync_all()
    }

    fn delete(&self, id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>> {
        self.below.delete(id)
    }

    fn records_committed(&self, records: &[Record]) {
        self.below.records_committed(records);
    }

    fn stat(&self, id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>> {
        self.below.stat(id)
    }

    fn list(&self, from: Option<ListCursor>, limit: usize) -> LocalFuture<'_, Result<ListPage>> {
        self.below.list(from, limit)
    }

    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        self.written.add(from_range.byte_len());
        self.below.copy(from, from_range, to, to_first, mode)
    }

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>> {
        self.below.capacity()
    }

    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>> {
        self.below.reserved_generations()
    }

    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>> {
        self.below.reserve_generations(below)
    }
}
