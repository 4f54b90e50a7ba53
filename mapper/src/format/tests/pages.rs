//! Pages: round trips, size, and every way in which a body can fail to be canonical.

use super::strategies::*;
use crate::format::*;
use crate::types::*;
use atoll_backends::Generation;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn object(generation: u64) -> Entry {
    Entry::object(Generation::new(generation).expect("52 bits"))
}

proptest! {
    #[test]
    fn whole_pages_come_back(slots in slots()) {
        let body = encode_whole(&slots);
        prop_assert_eq!(&*decode_whole(&body).expect("own bytes"), &slots);
    }

    #[test]
    fn deltas_come_back(changes in changes()) {
        let body = encode_delta(changes.iter().copied());
        let expected: std::collections::BTreeMap<u16, Entry> = changes.into_iter().collect();
        let expected: Vec<(u16, Entry)> = expected.into_iter().collect();
        prop_assert_eq!(decode_delta(&body).expect("own bytes"), expected);
    }

    #[test]
    fn arbitrary_page_bytes_are_refused_or_canonical(
        form in 0..2_u8,
        runs in vec(any::<u8>(), 0..40),
    ) {
        let body = [&[form], runs.as_slice()].concat();
        check_canonical(&body)?;
    }

    #[test]
    fn damaged_pages_are_refused_or_canonical(
        slots in slots(),
        at: prop::sample::Index,
        bits in 1..=255_u8,
    ) {
        let mut body = encode_whole(&slots);
        let at = at.index(body.len());
        body[at] ^= bits;
        check_canonical(&body)?;
    }

    #[test]
    fn every_bit_pattern_is_an_entry_or_refused(bits: u64, kind in 0..16_u64) {
        for bits in [bits, bits & !(0xf << 60) | kind << 60, bits & 0xf << 60 | bits & 0xf] {
            if let Some(entry) = Entry::from_bits(bits) {
                prop_assert_eq!(entry.to_bits(), bits);
                let again = match entry.kind() {
                    EntryKind::Absent => Entry::ABSENT,
                    EntryKind::Hole => Entry::HOLE,
                    EntryKind::Row => Entry::ROW,
                    EntryKind::Object(generation) => Entry::object(generation),
                    EntryKind::Ref(id) => Entry::reference(id),
                };
                let (partial, frozen) = (entry.is_partial(), entry.is_frozen());
                prop_assert!(entry.names_object() || !(partial || frozen));
                let again = again.with_partial(partial).with_frozen(frozen);
                prop_assert_eq!(again, entry);
            }
        }
    }
}

fn check_canonical(body: &[u8]) -> Result<(), TestCaseError> {
    if body.first() == Some(&1) {
        if let Ok(changes) = decode_delta(body) {
            prop_assert_eq!(encode_delta(changes.into_iter()), body);
        }
    } else if let Ok(slots) = decode_whole(body) {
        prop_assert_eq!(encode_whole(&slots), body);
    }
    Ok(())
}

#[test]
fn a_page_of_random_generations_takes_five_bytes_an_entry() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
    slots.fill_with(|| object(rng.random_range(1..1 << 24)));
    let bytes = encode_whole(&slots).len();
    assert!(bytes * 10 <= 51 * ENTRIES_PER_PAGE, "{bytes} bytes");
}

#[test]
fn a_uniform_page_takes_a_few_bytes() {
    let full = [object((1 << 52) - 1).with_frozen(true); ENTRIES_PER_PAGE];
    assert_eq!(uniform(&full), Some(full[0]));
    assert!(encode_whole(&full).len() <= 12);
    assert_eq!(encode_whole(&[Entry::ABSENT; ENTRIES_PER_PAGE]), [0]);
    let mut other = full;
    other[511] = Entry::HOLE;
    assert_eq!(uniform(&other), None);
}

#[test]
fn an_untouched_run_of_the_head_costs_two_bytes_an_entry() {
    let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
    slots
        .iter_mut()
        .step_by(2)
        .for_each(|slot| *slot = object(77));
    // Head, skip 1, difference 0 for all but the first run, whose difference takes two bytes.
    assert_eq!(encode_whole(&slots).len(), 1 + 256 * 3);
}

/// Runs that decode, but are not what encoding makes, or no runs at all.
#[test]
fn bodies_that_are_not_canonical_are_refused_with_the_reason() {
    let whole: [(&[u8], &str); 16] = [
        (&[], "it ends too early"),
        (&[2], "a page is neither whole nor a delta"),
        (&[0, 0x00], "a whole page has a run of absent entries"),
        (&[0, 0x81], "a reserved bit of a run is set"),
        (&[0, 0x05], "a run is of no valid entry"),
        (&[0, 0x09], "a run is of no valid entry"),
        (&[0, 0x14], "a run is of no valid entry"),
        (&[0, 0x03, 0x00], "a run is of no valid entry"),
        (&[0, 0x02], "it ends too early"),
        (&[0, 0x02, 0x01], "a payload is out of range"),
        (
            &[0, 0x02, 0x80, 0x00],
            "a varint is longer than it needs to be",
        ),
        (&[0, 0x21, 0x00], "a count that goes without saying"),
        (&[0, 0x41, 0x01], "a count that goes without saying"),
        (&[0, 0x41, 0x81, 0x04], "a run ends beyond the page"),
        (&[0, 0x21, 0x80, 0x04], "a run ends beyond the page"),
        (&[0, 0x01, 0x01], "neighbouring equal runs are not joined"),
    ];
    for (body, reason) in whole {
        let error = decode_whole(body).expect_err("not canonical");
        assert_eq!(error.to_string(), reason, "{body:02x?}");
    }
    // 2^52 as the first difference.
    let big = [0, 0x02, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let error = decode_whole(&big).expect_err("53 bits");
    assert_eq!(error.to_string(), "a run is of no valid entry");
    let huge = [
        0, 0x02, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
    ];
    let twice = [&huge[..], &huge[1..]].concat();
    assert!(
        decode_whole(&twice).is_err(),
        "the sum has more than 63 bits"
    );
    let long = [
        0, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
    ];
    let error = decode_whole(&long).expect_err("65 bits");
    assert_eq!(error.to_string(), "a varint has more than 64 bits");
}

#[test]
fn rows_are_for_groups_only() {
    let body = encode_whole(&[Entry::ROW; ENTRIES_PER_PAGE]);
    assert!(decode_whole(&body).is_ok());
    assert!(decode_page(&body).is_err());
}

#[test]
fn a_delta_leaves_what_it_passes_over_absent() {
    let body = encode_delta([(3, object(9)), (1, Entry::ABSENT), (3, Entry::HOLE)].into_iter());
    let mut expected = [Entry::ABSENT; ENTRIES_PER_PAGE];
    expected[3] = Entry::HOLE;
    assert_eq!(*decode_whole(&body).expect("own bytes"), expected);
    assert_eq!(
        decode_delta(&body).expect("a delta"),
        [(1, Entry::ABSENT), (3, Entry::HOLE)]
    );
    assert!(decode_delta(&encode_whole(&expected)).is_err());
}
