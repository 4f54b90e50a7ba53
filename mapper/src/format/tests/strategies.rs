//! Random values of every type of the format, as `proptest` strategies.

use crate::format::*;
use crate::types::*;
use atoll_backends::{Generation, ObjectId, ObjectIndex, ObjectSize, PoolId};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn generation() -> impl Strategy<Value = Generation> {
    prop_oneof![0..1_u64 << 10, 0..1_u64 << 52]
        .prop_map(|value| Generation::new(value).expect("52 bits"))
}

pub(crate) fn object() -> impl Strategy<Value = ObjectId> {
    (generation(), 0..1_u64 << 40).prop_map(|(generation, index)| {
        ObjectId::new(generation, ObjectIndex::new(index).expect("40 bits"))
    })
}

pub(crate) fn reference() -> impl Strategy<Value = RefId> {
    (1..1_u64 << 52).prop_map(|value| RefId::new(value).expect("52 bits, not 0"))
}

pub(crate) fn node() -> impl Strategy<Value = NodeId> {
    (1..=u64::MAX).prop_map(|value| NodeId::new(value).expect("not 0"))
}

pub(crate) fn pool() -> impl Strategy<Value = PoolNumber> {
    (1..=u32::MAX).prop_map(|value| PoolNumber::new(value).expect("not 0"))
}

pub(crate) fn name() -> impl Strategy<Value = ResourceName> {
    vec(prop::sample::select(b"abcxyz0189._-".to_vec()), 1..=200)
        .prop_map(|bytes| ResourceName::from_bytes(&bytes).expect("follows the rule"))
}

pub(crate) fn object_size() -> impl Strategy<Value = ObjectSize> {
    (16..=24_u32).prop_map(|shift| ObjectSize::new(1 << shift).expect("64 KiB to 16 MiB"))
}

/// An entry of a page.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let named = prop_oneof![
        generation().prop_map(Entry::object),
        reference().prop_map(Entry::reference),
    ];
    let flagged = (named, any::<(bool, bool)>())
        .prop_map(|(entry, (partial, frozen))| entry.with_partial(partial).with_frozen(frozen));
    prop_oneof![1 => Just(Entry::ABSENT), 1 => Just(Entry::HOLE), 4 => flagged]
}

/// Slots of runs of random lengths.
pub(crate) fn slots() -> impl Strategy<Value = Slots> {
    vec((entry(), 1..64_usize), 1..512).prop_map(|runs| {
        let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
        let entries = runs
            .into_iter()
            .flat_map(|(entry, length)| std::iter::repeat_n(entry, length));
        for (slot, entry) in slots.iter_mut().zip(entries) {
            *slot = entry;
        }
        slots
    })
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<(u16, Entry)>> {
    vec((0..512_u16, entry()), 0..40)
}

pub(crate) fn bitmap(size: ObjectSize) -> impl Strategy<Value = Bitmap> {
    vec(any::<u64>(), 64).prop_map(move |mut words| {
        words.truncate(size.blocks().div_ceil(64) as usize);
        let used = size.blocks() % 64;
        if used != 0 {
            words[0] &= (1 << used) - 1;
        }
        Bitmap::from_words(size, &words).expect("as many words as blocks")
    })
}

pub(crate) fn partial(size: ObjectSize) -> impl Strategy<Value = PartialRow> {
    let below = prop_oneof![
        Just(Below::Implicit),
        Just(Below::Zeros),
        object().prop_map(Below::Object),
        reference().prop_map(Below::Ref)
    ];
    (below, bitmap(size)).prop_map(|(below, bitmap)| PartialRow { below, bitmap })
}

pub(crate) fn pool_row() -> impl Strategy<Value = PoolRow> {
    let kinds = [
        PoolKind::File,
        PoolKind::Memory,
        PoolKind::Null,
        PoolKind::Block,
        PoolKind::Rados,
        PoolKind::Gluster,
        PoolKind::S3,
    ];
    let kind = prop::sample::select(kinds.to_vec());
    (
        any::<[u8; 16]>(),
        kind,
        object_size(),
        name(),
        any::<String>(),
    )
        .prop_map(|(id, kind, object_size, name, options)| PoolRow {
            id: PoolId(id),
            kind,
            object_size,
            name,
            options,
        })
}

pub(crate) fn resource_row() -> impl Strategy<Value = ResourceRow> {
    let kinds = [
        ResourceKind::Volume,
        ResourceKind::Snapshot,
        ResourceKind::Image,
        ResourceKind::File,
    ];
    let kind = prop::sample::select(kinds.to_vec());
    let numbers = (pool(), node(), any::<u64>(), any::<u64>());
    (kind, any::<[bool; 3]>(), numbers, name()).prop_map(
        |(kind, [read_only, protected, large], (pool, node, size, created), name)| ResourceRow {
            kind,
            read_only,
            protected,
            block: if large {
                LogicalBlock::Bytes4096
            } else {
                LogicalBlock::Bytes512
            },
            pool,
            node,
            size,
            created,
            name,
        },
    )
}

pub(crate) fn node_row() -> impl Strategy<Value = NodeRow> {
    let states = [NodeState::Head, NodeState::Frozen, NodeState::Dying];
    let state = prop::sample::select(states.to_vec());
    let trim = prop::option::of(0..u64::MAX);
    let current = prop::option::of(generation().prop_filter("0 is none", |g| g.get() != 0));
    let first = (pool(), state, prop::option::of(node()), any::<u64>());
    (
        first,
        generation(),
        current,
        trim,
        any::<(u16, u64, bool)>(),
    )
        .prop_map(
            |((pool, state, parent, inherit_end), cut, current, trim, (depth, run, faulted))| {
                NodeRow {
                    pool,
                    state,
                    faulted: faulted && state == NodeState::Head,
                    parent,
                    inherit_end,
                    cut,
                    current,
                    run,
                    trim,
                    depth,
                }
            },
        )
}

pub(crate) fn object_row() -> impl Strategy<Value = ObjectRow> {
    let content = prop::option::of((any::<[u8; 32]>(), any::<u32>()));
    (object(), content).prop_map(|(object, content)| ObjectRow {
        object,
        content: content.map(|(sha256, length)| ContentHash { sha256, length }),
    })
}

/// A key of any table.
pub(crate) fn key() -> impl Strategy<Value = Key> {
    let resource = || any::<[u8; 16]>().prop_map(ResourceId);
    let record = vec(any::<u8>(), 0..=key::MAX_RECORD_KEY_LEN);
    let page = (0..1_u32 << 31).prop_map(|page| PageNo::new(page).expect("31 bits"));
    let group = (0..1_u32 << 22).prop_map(|group| GroupNo::new(group).expect("22 bits"));
    prop_oneof![
        Just(Key::superblock()),
        Just(Key::run_state()),
        Just(Key::counter(CounterKind::Node)),
        pool().prop_map(Key::pool),
        pool().prop_map(Key::mark),
        (pool(), record).prop_map(|(pool, record)| Key::store_record(pool, &record)),
        resource().prop_map(Key::resource),
        name().prop_map(|name| Key::name(&name)),
        resource().prop_map(|id| Key::export(id, Protocol::NvmeTcp)),
        node().prop_map(Key::node),
        (node(), node()).prop_map(|(parent, child)| Key::child(parent, child)),
        (node(), group).prop_map(|(node, group)| Key::group(node, group)),
        (node(), page).prop_map(|(node, page)| Key::page(node, page)),
        (pool(), object()).prop_map(|(pool, object)| Key::partial(pool, object)),
        (pool(), reference()).prop_map(|(pool, id)| Key::object(pool, id)),
        (pool(), reference()).prop_map(|(pool, id)| Key::count(pool, id)),
        (pool(), any::<[u8; 32]>()).prop_map(|(pool, sha)| Key::content(pool, &sha)),
        (pool(), object()).prop_map(|(pool, object)| Key::dead(pool, object)),
    ]
}
