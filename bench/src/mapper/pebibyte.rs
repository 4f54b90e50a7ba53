//! Metadata of a volume of 1 PiB that is mapped completely, by random entries, and of what it is compared with. It is
//! made once, for all parts that want it.

use super::host::Scratch;
use super::rows::{
    OBJECT_BYTES, Random, ResourceRows, Rows, StoreRows, generation, name, node, write_map,
};
use super::stage::prepare;
use atoll_mapper::format::{Entry, PoolKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::types::ResourceName;
use std::cell::OnceCell;

pub const PIB: u64 = 1 << 50;
pub const GIB: u64 = 1 << 30;
/// Volumes that are there to be deleted, of each size.
pub const SPARE: u64 = 32;
/// Among which the entries of the volume are.
const GENERATIONS: u64 = 1 << 24;
const NEXT_NODE: u64 = 1000;

/// Volumes `pib` and `gib` of random entries, and spare ones of each size, whose pages are uniform.
#[derive(Default)]
pub struct Pebibyte(OnceCell<(Scratch, u64)>);

impl Pebibyte {
    /// The store, stopped.
    pub fn scratch(&self) -> &Scratch {
        &self.made().0
    }

    /// Bytes of the database while only the volume of 1 PiB was in it.
    pub fn database_bytes(&self) -> u64 {
        self.made().1
    }

    fn made(&self) -> &(Scratch, u64) {
        self.0.get_or_init(|| {
            let scratch = Scratch::new();
            prepare(&scratch, OpenMode::Create, async |rows| {
                let store = StoreRows {
                    pool: PoolKind::Null,
                    next_node: NEXT_NODE,
                    mark: GENERATIONS,
                };
                store.write(rows).await;
                random(rows, 1, "pib", PIB).await;
            });
            let bytes = scratch.database_bytes();
            prepare(&scratch, OpenMode::Existing, async |rows| {
                random(rows, 3, "gib", GIB).await;
                for spare in 0..SPARE {
                    uniform(rows, 100 + spare, spare_name(PIB, spare), PIB).await;
                    uniform(rows, 200 + spare, spare_name(GIB, spare), GIB).await;
                }
            });
            (scratch, bytes)
        })
    }
}

pub fn spare_name(size: u64, number: u64) -> ResourceName {
    let kind = if size == PIB { "pib" } else { "gib" };
    name(&format!("{kind}-{number}"))
}

/// Each object has a generation of its own choice.
pub async fn random(rows: &mut Rows<'_>, number: u64, text: &str, size: u64) {
    let volume = ResourceRows::volume(name(text), number, size);
    volume.write(rows).await;
    let mut random = Random(number);
    write_map(rows, node(number), size / OBJECT_BYTES, |_| {
        Entry::object(generation(1 + random.below(GENERATIONS - 1)))
    })
    .await;
}

/// All objects have one generation.
async fn uniform(rows: &mut Rows<'_>, number: u64, name: ResourceName, size: u64) {
    let volume = ResourceRows::volume(name, number, size);
    volume.write(rows).await;
    let entry = Entry::object(generation(number));
    write_map(rows, node(number), size / OBJECT_BYTES, |_| entry).await;
}
