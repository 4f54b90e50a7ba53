//! Objects in memory, sharded over the cores: an object's home core works on it, calls from other
//! cores go there. For measurements and tests; a `MemoryPool` may outlive the runtime that used it.
//! Not durable: its content is gone with the process.

use crate::check;
use crate::finish::to_the_end;
use crate::slot::Slot;
use crate::{
    BLOCK_SIZE, BlockRange, Capacity, Error, ErrorKind, Generation, ListCursor, ListPage, ObjectId,
    ObjectIndex, ObjectSize, ObjectStat, ObjectStore, Pool, Properties, ReadHint, Record, Result,
    WriteMode, ZeroMode,
};
use atoll_reactor::RemoteError;
use atoll_reactor::{Buf, CoreHandle, LocalFuture, SharedBuf, core_id, cores, yield_now};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts that the objects are spread over. More than cores, so that any number of cores gets an
/// even share.
const SHARDS: usize = 64;
/// Bytes that an object counts for besides its blocks, so that empty objects are not free.
const OBJECT_COST: u64 = 4096;
/// Length of a list cursor: the shard, and the last object seen.
const CURSOR_LEN: usize = 1 + 16;

const _: () = assert!(SHARDS <= 256);

#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    pub object_size: ObjectSize,
    /// Bytes of blocks and objects that it takes before it answers `NoSpace`.
    pub capacity: u64,
    /// False: blocks that were never written read as garbage, as on raw slots. See [`garbage`].
    pub zeroes_new: bool,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions {
            object_size: ObjectSize::DEFAULT,
            capacity: 1 << 30,
            zeroes_new: true,
        }
    }
}

/// What an unwritten block of an object reads as in a pool that does not zero new objects:
/// made of the object's name and the block's number, and never zero.
pub fn garbage(id: ObjectId, block: u32, bytes: &mut [u8]) {
    let seed = id.generation.get().rotate_left(40) ^ (id.index.get() << 16) ^ u64::from(block);
    for (place, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = (seed ^ place as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
            | 0x8080_8080_8080_8080;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

#[derive(Clone)]
enum Block {
    Unwritten,
    Zeros,
    Data(Box<[u8]>),
}

struct Object {
    blocks: Vec<Block>,
    /// Blocks that are `Data`.
    stored: u64,
}

/// One shard's objects.
#[derive(Default)]
struct Shard {
    objects: BTreeMap<ObjectId, Object>,
}

struct Inner {
    properties: Properties,
    capacity: u64,
    used: AtomicU64,
    mark: AtomicU64,
    shards: Vec<Slot<Shard>>,
}

/// A pool in memory. Clones are the same pool.
#[derive(Clone)]
pub struct MemoryPool {
    inner: Arc<Inner>,
}

impl MemoryPool {
    pub fn new(options: MemoryOptions) -> MemoryPool {
        let properties = Properties {
            object_size: options.object_size,
            atomic_unit: BLOCK_SIZE,
            zeroes_new: options.zeroes_new,
            write_once: false,
            cacheable: false,
            kind: "memory",
        };
        MemoryPool {
            inner: Arc::new(Inner {
                properties,
                capacity: options.capacity,
                used: AtomicU64::new(0),
                mark: AtomicU64::new(0),
                shards: (0..SHARDS).map(|_| Slot::new(Shard::default())).collect(),
            }),
        }
    }
}

impl Pool for MemoryPool {
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>> {
        let store: Rc<dyn ObjectStore> = Rc::new(MemoryStore {
            inner: self.inner.clone(),
            cores: cores().into(),
        });
        LocalFuture::ready(Ok(store))
    }
}

/// One core's access.
struct MemoryStore {
    inner: Arc<Inner>,
    cores: Rc<[CoreHandle]>,
}

fn shard_of(id: ObjectId) -> usize {
    let mixed =
        (id.generation.get() ^ id.index.get().rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % SHARDS
}

impl Inner {
    fn charge(&self, bytes: u64) -> Result<()> {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes)
                    .filter(|used| *used <= self.capacity)
            });
        match taken {
            Ok(_) => Ok(()),
            Err(used) => Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "the memory pool is full: {used} of {} bytes used, {bytes} more asked for",
                    self.capacity
                ),
            )),
        }
    }

    fn discharge(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// The object, made where the mode allows.
    fn object<'s>(
        &self,
        shard: &'s mut Shard,
        op: &str,
        id: ObjectId,
        mode: WriteMode,
    ) -> Result<&'s mut Object> {
        match shard.objects.entry(id) {
            Entry::Occupied(object) => Ok(object.into_mut()),
            Entry::Vacant(_) if mode == WriteMode::Existing => Err(check::missing(op, id)),
            Entry::Vacant(place) => {
                self.charge(OBJECT_COST)?;
                let blocks = vec![Block::Unwritten; self.properties.object_size.blocks() as usize];
                Ok(place.insert(Object { blocks, stored: 0 }))
            }
        }
    }

    fn read(&self, shard: &Shard, id: ObjectId, range: BlockRange) -> Result<SharedBuf> {
        let object = shard
            .objects
            .get(&id)
            .ok_or_else(|| check::missing("read", id))?;
        let mut buf = Buf::alloc(range.byte_len());
        let blocks = &object.blocks[range.first as usize..range.end() as usize];
        let places = buf.chunks_mut(BLOCK_SIZE as usize);
        for ((number, block), place) in (range.first..).zip(blocks).zip(places) {
            match block {
                Block::Data(data) => place.copy_from_slice(data),
                Block::Unwritten if !self.properties.zeroes_new => garbage(id, number, place),
                Block::Zeros | Block::Unwritten => place.fill(0),
            }
        }
        Ok(buf.freeze())
    }

    fn write(
        &self,
        shard: &mut Shard,
        id: ObjectId,
        range: BlockRange,
        data: &[u8],
        mode: WriteMode,
    ) -> Result<()> {
        let object = self.object(shard, "write", id, mode)?;
        let blocks = &mut object.blocks[range.first as usize..range.end() as usize];
        let new = blocks
            .iter()
            .filter(|block| !matches!(block, Block::Data(_)))
            .count() as u64;
        self.charge(new * u64::from(BLOCK_SIZE))?;
        object.stored += new;
        for (block, bytes) in blocks.iter_mut().zip(data.chunks(BLOCK_SIZE as usize)) {
            match block {
                Block::Data(old) => old.copy_from_slice(bytes),
                _ => *block = Block::Data(bytes.into()),
            }
        }
        Ok(())
    }

    fn punch(
        &self,
        shard: &mut Shard,
        id: ObjectId,
        range: BlockRange,
        mode: WriteMode,
    ) -> Result<()> {
        let object = self.object(shard, "write_zeroes", id, mode)?;
        let mut freed = 0;
        for block in &mut object.blocks[range.first as usize..range.end() as usize] {
            freed += u64::from(matches!(block, Block::Data(_)));
            *block = Block::Zeros;
        }
        object.stored -= freed;
        self.discharge(freed * u64::from(BLOCK_SIZE));
        Ok(())
    }

    fn delete(&self, shard: &mut Shard, id: ObjectId) {
        if let Some(object) = shard.objects.remove(&id) {
            self.discharge(OBJECT_COST + object.stored * u64::from(BLOCK_SIZE));
        }
    }
}

/// The shard's work, done at its home core.
async fn at_shard<R: Send + 'static>(
    inner: Arc<Inner>,
    cores: Rc<[CoreHandle]>,
    shard: usize,
    work: impl Fn(&Inner, &mut Shard) -> R + Clone + Send + 'static,
) -> Result<R> {
    let home = &cores[shard % cores.len()];
    if home.id() == core_id() {
        return Ok(inner.shards[shard]
            .with(|content| work(&inner, content))
            .await);
    }
    loop {
        let (there, work) = (inner.clone(), work.clone());
        let made = home
            .call(move || async move {
                there.shards[shard]
                    .with(|content| work(&there, content))
                    .await
            })
            .await;
        match made {
            Ok(answer) => return Ok(answer),
            Err(RemoteError::Full) => yield_now().await,
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::Offline,
                    format!("memory pool: core {}: {error}", home.id()),
                ));
            }
        }
    }
}

impl MemoryStore {
    fn at_object<'a, R: Send + 'static>(
        &self,
        id: ObjectId,
        work: impl Fn(&Inner, &mut Shard) -> Result<R> + Clone + Send + 'static,
    ) -> LocalFuture<'a, Result<R>> {
        let (inner, cores) = (self.inner.clone(), self.cores.clone());
        to_the_end(async move { at_shard(inner, cores, shard_of(id), work).await? })
    }

    fn size(&self) -> ObjectSize {
        self.inner.properties.object_size
    }
}

fn encode_cursor(shard: usize, last: Option<ObjectId>) -> ListCursor {
    let mut cursor = vec![u8::try_from(shard).expect("at most 256 shards")];
    if let Some(id) = last {
        cursor.extend_from_slice(&id.generation.get().to_be_bytes());
        cursor.extend_from_slice(&id.index.get().to_be_bytes());
    }
    cursor
}

fn decode_cursor(cursor: &[u8]) -> Result<(usize, Option<ObjectId>)> {
    let bad = || Error::new(ErrorKind::Invalid, "list: a cursor of another store");
    let shard = usize::from(*cursor.first().ok_or_else(bad)?);
    if cursor.len() == 1 && shard < SHARDS {
        return Ok((shard, None));
    }
    if cursor.len() != CURSOR_LEN || shard >= SHARDS {
        return Err(bad());
    }
    let word = |from: usize| {
        let bytes: [u8; 8] = cursor[from..from + 8].try_into().map_err(|_| bad())?;
        Ok::<u64, Error>(u64::from_be_bytes(bytes))
    };
    let id = ObjectId::new(
        Generation::new(word(1)?).ok_or_else(bad)?,
        ObjectIndex::new(word(9)?).ok_or_else(bad)?,
    );
    Ok((shard, Some(id)))
}

impl ObjectStore for MemoryStore {
    fn properties(&self) -> &Properties {
        &self.inner.properties
    }

    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        _hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>> {
        if let Err(error) = check::range("read", id, self.size(), range) {
            return LocalFuture::ready(Err(error));
        }
        self.at_object(id, move |inner, shard| inner.read(shard, id, range))
    }

    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let range = match check::written("write", id, self.size(), first, data.len()) {
            Ok(range) => range,
            Err(error) => return LocalFuture::ready(Err(error)),
        };
        self.at_object(id, move |inner, shard| {
            inner.write(shard, id, range, &data, mode)
        })
    }

    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        if let Err(error) = check::range("write_zeroes", id, self.size(), range) {
            return LocalFuture::ready(Err(error));
        }
        self.at_object(id, move |inner, shard| match zero {
            ZeroMode::Punch => inner.punch(shard, id, range, mode),
            ZeroMode::Keep => {
                let zeros = SharedBuf::zeros(range.byte_len());
                inner.write(shard, id, range, &zeros, mode)
            }
        })
    }

    fn sync<'a>(&'a self, _ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>> {
        LocalFuture::ready(Ok(Vec::new()))
    }

    fn sync_all(&self) -> LocalFuture<'_, Result<()>> {
        LocalFuture::ready(Ok(()))
    }

    fn delete(&self, id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>> {
        self.at_object(id, move |inner, shard| {
            inner.delete(shard, id);
            Ok(Vec::new())
        })
    }

    fn stat(&self, id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>> {
        self.at_object(id, move |_, shard| {
            let object = shard
                .objects
                .get(&id)
                .ok_or_else(|| check::missing("stat", id))?;
            Ok(ObjectStat {
                allocated: object.stored * u64::from(BLOCK_SIZE),
            })
        })
    }

    fn list(&self, from: Option<ListCursor>, limit: usize) -> LocalFuture<'_, Result<ListPage>> {
        LocalFuture::new(async move {
            let (mut shard, mut last) = match &from {
                Some(cursor) => decode_cursor(cursor)?,
                None => (0, None),
            };
            let mut objects = Vec::new();
            while shard < SHARDS && objects.len() < limit {
                let room = limit - objects.len();
                let after = last.map_or(Bound::Unbounded, Bound::Excluded);
                let (inner, cores) = (self.inner.clone(), self.cores.clone());
                let found: Vec<ObjectId> = at_shard(inner, cores, shard, move |_, content| {
                    let rest = content.objects.range((after, Bound::Unbounded));
                    rest.map(|(id, _)| *id).take(room).collect()
                })
                .await?;
                last = found.last().copied();
                if found.len() < room {
                    shard += 1;
                    last = None;
                }
                objects.extend(found);
            }
            let next = (shard < SHARDS).then(|| encode_cursor(shard, last));
            Ok(ListPage { objects, next })
        })
    }

    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        LocalFuture::new(async move {
            check::written("copy", to, self.size(), to_first, from_range.byte_len())?;
            let data = self.read(from, from_range, ReadHint::default()).await?;
            self.write(to, to_first, data, mode).await
        })
    }

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>> {
        let used = self.inner.used.load(Ordering::Acquire);
        LocalFuture::ready(Ok(Capacity {
            total: self.inner.capacity,
            available: self.inner.capacity.saturating_sub(used),
        }))
    }

    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>> {
        let mark = Generation::new(self.inner.mark.load(Ordering::Acquire));
        LocalFuture::ready(Ok(mark.expect("only marks of generations are stored")))
    }

    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>> {
        self.inner.mark.fetch_max(below.get(), Ordering::AcqRel);
        LocalFuture::ready(Ok(()))
    }
}
