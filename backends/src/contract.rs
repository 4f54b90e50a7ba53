//! The suite that every object store passes: one function per promise of the face. Panics with what
//! was broken. For tests of this crate and of others that wrap stores; see [`contract_tests`].

use crate::{
    BLOCK_SIZE, BlockRange, ErrorKind, Generation, ObjectId, ObjectIndex, ObjectStore, Pool,
    ReadHint, WriteMode, ZeroMode,
};
use atoll_reactor::{CoreHandle, LocalFuture, SharedBuf, cores, sleep, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const BLOCK: usize = BLOCK_SIZE as usize;
/// Pauses while an operation whose future was dropped goes on to its end.
const PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSES: u32 = 10_000;
/// Steps of the comparison with a model.
const MODEL_STEPS: u32 = 400;

/// What is put to the test: a new, empty pool.
pub struct Subject {
    pub pool: Arc<dyn Pool>,
    /// False for `null`: what needs content to be kept is not asked of it.
    pub keeps_content: bool,
    /// Bytes after which it must answer `NoSpace`, where it is small enough to be filled.
    pub limit: Option<u64>,
    /// Pulls the plug, drawn from a seed, and opens what is left. Stores that cannot be made to
    /// forget have none.
    pub power_loss: Option<PowerLoss>,
}

/// See [`Subject::power_loss`].
pub type PowerLoss = Box<dyn Fn(u64) -> LocalFuture<'static, Arc<dyn Pool>>>;

/// One promise; runs on a core of any runtime.
pub type Check = fn(Subject) -> LocalFuture<'static, ()>;

impl Subject {
    pub fn new(pool: Arc<dyn Pool>) -> Subject {
        Subject {
            pool,
            keeps_content: true,
            limit: None,
            power_loss: None,
        }
    }

    async fn store(&self) -> Rc<dyn ObjectStore> {
        attach(&self.pool).await
    }
}

/// A `#[test]` per promise; `$harness` is a `fn(Check)` that makes a subject in a runtime and runs
/// the check on it.
#[macro_export]
macro_rules! contract_tests {
    ($harness:path) => {
        $crate::contract_tests! { @each $harness:
            a_missing_object_is_not_found
            what_was_written_is_read_back_as_a_model_says
            unwritten_blocks_read_as_the_properties_say
            zeroed_blocks_read_as_zeros
            ranges_outside_of_the_object_are_invalid
            a_copy_equals_its_source
            overlapping_writes_leave_one_of_them
            a_deleted_object_is_gone
            a_list_has_every_object_once_page_by_page
            a_list_goes_on_while_objects_come_and_go
            the_generation_mark_never_falls
            every_core_sees_the_same_objects
            first_writes_from_two_cores_both_land
            buffers_need_not_be_aligned
            a_write_begun_goes_on_when_its_future_is_dropped
            a_full_pool_refuses_writes_and_goes_on
            what_was_synced_survives_a_power_loss
            sync_all_covers_what_nobody_synced
        }
    };
    (@each $harness:path: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $harness($crate::contract::$name);
            }
        )*
    };
}

fn object(generation: u64, index: u64) -> ObjectId {
    ObjectId::new(
        Generation::new(generation).expect("52 bits"),
        ObjectIndex::new(index).expect("40 bits"),
    )
}

fn filled(byte: u8, blocks: u32) -> SharedBuf {
    SharedBuf::copy_of(&vec![byte; blocks as usize * BLOCK])
}

async fn attach(pool: &Arc<dyn Pool>) -> Rc<dyn ObjectStore> {
    pool.attach().await.expect("the pool attaches")
}

async fn write(store: &Rc<dyn ObjectStore>, id: ObjectId, first: u32, data: SharedBuf) {
    let done = store.write(id, first, data, WriteMode::Create).await;
    done.unwrap_or_else(|error| panic!("write of {id}: {error}"));
}

async fn read(store: &Rc<dyn ObjectStore>, id: ObjectId, first: u32, count: u32) -> SharedBuf {
    let range = BlockRange::new(first, count);
    let data = store.read(id, range, ReadHint::default()).await;
    let data = data.unwrap_or_else(|error| panic!("read of {id}: {error}"));
    assert_eq!(data.len(), range.byte_len(), "length of a read of {id}");
    data
}

fn kind<T>(result: crate::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

async fn all_objects(store: &Rc<dyn ObjectStore>, limit: usize) -> Vec<ObjectId> {
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(from, limit).await.expect("lists");
        assert!(page.objects.len() <= limit, "a page above its limit");
        all.extend(page.objects);
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
}

/// A small generator, so that stores of any crate need no other.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed >> 33) % u64::from(end)).expect("below a u32")
    }
}

pub fn a_missing_object_is_not_found(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let (id, one) = (object(1, 1), BlockRange::new(0, 1));
        let missing = Some(ErrorKind::NotFound);
        let existing = WriteMode::Existing;
        assert_eq!(
            kind(store.read(id, one, ReadHint::default()).await),
            missing
        );
        assert_eq!(
            kind(store.write(id, 0, filled(1, 1), existing).await),
            missing
        );
        for zero in [ZeroMode::Punch, ZeroMode::Keep] {
            let zeroed = store.write_zeroes(id, one, zero, existing).await;
            assert_eq!(kind(zeroed), missing, "{zero:?}");
        }
        assert_eq!(kind(store.stat(id).await), missing);
        let copied = store.copy(id, one, object(1, 2), 0, WriteMode::Create);
        assert_eq!(kind(copied.await), missing, "copy from it");
        write(&store, object(1, 3), 0, filled(1, 1)).await;
        let copied = store.copy(object(1, 3), one, id, 0, existing).await;
        assert_eq!(kind(copied), missing, "copy to it");
        assert_eq!(kind(store.delete(id).await), None, "deleting is no error");
        assert_eq!(kind(store.sync(&[id]).await), None, "syncing is no error");
        assert_eq!(all_objects(&store, 10).await, [object(1, 3)]);
    })
}

pub fn what_was_written_is_read_back_as_a_model_says(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let blocks = store.properties().object_size.blocks();
        let mut dice = Dice(0xa7011);
        let mut model: BTreeMap<(u64, u32), u8> = BTreeMap::new();
        for step in 0..MODEL_STEPS {
            let number = u64::from(dice.below(4));
            let first = dice.below(blocks);
            let count = 1 + dice.below((blocks - first).min(20));
            let byte = u8::try_from(step % 255).expect("a byte") + 1;
            let (id, range) = (object(1, number), BlockRange::new(first, count));
            let new = match dice.below(4) {
                0 => {
                    let zero = [ZeroMode::Punch, ZeroMode::Keep][dice.below(2) as usize];
                    let zeroed = store.write_zeroes(id, range, zero, WriteMode::Create);
                    zeroed.await.expect("zeroes");
                    0
                }
                _ => {
                    write(&store, id, first, filled(byte, count)).await;
                    byte
                }
            };
            model.extend((first..first + count).map(|block| ((number, block), new)));
            let known: Vec<_> = model.iter().collect();
            let pick = dice.below(u32::try_from(known.len()).expect("few")) as usize;
            let ((number, block), byte) = known[pick];
            let found = read(&store, object(1, *number), *block, 1).await;
            assert!(
                found.iter().all(|b| b == byte),
                "step {step}: object {number} block {block} is {} instead of {byte}",
                found[0]
            );
        }
        for ((number, block), byte) in &model {
            let found = read(&store, object(1, *number), *block, 1).await;
            assert!(found.iter().all(|b| b == byte), "{number} block {block}");
        }
    })
}

pub fn unwritten_blocks_read_as_the_properties_say(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let store = subject.store().await;
        let size = store.properties().object_size;
        let last = size.blocks() - 1;
        write(&store, object(1, 1), 3, filled(7, 1)).await;
        write(&store, object(1, 2), last, filled(7, 1)).await;
        for id in [object(1, 1), object(1, 2)] {
            let whole = read(&store, id, 0, size.blocks()).await;
            if store.properties().zeroes_new {
                assert!(whole[..3 * BLOCK].iter().all(|byte| *byte == 0), "{id}");
                assert!(
                    whole[4 * BLOCK..last as usize * BLOCK]
                        .iter()
                        .all(|b| *b == 0)
                );
            }
        }
        if subject.keeps_content {
            assert!(
                read(&store, object(1, 1), 3, 1)
                    .await
                    .iter()
                    .all(|b| *b == 7)
            );
            assert!(
                read(&store, object(1, 2), last, 1)
                    .await
                    .iter()
                    .all(|b| *b == 7)
            );
        }
    })
}

pub fn zeroed_blocks_read_as_zeros(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        for (number, zero) in [(1, ZeroMode::Punch), (2, ZeroMode::Keep)] {
            let (written, new) = (object(1, number), object(2, number));
            write(&store, written, 0, filled(7, 8)).await;
            let range = BlockRange::new(2, 3);
            let zeroed = store.write_zeroes(written, range, zero, WriteMode::Existing);
            zeroed.await.expect("zeroes");
            let found = read(&store, written, 0, 8).await;
            let expected: Vec<u8> = [[7; 2].as_slice(), &[0; 3], &[7; 3]].concat();
            for (block, byte) in found.chunks(BLOCK).zip(expected) {
                assert!(block.iter().all(|b| *b == byte), "{zero:?}");
            }
            let zeroed = store.write_zeroes(new, range, zero, WriteMode::Create);
            zeroed.await.expect("creates");
            assert!(read(&store, new, 2, 3).await.iter().all(|b| *b == 0));
            store.stat(new).await.expect("exists");
        }
    })
}

pub fn ranges_outside_of_the_object_are_invalid(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let store = subject.store().await;
        let blocks = store.properties().object_size.blocks();
        let (id, create) = (object(1, 1), WriteMode::Create);
        write(&store, id, 0, filled(1, 1)).await;
        let invalid = Some(ErrorKind::Invalid);
        for (first, count) in [(0, blocks + 1), (blocks, 1), (u32::MAX, 2), (0, 0)] {
            let range = BlockRange::new(first, count);
            let read = store.read(id, range, ReadHint::default()).await;
            assert_eq!(kind(read), invalid, "read {range:?}");
            let zeroed = store.write_zeroes(id, range, ZeroMode::Punch, create);
            assert_eq!(kind(zeroed.await), invalid, "write_zeroes {range:?}");
            let copied = store.copy(id, range, object(1, 2), 0, create).await;
            assert_eq!(kind(copied), invalid, "copy {range:?}");
        }
        let past = store.write(id, blocks - 1, filled(1, 2), create).await;
        assert_eq!(kind(past), invalid, "write past the end");
        let parts = SharedBuf::copy_of(&[1; BLOCK + 512]);
        let odd = store.write(id, 0, parts, create).await;
        assert_eq!(kind(odd), invalid, "write of parts of blocks");
        let empty = store.write(id, 0, SharedBuf::empty(), create).await;
        assert_eq!(kind(empty), invalid, "write of nothing");
        let one = BlockRange::new(0, 1);
        let copied = store.copy(id, one, object(1, 2), blocks, create).await;
        assert_eq!(kind(copied), invalid, "copy past the end");
    })
}

pub fn a_copy_equals_its_source(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let data: Vec<u8> = (0..4).flat_map(|byte| [byte + 1; BLOCK]).collect();
        write(&store, object(1, 1), 2, SharedBuf::copy_of(&data)).await;
        let range = BlockRange::new(2, 4);
        let create = WriteMode::Create;
        let copied = store.copy(object(1, 1), range, object(1, 2), 0, create);
        copied.await.expect("copies to a new object");
        assert_eq!(&*read(&store, object(1, 2), 0, 4).await, data);
        let copied = store.copy(object(1, 1), range, object(1, 1), 8, WriteMode::Existing);
        copied.await.expect("copies inside of an object");
        assert_eq!(&*read(&store, object(1, 1), 8, 4).await, data);
        assert_eq!(&*read(&store, object(1, 1), 2, 4).await, data);
    })
}

pub fn overlapping_writes_leave_one_of_them(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let unit = store.properties().atomic_unit as usize;
        let id = object(1, 1);
        write(&store, id, 0, filled(1, 8)).await;
        let writers: Vec<_> = (2..10)
            .map(|byte| {
                let store = store.clone();
                spawn(async move { write(&store, id, 0, filled(byte, 8)).await })
            })
            .collect();
        for writer in writers {
            writer.await;
        }
        for part in read(&store, id, 0, 8).await.chunks(unit) {
            assert!(part.iter().all(|byte| *byte == part[0]), "a torn unit");
            assert!((2..10).contains(&part[0]), "the content of before is back");
        }
    })
}

pub fn a_deleted_object_is_gone(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let blocks = store.properties().object_size.blocks();
        write(&store, object(1, 1), 0, filled(3, blocks)).await;
        write(&store, object(1, 2), 0, filled(4, 1)).await;
        let stat = store.stat(object(1, 1)).await.expect("exists");
        assert!(stat.allocated >= u64::from(blocks) * u64::from(BLOCK_SIZE));
        store.delete(object(1, 1)).await.expect("deletes");
        store
            .delete(object(1, 1))
            .await
            .expect("deletes what is gone");
        let gone = Some(ErrorKind::NotFound);
        let one = BlockRange::new(0, 1);
        let found = store.read(object(1, 1), one, ReadHint::default()).await;
        assert_eq!(kind(found), gone);
        let written = store.write(object(1, 1), 0, filled(1, 1), WriteMode::Existing);
        assert_eq!(kind(written.await), gone, "it is not made again");
        assert_eq!(kind(store.stat(object(1, 1)).await), gone);
        assert_eq!(all_objects(&store, 10).await, [object(1, 2)]);
        assert!(
            read(&store, object(1, 2), 0, 1)
                .await
                .iter()
                .all(|b| *b == 4)
        );
    })
}

pub fn a_list_has_every_object_once_page_by_page(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        assert!(
            all_objects(&store, 5).await.is_empty(),
            "a new pool is empty"
        );
        let mut expected = BTreeSet::new();
        for number in 0..40_u64 {
            let id = object(1 + number % 3 * 0xfff_ffff, number * number * 37);
            write(&store, id, 0, filled(1, 1)).await;
            expected.insert(id);
        }
        let whole = all_objects(&store, 1000).await;
        assert_eq!(whole.len(), expected.len());
        assert_eq!(whole.iter().copied().collect::<BTreeSet<_>>(), expected);
        for limit in [1, 3, 40] {
            assert_eq!(all_objects(&store, limit).await, whole, "pages of {limit}");
        }
    })
}

pub fn a_list_goes_on_while_objects_come_and_go(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        for number in 0..60 {
            write(&store, object(1, number * 300), 0, filled(1, 1)).await;
        }
        let (mut seen, mut from, mut round) = (Vec::new(), None, 0);
        loop {
            let page = store.list(from, 7).await.expect("lists");
            seen.extend(page.objects);
            // Every third one goes, listed or not; new ones come.
            store
                .delete(object(1, round * 3 * 300))
                .await
                .expect("deletes");
            write(&store, object(2, round * 300), 0, filled(1, 1)).await;
            round += 1;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let unique: BTreeSet<_> = seen.iter().copied().collect();
        assert_eq!(unique.len(), seen.len(), "an object was listed twice");
        for number in (0..60).filter(|number| number % 3 != 0) {
            assert!(
                unique.contains(&object(1, number * 300)),
                "{number} is left out"
            );
        }
    })
}

pub fn the_generation_mark_never_falls(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let store = subject.store().await;
        let mark = |number| Generation::new(number).expect("52 bits");
        let found = store.reserved_generations().await.expect("reads");
        assert_eq!(found, Generation::ZERO, "in a new pool");
        for (below, expected) in [(10, 10), (5, 10), (1 << 51, 1 << 51), (11, 1 << 51)] {
            store
                .reserve_generations(mark(below))
                .await
                .expect("reserves");
            let found = store.reserved_generations().await.expect("reads");
            assert_eq!(found, mark(expected), "after {below}");
        }
        let tasks: Vec<_> = (0..20)
            .map(|step| {
                let store = store.clone();
                let below = mark((1 << 51) + 1 + (step * 7) % 20);
                spawn(async move { store.reserve_generations(below).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("reserves");
        }
        let again = subject.store().await.reserved_generations().await;
        assert_eq!(again.expect("reads"), mark((1 << 51) + 20));
    })
}

/// Another core, where there is one.
fn other_core() -> Option<CoreHandle> {
    let here = atoll_reactor::core_id();
    cores().into_iter().find(|core| core.id() != here)
}

pub fn every_core_sees_the_same_objects(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let (Some(other), true) = (other_core(), subject.keeps_content) else {
            return;
        };
        let store = subject.store().await;
        for number in 0..20 {
            write(&store, object(1, number), 0, filled(1, 2)).await;
        }
        let pool = subject.pool.clone();
        let there = other.call(|| async move {
            let store = attach(&pool).await;
            for number in 0..20 {
                let id = object(1, number);
                assert!(read(&store, id, 0, 2).await.iter().all(|byte| *byte == 1));
                write(&store, id, 1, filled(2, 1)).await;
                store.sync(&[id]).await.expect("syncs");
            }
            store.delete(object(1, 7)).await.expect("deletes");
            store
                .reserve_generations(Generation::new(99).expect("52 bits"))
                .await
        });
        there.await.expect("the core runs").expect("reserves");
        for number in (0..20).filter(|number| *number != 7) {
            let found = read(&store, object(1, number), 0, 2).await;
            assert_eq!((found[0], found[BLOCK]), (1, 2), "object {number}");
        }
        let gone = store.stat(object(1, 7)).await;
        assert_eq!(kind(gone), Some(ErrorKind::NotFound));
        let mark = store.reserved_generations().await.expect("reads");
        assert_eq!(mark.get(), 99);
    })
}

pub fn first_writes_from_two_cores_both_land(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        for number in 0..20 {
            let id = object(1, number * 300);
            let pool = subject.pool.clone();
            let far = move || async move {
                let store = attach(&pool).await;
                write(&store, id, 1, filled(2, 1)).await;
            };
            let core = other_core();
            let far = spawn(async move {
                match core {
                    Some(core) => core.call(far).await.expect("the core runs"),
                    None => far().await,
                }
            });
            write(&store, id, 0, filled(1, 1)).await;
            far.await;
            let found = read(&store, id, 0, 2).await;
            assert_eq!((found[0], found[BLOCK]), (1, 2), "object {id}");
        }
    })
}

pub fn buffers_need_not_be_aligned(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let bytes: Vec<u8> = (0..2 * BLOCK + 7).map(|at| (at % 251) as u8).collect();
        let part = SharedBuf::from_vec(bytes.clone()).slice(7..2 * BLOCK + 7);
        write(&store, object(1, 1), 5, part).await;
        assert_eq!(&*read(&store, object(1, 1), 5, 2).await, &bytes[7..]);
    })
}

pub fn a_write_begun_goes_on_when_its_future_is_dropped(
    subject: Subject,
) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        if !subject.keeps_content {
            return;
        }
        let store = subject.store().await;
        let id = object(1, 1);
        let mut write = store.write(id, 0, filled(9, 1), WriteMode::Create);
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = std::pin::Pin::new(&mut write).poll(&mut context) {
            done.expect("writes");
        }
        drop(write);
        for _ in 0..MAX_PAUSES {
            let one = BlockRange::new(0, 1);
            match store.read(id, one, ReadHint::default()).await {
                Ok(found) if found.iter().all(|byte| *byte == 9) => return,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
            sleep(PAUSE).await;
        }
        panic!("the write was never done");
    })
}

pub fn a_full_pool_refuses_writes_and_goes_on(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let store = subject.store().await;
        let capacity = store.capacity().await.expect("has a capacity");
        assert!(capacity.available <= capacity.total, "{capacity:?}");
        let Some(limit) = subject.limit else { return };
        let blocks = store.properties().object_size.blocks();
        let fits = limit / u64::from(store.properties().object_size.bytes());
        let mut kept = 0;
        let refused = loop {
            let id = object(1, kept);
            match store
                .write(id, 0, filled(5, blocks), WriteMode::Create)
                .await
            {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept <= fits, "{kept} whole objects in {limit} bytes");
        };
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
        assert!(kept > 0, "nothing fitted");
        for number in 0..kept {
            let found = read(&store, object(1, number), 0, blocks).await;
            assert!(found.iter().all(|byte| *byte == 5), "object {number}");
        }
        store.delete(object(1, kept)).await.expect("deletes");
        store.delete(object(1, 0)).await.expect("deletes");
        write(&store, object(2, 0), 0, filled(6, blocks / 2)).await;
        assert!(
            read(&store, object(2, 0), 0, 1)
                .await
                .iter()
                .all(|b| *b == 6)
        );
    })
}

pub fn what_was_synced_survives_a_power_loss(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let Some(power_loss) = &subject.power_loss else {
            return;
        };
        let mut pool = subject.pool.clone();
        let mut dice = Dice(7);
        let mut durable: BTreeMap<u64, u8> = BTreeMap::new();
        let mut mark = 0;
        for round in 0..8_u8 {
            let store = attach(&pool).await;
            for number in 0..30_u64 {
                let id = object(1 + number % 2, number * 100);
                let byte = round * 30 + u8::try_from(number).expect("small") + 1;
                match dice.below(3) {
                    0 => {
                        write(&store, id, 2, filled(byte, 3)).await;
                        store.sync(&[id]).await.expect("syncs");
                        durable.insert(number, byte);
                    }
                    // Not synced: any of it may be lost, and what it overwrites too.
                    1 => {
                        write(&store, id, 2, filled(byte, 3)).await;
                        durable.remove(&number);
                    }
                    _ => {}
                }
            }
            mark += 5;
            let below = Generation::new(mark).expect("52 bits");
            store.reserve_generations(below).await.expect("reserves");
            drop(store);
            pool = power_loss(u64::from(round)).await;
            let store = attach(&pool).await;
            for (number, byte) in &durable {
                let found = read(&store, object(1 + number % 2, number * 100), 2, 3).await;
                assert!(
                    found.iter().all(|b| b == byte),
                    "round {round}: object {number} lost what was synced"
                );
            }
            let found = store.reserved_generations().await.expect("reads");
            assert!(found >= below, "round {round}: the mark fell to {found}");
        }
    })
}

pub fn sync_all_covers_what_nobody_synced(subject: Subject) -> LocalFuture<'static, ()> {
    LocalFuture::new(async move {
        let mut pool = subject.pool.clone();
        let losses = if subject.power_loss.is_some() { 8 } else { 1 };
        for round in 0..losses {
            let store = attach(&pool).await;
            store.sync_all().await.expect("syncs what is durable");
            for number in 0..20_u64 {
                let id = object(1 + number % 2, number * 100);
                write(&store, id, 2, filled(round * 20 + 1, 3)).await;
            }
            // Another access, as that of a daemon started anew.
            let store = attach(&pool).await;
            store.sync_all().await.expect("syncs");
            drop(store);
            if let Some(power_loss) = &subject.power_loss {
                pool = power_loss(u64::from(round)).await;
            }
            if !subject.keeps_content {
                continue;
            }
            let store = attach(&pool).await;
            for number in 0..20_u64 {
                let found = read(&store, object(1 + number % 2, number * 100), 2, 3).await;
                assert!(
                    found.iter().all(|byte| *byte == round * 20 + 1),
                    "round {round}: object {number} lost what was written before sync_all"
                );
            }
        }
    })
}
