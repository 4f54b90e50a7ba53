//! Aligned buffers: `Buf` is owned and writable, `SharedBuf` a counted read-only slice of one.
//! They may cross cores; a pooled block always goes home to its own core's pool.
//! Registration with the ring is the driver's business: it asks the pool for its region.

use crate::core::{CoreId, try_with_core};
use crossbeam::queue::ArrayQueue;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{RefCell, UnsafeCell};
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

/// Alignment of every buffer in bytes: what `O_DIRECT` asks for at most.
pub const ALIGNMENT: usize = 4096;
/// Sizes of pooled blocks in bytes, ascending.
pub const CLASS_SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Parts of the pool's memory, in 32nds, that each class gets.
const CLASS_SHARES: [usize; 4] = [4, 10, 6, 12];
const _: () = assert!(CLASS_SHARES[0] + CLASS_SHARES[1] + CLASS_SHARES[2] + CLASS_SHARES[3] == 32);

enum Origin {
    /// A block of a core's pool.
    Pool {
        shared: Arc<PoolShared>,
        index: u32,
    },
    /// Its own allocation.
    Heap(Layout),
    /// Bytes of a static or a `Vec`.
    Vec(#[allow(dead_code, reason = "keeps the bytes alive")] Vec<u8>),
    Static,
}

struct Block {
    refs: AtomicU32,
    data: NonNull<u8>,
    capacity: usize,
    origin: Origin,
}

// SAFETY: a block's bytes are written through a unique `Buf` only, read through `SharedBuf`s
// otherwise; its count is atomic; `Origin` is Send and Sync.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

/// The returns of blocks dropped on other threads, and the region itself.
struct PoolShared {
    core: CoreId,
    region: Region,
    headers: Headers,
    returned: ArrayQueue<u32>,
    free: AtomicUsize,
}

/// Where the `Block`s of the pool are while they are out, one place for each.
struct Headers(Box<[UnsafeCell<MaybeUninit<Block>>]>);

// SAFETY: a place is written by the pool's core while its block is in the free list, and read by
// whoever drops the last count; the return through the list orders the two.
unsafe impl Send for Headers {}
// SAFETY: as above.
unsafe impl Sync for Headers {}

struct Region {
    start: NonNull<u8>,
    layout: Option<Layout>,
}

// SAFETY: the region is plain memory; access is governed by the blocks cut from it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: allocated with this layout in `Pool::new`; no block refers to it any more.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

struct BlockPlace {
    class: usize,
    offset: usize,
}

/// One core's pool of buffers.
pub(crate) struct Pool {
    shared: Arc<PoolShared>,
    places: Vec<BlockPlace>,
    free: RefCell<[Vec<u32>; CLASS_SIZES.len()]>,
}

impl Pool {
    /// A pool of about `bytes`; 0 makes every buffer a heap allocation.
    pub(crate) fn new(core: CoreId, bytes: usize) -> Pool {
        let mut places = Vec::new();
        let mut free: [Vec<u32>; CLASS_SIZES.len()] = Default::default();
        let mut offset = 0;
        for class in (0..CLASS_SIZES.len()).rev() {
            for _ in 0..bytes / 32 * CLASS_SHARES[class] / CLASS_SIZES[class] {
                free[class].push(u32::try_from(places.len()).expect("fewer than 2^32 blocks"));
                places.push(BlockPlace { class, offset });
                offset += CLASS_SIZES[class];
            }
        }
        let region = match Layout::from_size_align(offset, ALIGNMENT) {
            Ok(layout) if offset > 0 => {
                // SAFETY: the size is not zero.
                let start = unsafe { alloc_zeroed(layout) };
                let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
                Region {
                    start,
                    layout: Some(layout),
                }
            }
            _ => Region {
                start: NonNull::dangling(),
                layout: None,
            },
        };
        let shared = PoolShared {
            core,
            region,
            headers: Headers(
                places
                    .iter()
                    .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
                    .collect(),
            ),
            returned: ArrayQueue::new(places.len().max(1)),
            free: AtomicUsize::new(places.len()),
        };
        Pool {
            shared: Arc::new(shared),
            places,
            free: RefCell::new(free),
        }
    }

    /// Start and length of the pool's memory, for registration with a ring.
    pub(crate) fn region(&self) -> (*mut u8, usize) {
        let region = &self.shared.region;
        (region.start.as_ptr(), region.layout.map_or(0, |l| l.size()))
    }

    /// Where in the region an address lies that belongs to the pool's own block.
    fn offset_of(&self, block: &Block, address: *const u8) -> Option<usize> {
        let Origin::Pool { shared, .. } = &block.origin else {
            return None;
        };
        Arc::ptr_eq(shared, &self.shared)
            .then(|| address as usize - self.shared.region.start.as_ptr() as usize)
    }

    fn take_returned(&self) {
        let mut free = self.free.borrow_mut();
        while let Some(index) = self.shared.returned.pop() {
            free[self.places[index as usize].class].push(index);
        }
    }

    fn take(&self, len: usize) -> Option<Buf> {
        let first = CLASS_SIZES.iter().position(|size| *size >= len)?;
        self.take_returned();
        // The next class up serves when its own is used up; a 4 KiB request never takes a 1 MiB block.
        let index = {
            let mut free = self.free.borrow_mut();
            let last = (first + 1).min(CLASS_SIZES.len() - 1);
            (first..=last).find_map(|class| free[class].pop())?
        };
        let place = &self.places[index as usize];
        self.shared.free.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the offset lies inside of the region.
        let data = unsafe { self.shared.region.start.add(place.offset) };
        let origin = Origin::Pool {
            shared: self.shared.clone(),
            index,
        };
        let header = NonNull::from(&self.shared.headers.0[index as usize]).cast::<Block>();
        let block = Block {
            refs: AtomicU32::new(1),
            data,
            capacity: CLASS_SIZES[place.class],
            origin,
        };
        // SAFETY: the block was free, so nobody refers to its header; the pool outlives it by the
        // count in its origin.
        unsafe { header.write(block) };
        Some(Buf { block: header, len })
    }

    fn give_back(&self, index: u32) {
        self.free.borrow_mut()[self.places[index as usize].class].push(index);
    }
}

/// An owned, writable buffer, aligned to [`ALIGNMENT`].
pub struct Buf {
    block: NonNull<Block>,
    len: usize,
}

// SAFETY: unique owner of its block; see Block.
unsafe impl Send for Buf {}
// SAFETY: shared references only read.
unsafe impl Sync for Buf {}

impl Buf {
    fn from_block(data: NonNull<u8>, capacity: usize, len: usize, origin: Origin) -> Buf {
        let block = Block {
            refs: AtomicU32::new(1),
            data,
            capacity,
            origin,
        };
        let place = crate::alloc::acquire(Layout::new::<Block>()).cast::<Block>();
        // SAFETY: fresh memory of Block's layout.
        unsafe { place.write(block) };
        Buf { block: place, len }
    }

    /// A buffer of `len` bytes from this core's pool, from the heap where the pool has none.
    /// Its bytes are whatever they were before, never uninitialised.
    pub fn alloc(len: usize) -> Buf {
        Buf::try_pooled(len).unwrap_or_else(|| Buf::on_heap(len))
    }

    /// A buffer of `len` bytes from this core's pool, `None` when it has none left.
    pub fn try_pooled(len: usize) -> Option<Buf> {
        try_with_core(|core| core.pool.take(len)).flatten()
    }

    fn on_heap(len: usize) -> Buf {
        let capacity = len.max(1).next_multiple_of(ALIGNMENT);
        let layout = Layout::from_size_align(capacity, ALIGNMENT).expect("a buffer's layout");
        // SAFETY: the size is not zero.
        let data = unsafe { alloc_zeroed(layout) };
        let data = NonNull::new(data).unwrap_or_else(|| handle_alloc_error(layout));
        Buf::from_block(data, capacity, len, Origin::Heap(layout))
    }

    pub fn zeroed(len: usize) -> Buf {
        let mut buf = Buf::alloc(len);
        buf.fill(0);
        buf
    }

    pub fn copy_of(bytes: &[u8]) -> Buf {
        let mut buf = Buf::alloc(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    fn block(&self) -> &Block {
        // SAFETY: we hold a count.
        unsafe { self.block.as_ref() }
    }

    /// Where in the pool's region it lies, if it is of that pool.
    pub(crate) fn offset_in(&self, pool: &Pool) -> Option<usize> {
        pool.offset_of(self.block(), self.as_ptr())
    }

    /// Bytes it could hold.
    pub fn capacity(&self) -> usize {
        self.block().capacity
    }

    /// Changes the length within the capacity; bytes beyond the old length are stale, not zero.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "a buffer of {} bytes set to {len}",
            self.capacity()
        );
        self.len = len;
    }

    /// Makes it read-only and shareable.
    pub fn freeze(self) -> SharedBuf {
        let shared = SharedBuf {
            block: self.block,
            start: 0,
            len: self.len,
        };
        std::mem::forget(self);
        shared
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block has at least `len` initialised bytes, and we are the only owner.
        unsafe { std::slice::from_raw_parts(self.block().data.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref; unique by &mut and by ownership.
        unsafe { std::slice::from_raw_parts_mut(self.block().data.as_ptr(), self.len) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        // SAFETY: our count.
        unsafe { drop_count(self.block) };
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// A read-only, counted slice of a buffer. Clones and slices are cheap.
pub struct SharedBuf {
    block: NonNull<Block>,
    start: usize,
    len: usize,
}

// SAFETY: bytes are only read through it; the count is atomic.
unsafe impl Send for SharedBuf {}
// SAFETY: as above.
unsafe impl Sync for SharedBuf {}

/// Longest run of zeros that [`SharedBuf::zeros`] gives without allocating.
const ZEROS_LEN: usize = 1 << 20;

#[repr(align(4096))]
struct Zeros([u8; ZEROS_LEN]);
static ZEROS: Zeros = Zeros([0; ZEROS_LEN]);

impl SharedBuf {
    pub fn empty() -> SharedBuf {
        SharedBuf::zeros(0)
    }

    /// `len` zeros; up to 1 MiB they cost no memory.
    pub fn zeros(len: usize) -> SharedBuf {
        if len > ZEROS_LEN {
            return Buf::zeroed(len).freeze();
        }
        let data = NonNull::from(&ZEROS.0).cast();
        Buf::from_block(data, ZEROS_LEN, len, Origin::Static).freeze()
    }

    /// Takes the bytes over. Not aligned.
    pub fn from_vec(mut bytes: Vec<u8>) -> SharedBuf {
        let len = bytes.len();
        let data = NonNull::new(bytes.as_mut_ptr()).expect("a Vec's pointer is never null");
        Buf::from_block(data, len, len, Origin::Vec(bytes)).freeze()
    }

    pub fn copy_of(bytes: &[u8]) -> SharedBuf {
        Buf::copy_of(bytes).freeze()
    }

    /// A part of it. Panics if the range is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> SharedBuf {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "slice {range:?} of {}",
            self.len
        );
        let mut part = self.clone();
        part.start += range.start;
        part.len = range.end - range.start;
        part
    }

    /// True if the address is aligned for `O_DIRECT`.
    pub fn is_aligned(&self) -> bool {
        (self.as_ptr() as usize).is_multiple_of(ALIGNMENT)
    }

    fn block(&self) -> &Block {
        // SAFETY: we hold a count.
        unsafe { self.block.as_ref() }
    }

    /// Where in the pool's region it lies, if it is of that pool.
    pub(crate) fn offset_in(&self, pool: &Pool) -> Option<usize> {
        pool.offset_of(self.block(), self.as_ptr())
    }

    /// The writable buffer again, if nobody else shares it and it is whole.
    pub fn try_into_buf(self) -> Result<Buf, SharedBuf> {
        let block = self.block();
        let writable = matches!(block.origin, Origin::Pool { .. } | Origin::Heap(_));
        if !writable || self.start != 0 || block.refs.load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        let buf = Buf {
            block: self.block,
            len: self.len,
        };
        std::mem::forget(self);
        Ok(buf)
    }
}

impl Clone for SharedBuf {
    fn clone(&self) -> SharedBuf {
        self.block().refs.fetch_add(1, Ordering::Relaxed);
        SharedBuf {
            block: self.block,
            start: self.start,
            len: self.len,
        }
    }
}

impl Deref for SharedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: start + len lie inside of the block's initialised bytes, which nobody writes
        // while SharedBufs exist.
        unsafe { std::slice::from_raw_parts(self.block().data.as_ptr().add(self.start), self.len) }
    }
}

impl AsRef<[u8]> for SharedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for SharedBuf {
    fn drop(&mut self) {
        // SAFETY: our count.
        unsafe { drop_count(self.block) };
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuf({} bytes)", self.len)
    }
}

impl From<Vec<u8>> for SharedBuf {
    fn from(bytes: Vec<u8>) -> SharedBuf {
        SharedBuf::from_vec(bytes)
    }
}

/// # Safety
/// The caller owns one count of the block and forgets it.
unsafe fn drop_count(place: NonNull<Block>) {
    // SAFETY: the count keeps the block alive.
    if unsafe { place.as_ref() }
        .refs
        .fetch_sub(1, Ordering::Release)
        != 1
    {
        return;
    }
    fence(Ordering::Acquire);
    // SAFETY: last count: nobody else can reach the block; it is read out once, its memory freed.
    let block = unsafe {
        let block = place.read();
        // A pool keeps the places of its blocks itself.
        if !matches!(block.origin, Origin::Pool { .. }) {
            crate::alloc::release(place.cast(), Layout::new::<Block>());
        }
        block
    };
    match block.origin {
        Origin::Heap(layout) => {
            // SAFETY: allocated with this layout in `on_heap`.
            unsafe { dealloc(block.data.as_ptr(), layout) };
        }
        Origin::Vec(_) | Origin::Static => {}
        Origin::Pool { shared, index } => {
            shared.free.fetch_add(1, Ordering::Relaxed);
            let home = try_with_core(|core| {
                let home = Arc::ptr_eq(&core.pool.shared, &shared);
                if home {
                    core.pool.give_back(index);
                }
                home
            });
            if home != Some(true) {
                let kept = shared.returned.push(index);
                debug_assert!(
                    kept.is_ok(),
                    "core {}: a block came back twice",
                    shared.core
                );
            }
        }
    }
}

/// Blocks of this core's pool that are free now. Panics outside a reactor.
pub fn pool_free_blocks() -> usize {
    crate::core::with_core(|core| core.pool.shared.free.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
