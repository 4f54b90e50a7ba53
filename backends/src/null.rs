//! A store that keeps nothing: writes are accepted, reads give a constant byte, every object
//! exists. For measuring what is above it. Only the generation mark is kept, in memory.

use crate::check;
use crate::{
    BLOCK_SIZE, BlockRange, Capacity, Generation, ListCursor, ListPage, ObjectId, ObjectSize,
    ObjectStat, ObjectStore, Pool, Properties, ReadHint, Record, Result, WriteMode, ZeroMode,
};
use atoll_reactor::{Buf, LocalFuture, SharedBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug)]
pub struct NullOptions {
    pub object_size: ObjectSize,
    /// Bytes that it says it has room for; they never get fewer.
    pub capacity: u64,
    /// What every byte reads as. A pool whose pattern is not 0 reads it after zeroing too.
    pub pattern: u8,
}

impl Default for NullOptions {
    fn default() -> NullOptions {
        NullOptions {
            object_size: ObjectSize::DEFAULT,
            capacity: 1 << 50,
            pattern: 0,
        }
    }
}

/// A pool that keeps nothing. Clones are the same pool.
#[derive(Clone)]
pub struct NullPool {
    options: NullOptions,
    mark: Arc<AtomicU64>,
}

impl NullPool {
    pub fn new(options: NullOptions) -> NullPool {
        NullPool {
            options,
            mark: Arc::new(AtomicU64::new(0)),
        }
    }
}

impl Pool for NullPool {
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>> {
        let mut pattern = Buf::alloc(self.options.object_size.bytes() as usize);
        pattern.fill(self.options.pattern);
        let store: Rc<dyn ObjectStore> = Rc::new(NullStore {
            properties: Properties {
                object_size: self.options.object_size,
                atomic_unit: BLOCK_SIZE,
                zeroes_new: self.options.pattern == 0,
                write_once: false,
                cacheable: false,
                kind: "null",
            },
            capacity: self.options.capacity,
            pattern: pattern.freeze(),
            mark: self.mark.clone(),
        });
        LocalFuture::ready(Ok(store))
    }
}

struct NullStore {
    properties: Properties,
    capacity: u64,
    /// A whole object of it.
    pattern: SharedBuf,
    mark: Arc<AtomicU64>,
}

impl NullStore {
    fn size(&self) -> ObjectSize {
        self.properties.object_size
    }
}

impl ObjectStore for NullStore {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        _hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>> {
        let checked = check::range("read", id, self.size(), range);
        LocalFuture::ready(checked.map(|()| self.pattern.slice(0..range.byte_len())))
    }

    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        _mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let range = check::written("write", id, self.size(), first, data.len());
        LocalFuture::ready(range.map(|_| ()))
    }

    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        _zero: ZeroMode,
        _mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        LocalFuture::ready(check::range("write_zeroes", id, self.size(), range))
    }

    fn sync<'a>(&'a self, _ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>> {
        LocalFuture::ready(Ok(Vec::new()))
    }

    fn sync_all(&self) -> LocalFuture<'_, Result<()>> {
        LocalFuture::ready(Ok(()))
    }

    fn delete(&self, _id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>> {
        LocalFuture::ready(Ok(Vec::new()))
    }

    fn stat(&self, _id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>> {
        LocalFuture::ready(Ok(ObjectStat { allocated: 0 }))
    }

    fn list(&self, _from: Option<ListCursor>, _limit: usize) -> LocalFuture<'_, Result<ListPage>> {
        LocalFuture::ready(Ok(ListPage::default()))
    }

    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        _mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let checked = check::range("copy", from, self.size(), from_range).and_then(|()| {
            check::written("copy", to, self.size(), to_first, from_range.byte_len())
        });
        LocalFuture::ready(checked.map(|_| ()))
    }

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>> {
        LocalFuture::ready(Ok(Capacity {
            total: self.capacity,
            available: self.capacity,
        }))
    }

    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>> {
        let mark = Generation::new(self.mark.load(Ordering::Acquire));
        LocalFuture::ready(Ok(mark.expect("only marks of generations are stored")))
    }

    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>> {
        self.mark.fetch_max(below.get(), Ordering::AcqRel);
        LocalFuture::ready(Ok(()))
    }
}
