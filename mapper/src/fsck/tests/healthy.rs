//! What the check says of a store that is as it should be, and that bytes of any kind do no harm.

use super::store::{OBJECT, Reader, Store, be, bytes, kinds, object_id, run, seal};
use super::trees::tree;
use crate::fsck::bytes::crc32c;
use crate::fsck::{
    FindingKind, MAX_FINDINGS_PER_KIND, MEMORY_LIMIT, Options, Progress, Report, Severity, Step,
    check_within,
};
use atoll_reactor::sim::Sim;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;

const DEEP: Options = Options { deep: true };
/// Smaller than the runs of the healthy store.
const LITTLE: u64 = 512;

#[test]
fn a_healthy_store_has_no_errors_and_its_leaks_and_deletions_are_counted() {
    let report = run(&Store::healthy(), DEEP, MEMORY_LIMIT);
    assert_eq!(kinds(&report), [], "{:#?}", report.findings);
    assert!(report.is_clean());
    let found: Vec<_> = report
        .counts
        .iter()
        .map(|(kind, count)| (*kind, *count))
        .collect();
    let expected = [
        FindingKind::Leaked,
        FindingKind::Pending,
        FindingKind::Collecting,
    ];
    assert_eq!(found, expected.map(|kind| (kind, 1)));
    let totals = &report.totals;
    assert_eq!((totals.pools, totals.resources, totals.nodes), (1, 3, 4));
    // Node 1: 515; node 2: 2 and 2 refs; node 3: 3; node 4: 512.
    assert_eq!(totals.entries, 515 + 4 + 3 + 512);
    assert_eq!((totals.dead, totals.listed), (3, 525));
    assert_eq!(
        (totals.leaked, totals.leaked_bytes, totals.pending),
        (1, 4096, 3)
    );
    assert_eq!(totals.read, 525 - 1 - 3);
    assert_eq!(
        (totals.dying_objects, totals.dying_bytes),
        (512, 512 * OBJECT)
    );
    assert_eq!((totals.unnamed_objects, totals.dead_refs), (0, 0));
    assert_eq!(
        (totals.rows[&0x40], totals.rows[&0x41], totals.rows[&0x61]),
        (4, 3, 1)
    );
}

#[test]
fn the_bytes_of_the_healthy_store_are_the_golden_ones() {
    let golden = include_str!("../../../../tests/vectors/fsck/healthy.txt");
    let bytes = |text: &str| -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digits).collect()
    };
    let lines = golden
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let rows: BTreeMap<_, _> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            (bytes(words.next().unwrap()), bytes(words.next().unwrap()))
        })
        .collect();
    assert_eq!(rows, Store::healthy().sealed());
}

#[test]
fn passes_over_small_windows_find_what_one_pass_finds() {
    let mut broken = Store::healthy();
    for object in [(1, 700), (1, 701), (2, 3), (9, 5)] {
        broken.objects.remove(&object);
    }
    for store in [Store::healthy(), broken] {
        let whole = run(&store, DEEP, MEMORY_LIMIT);
        let mut parts = run(&store, DEEP, LITTLE);
        // Only the order may differ.
        parts
            .findings
            .sort_by_key(|finding| whole.findings.iter().position(|other| other == finding));
        assert_eq!(parts, whole);
    }
}

#[test]
fn findings_of_one_kind_are_capped_and_the_rest_counted() {
    let mut store = Store::healthy();
    store.objects.retain(|(generation, _)| *generation != 1);
    let report = run(&store, Options::default(), MEMORY_LIMIT);
    let of_kind = report
        .findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::ObjectMissing);
    assert_eq!(of_kind.count() as u64, MAX_FINDINGS_PER_KIND);
    assert_eq!(
        report.dropped(FindingKind::ObjectMissing),
        514 - MAX_FINDINGS_PER_KIND
    );
    assert_eq!(report.count(Severity::Error), 514);
    assert!(!report.is_clean());
}

#[test]
fn objects_of_a_pool_that_is_not_open_are_not_checked_and_the_report_says_so() {
    let mut store = Store::healthy();
    store.pool_open = false;
    let report = run(&store, DEEP, MEMORY_LIMIT);
    assert!(report.is_clean());
    assert_eq!(
        report.counts.keys().copied().collect::<Vec<_>>(),
        [FindingKind::Collecting, FindingKind::NotChecked]
    );
    assert_eq!((report.totals.listed, report.totals.read), (0, 0));
}

#[test]
fn kinds_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> =
        FindingKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), FindingKind::ALL.len());
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
}

#[test]
fn progress_tells_every_step_of_a_store_without_a_pool() {
    let rows = Rc::new(Store::healthy().sealed());
    let steps = Sim::new(1, 1).block_on(async move {
        let mut steps = Vec::new();
        let mut tell = |progress: Progress| steps.push(progress.step);
        check_within(&Reader(rows), &[], DEEP, &mut tell, MEMORY_LIMIT)
            .await
            .unwrap();
        steps
    });
    for step in [Step::Catalogue, Step::Maps, Step::Partials, Step::Refs] {
        assert!(steps.contains(&step), "{step:?}");
    }
}

fn any_table() -> impl Strategy<Value = u8> {
    let known = [
        1, 2, 3, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32, 0x40, 0x41, 0x50, 0x60,
        0x61, 0x62, 0x70,
    ];
    prop_oneof![9 => proptest::sample::select(known.to_vec()), 1 => any::<u8>()]
}

fn any_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let small = proptest::collection::vec(
        prop_oneof![Just(0_u8), Just(1), Just(2), Just(255), any::<u8>()],
        0..most,
    );
    prop_oneof![small, proptest::collection::vec(any::<u8>(), 0..most)]
}

/// Keys that often hit existing nodes, pools and objects.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let numbers =
        (any_table(), 0_u32..3, 0_u64..5, 0_u64..9).prop_map(|(table, pool, first, second)| {
            match table {
                0x40 | 0x41 => bytes![[table], be(first), pool.to_be_bytes()],
                0x30 | 0x32 => bytes![[table], be(first)],
                0x31 => bytes![[table], be(first), be(second)],
                0x50 | 0x70 => bytes![[table], pool.to_be_bytes(), be(first), be(second)],
                0x60 | 0x61 => bytes![[table], pool.to_be_bytes(), be(first)],
                _ => bytes![[table], pool.to_be_bytes()],
            }
        });
    let wild = (any_table(), any_bytes(24)).prop_map(|(table, rest)| bytes![[table], rest]);
    prop_oneof![3 => numbers, 1 => wild, 1 => any_bytes(24)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_rows_panic_and_windows_change_nothing(
        with_tree in any::<bool>(),
        rows in proptest::collection::vec((any_key(), any_bytes(80), 0..8_u8), 1..12),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut store = if with_tree { tree() } else { Store::healthy() };
        for (key, body, sealed) in rows {
            let value = if sealed > 0 { seal(&key, 1, &body) } else { body };
            store.raw.insert(key, value);
        }
        for (row, at, bits) in flips {
            let key = row.get(&store.rows.keys().cloned().collect::<Vec<_>>()).clone();
            let body = store.rows.get_mut(&key).unwrap();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] ^= bits;
            }
        }
        // Listing and reading a pool does not depend on these bytes.
        store.objects = [(1, 0), (0x50, 7)].into();
        let whole = run(&store, Options::default(), MEMORY_LIMIT);
        let parts = run(&store, Options::default(), LITTLE);
        // A run that a window cuts is two findings.
        let kinds = |report: &Report| report.counts.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(kinds(&whole), kinds(&parts));
        prop_assert_eq!(whole.totals, parts.totals);
    }

    #[test]
    fn no_body_panics(body in any_bytes(600), table in any_table()) {
        use crate::fsck::{keys, rows, slots};
        let name = crate::fsck::names::Name::new(1, 1, 1).unwrap();
        let _ = slots::slots(&body);
        let _ = keys::Key::parse(&bytes![[table], body.clone()]);
        let _ = (rows::superblock(&body), rows::run_state(&body), rows::pool_body(&body));
        let _ = (rows::resource(&body), rows::node_body(&body), rows::partial(1, &body));
        let _ = (rows::counted(1, &body), rows::content(&body), rows::dead(name, &body));
        prop_assert_eq!(object_id(1, 1), name.object().unwrap());
    }
}
