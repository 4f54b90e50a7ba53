//! How much room maps take in the metadata store, all of its files included, after a clean stop: rows by the format's own
//! encoders, through the store of production. Nothing of the mapper runs.

use super::host::Scratch;
use super::pebibyte::{PIB, Pebibyte};
use super::report::{Check, bytes};
use super::rows::{
    Flush, OBJECT_BYTES, POOL, Persisted, Random, ResourceRows, Rows, StoreRows, generation, name,
    node, write_map,
};
use atoll_backends::{BlockRange, ObjectId, ObjectSize};
use atoll_mapper::Result;
use atoll_mapper::format::{
    Below, Bitmap, Entry, Key, PartialRow, PoolKind, ResourceKind, Row, Slots,
};
use atoll_mapper::meta::{MetaStore, OpenMode};
use atoll_mapper::types::PageNo;
use atoll_reactor::block_on;
use std::time::Instant;

const TIB: u64 = 1 << 40;
const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;
/// Pages that the mapper lets be changed before it flushes.
const FLUSH_PAGES: usize = 4096;

pub fn run(pebibyte: &Pebibyte) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    checks.push(Check::at_most(
        "1 PiB, random entries among 2^24 generations",
        pebibyte.database_bytes() as f64,
        2.2 * GIB,
        bytes,
    ));
    let filled = sized(|rows| block_on(random_fill(rows, PIB, 32)));
    checks.push(Check::at_most(
        format!("1 PiB written in random order, 32 objects at a time ({filled})"),
        filled.bytes,
        2.0 * MIB,
        bytes,
    ));
    let filled = sized(|rows| block_on(random_fill(rows, PIB / 64, 1)));
    checks.push(Check::at_most(
        format!("16 TiB written in random order, object by object ({filled})"),
        filled.bytes,
        2.0 * MIB,
        bytes,
    ));
    for (partial, what) in [(false, "whole objects"), (true, "4 KiB of each")] {
        let mut changed = 0;
        let chain = sized(|rows| changed = block_on(snapshots(rows, partial)));
        checks.push(Check::told(
            format!(
                "1 TiB with 1000 snapshots, overwritten at random, {what}: per entry ({chain})"
            ),
            format!("{:.2} B", chain.bytes / changed as f64),
        ));
    }
    Ok(checks)
}

struct Sized {
    bytes: f64,
    seconds: f64,
}

impl std::fmt::Display for Sized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} s", self.seconds)
    }
}

/// Size of the database after a clean stop.
fn sized(write: impl FnOnce(&mut Rows<'_>)) -> Sized {
    let start = Instant::now();
    let scratch = Scratch::new();
    let meta = scratch.open(OpenMode::Create);
    let mut rows = Rows::new(&meta);
    write(&mut rows);
    block_on(rows.end());
    block_on(meta.close()).expect("the store closes");
    drop(meta);
    let size = scratch.database_bytes() as f64;
    Sized {
        bytes: size,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Writes all of a volume in random order, `unit` objects of a page at a time, through flushes of as many pages as the
/// mapper lets be changed.
async fn random_fill(rows: &mut Rows<'_>, size: u64, unit: u64) {
    let objects = size / OBJECT_BYTES;
    let mut pages = vec![(Persisted::Uniform(Entry::ABSENT), [0_u64; 8]); objects as usize / 512];
    let entry = Entry::object(generation(1));
    let units = objects / unit;
    let mut order = (0..units).map(|number| permuted(number, units.ilog2()));
    loop {
        let mut written: Vec<u64> = order.by_ref().take(FLUSH_PAGES).collect();
        if written.is_empty() {
            return;
        }
        written.sort_unstable();
        let mut flush = Flush::new(node(1));
        let page_of = |number: &u64| number * unit / 512;
        for chunk in written.chunk_by(|a, b| page_of(a) == page_of(b)) {
            let changed = || {
                let first = |number: &u64| (number * unit % 512) as u16;
                chunk.iter().flat_map(move |number| {
                    let first = first(number);
                    first..first + unit as u16
                })
            };
            let (persisted, bits) = &mut pages[page_of(&chunk[0]) as usize];
            for slot in changed() {
                bits[usize::from(slot) / 64] |= 1 << (slot % 64);
            }
            let slots: Slots =
                std::array::from_fn(|slot| match bits[slot / 64] >> (slot % 64) & 1 {
                    1 => entry,
                    _ => Entry::ABSENT,
                });
            let page_no = PageNo::new(page_of(&chunk[0]) as u32).expect("31 bits");
            *persisted = flush.page(page_no, *persisted, &slots, changed());
        }
        rows.commit(flush.end()).await;
    }
}

/// One to one on numbers of so many bits.
fn permuted(number: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    let mut mixed = number;
    for factor in [
        0x9e37_79b9_7f4a_7c15_u64,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
    ] {
        mixed = mixed.wrapping_mul(factor) & mask;
        mixed ^= mixed >> (bits / 2);
    }
    mixed
}

const SNAPSHOTS: u64 = 1000;
/// Flushes between two snapshots.
const FLUSHES: u64 = 5;

/// A full volume of 1 TiB, then 1000 times a snapshot and 2,000 to 10,000 overwritten objects; gives how many entries
/// there are in all nodes together. With `partial` only 4 KiB of each were overwritten.
async fn snapshots(rows: &mut Rows<'_>, partial: bool) -> u64 {
    let objects = TIB / OBJECT_BYTES;
    let store = StoreRows {
        pool: PoolKind::Null,
        next_node: SNAPSHOTS + 2,
        mark: SNAPSHOTS + 2,
    };
    store.write(rows).await;
    let entry = Entry::object(generation(1));
    write_map(rows, node(1), objects, |_| entry).await;
    let mut random = Random(2);
    let mut total = objects;
    for number in 1..=SNAPSHOTS + 1 {
        let mut changed = objects;
        if number > 1 {
            let count = 2_000 + random.below(8_000);
            changed = overwritten(rows, number, count, partial, &mut random).await;
            total += changed;
        }
        let head = number == SNAPSHOTS + 1;
        let resource = ResourceRows {
            kind: match head {
                true => ResourceKind::Volume,
                false => ResourceKind::Snapshot,
            },
            name: name(&format!("r{number}")),
            node: number,
            parent: (number > 1).then(|| number - 1),
            depth: number as u16 - 1,
            size: TIB,
            cut: number,
            objects: changed,
        };
        resource.write(rows).await;
    }
    total
}

/// Writes the map of a node in which so many random objects were overwritten; gives how many different ones.
async fn overwritten(
    rows: &mut Rows<'_>,
    number: u64,
    count: u64,
    partial: bool,
    random: &mut Random,
) -> u64 {
    let objects = TIB / OBJECT_BYTES;
    let mut pages =
        vec![(Persisted::Uniform(Entry::ABSENT), [Entry::ABSENT; 512]); objects as usize / 512];
    let entry = Entry::object(generation(number)).with_partial(partial);
    let mut different = 0;
    for _ in 0..FLUSHES {
        let mut written: Vec<u64> = (0..count / FLUSHES)
            .map(|_| random.below(objects))
            .collect();
        written.sort_unstable();
        written.dedup();
        let mut flush = Flush::new(node(number));
        let mut records = atoll_mapper::meta::Batch::new();
        for chunk in written.chunk_by(|a, b| a / 512 == b / 512) {
            let page_no = PageNo::new((chunk[0] / 512) as u32).expect("31 bits");
            let (persisted, slots) = &mut pages[page_no.get() as usize];
            for index in chunk {
                let slot = &mut slots[(index % 512) as usize];
                different += u64::from(slot.is_absent());
                *slot = entry;
                if partial {
                    let mut bitmap = Bitmap::new(ObjectSize::DEFAULT);
                    bitmap.insert(BlockRange::new(random.below(1024) as u32, 1));
                    let object =
                        ObjectId::new(generation(number), page_no.index((index % 512) as usize));
                    let record = PartialRow {
                        below: Below::Implicit,
                        bitmap,
                    };
                    records.merge(Key::partial(POOL, object), record.encode());
                }
            }
            let changed = chunk.iter().map(|index| (index % 512) as u16);
            *persisted = flush.page(page_no, *persisted, slots, changed);
        }
        records.extend(flush.end());
        rows.commit(records).await;
    }
    different
}
