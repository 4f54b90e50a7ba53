//! The formats against their golden bytes, and against every kind of damage: whatever is cut off,
//! flipped, left out, repeated or moved is noticed.

use proptest::prelude::*;
use uuid::Uuid;

use super::decode::{Decoder, Item};
use super::encode::{Encoder, Totals};
use super::format::{Base, Damage, HEAD, Header, MAX_PAYLOAD, UNIT};
use super::{changes, zeros};
use crate::api::{BlockSize, ChangedRange};
use crate::units::{ByteSize, UnixSeconds};

const SIZE: u64 = 4 << 20;

fn header(incremental: bool) -> Header {
    Header {
        name: "vm1-tue".parse().unwrap(),
        id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        size: ByteSize::bytes(SIZE),
        block_size: BlockSize::B512,
        created: UnixSeconds(1_796_083_199),
        base: incremental.then(|| Base {
            id: Uuid::from_u128(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20),
            name: "vm1-mon".parse().unwrap(),
        }),
        temporary: !incremental,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Record {
    Data(u64, Vec<u8>),
    Zeros(u64, u64),
}

fn add(encoder: &mut Encoder, record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Data(offset, bytes) => {
            out.extend_from_slice(&encoder.data(*offset, bytes));
            out.extend_from_slice(bytes);
        }
        Record::Zeros(offset, length) => {
            out.extend_from_slice(&encoder.zeros(*offset, *length));
        }
    }
}

/// The stream, and where each of its parts ends: header, records, end.
fn encode(header: &Header, records: &[Record]) -> (Vec<u8>, Vec<usize>, Totals) {
    let (mut encoder, mut out) = Encoder::new(header);
    let mut ends = vec![out.len()];
    for record in records {
        add(&mut encoder, record, &mut out);
        ends.push(out.len());
    }
    assert_eq!(encoder.totals().written, out.len() as u64);
    let (end, totals) = encoder.end();
    out.extend_from_slice(&end);
    assert_eq!(totals.written, out.len() as u64);
    ends.push(out.len());
    (out, ends, totals)
}

/// Everything in the stream, fed in pieces of these lengths over and over.
fn decode(stream: &[u8], pieces: &[usize]) -> Result<Vec<Item>, Damage> {
    let mut decoder = Decoder::default();
    let mut items = Vec::new();
    let (mut rest, mut n) = (stream, 0);
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(pieces[n % pieces.len()].clamp(1, rest.len()));
        rest = later;
        n += 1;
        while !piece.is_empty() {
            items.extend(decoder.take(&mut piece)?);
        }
    }
    decoder.finish().map(|()| items)
}

fn expected(header: &Header, records: &[Record], totals: Totals) -> Vec<Item> {
    let mut items = vec![Item::Header(header.clone())];
    items.extend(records.iter().map(|record| match record.clone() {
        Record::Data(offset, bytes) => Item::Data { offset, bytes },
        Record::Zeros(offset, length) => Item::Zeros { offset, length },
    }));
    items.push(Item::End(totals));
    items
}

fn pattern(seed: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * UNIT as usize)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed) | 1)
        .collect()
}

fn sample(incremental: bool) -> (Header, Vec<Record>) {
    let mut records = vec![Record::Data(8192, pattern(7, 1))];
    if incremental {
        records.push(Record::Zeros(16384, 1 << 20));
    }
    (header(incremental), records)
}

fn golden(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/transfer")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn streams_are_the_golden_bytes_and_are_read_from_them() {
    for (incremental, name) in [(false, "whole.bin"), (true, "incremental.bin")] {
        let (header, records) = sample(incremental);
        let (stream, _, totals) = encode(&header, &records);
        assert!(stream == golden(name), "{name}");
        assert_eq!(
            decode(&golden(name), &[usize::MAX]).unwrap(),
            expected(&header, &records, totals)
        );
    }
}

#[test]
fn a_list_of_changes_is_the_golden_bytes() {
    let (mut encoder, mut out) = changes::Encoder::new(
        ByteSize::bytes(1 << 50),
        Uuid::from_u128(1),
        Uuid::from_u128(2),
    );
    for (offset, length, zero) in [
        (0, 4096, false),
        (8192, 1 << 20, true),
        ((1 << 50) - 4096, 4096, false),
    ] {
        out.extend(encoder.change(&ChangedRange {
            offset,
            length,
            zero,
        }));
    }
    out.extend(encoder.end());
    assert!(out == golden("changes.bin"), "{out:02x?}");
}

#[test]
fn the_longest_names_and_the_largest_resource_fit() {
    let mut header = header(true);
    header.name = "x".repeat(200).parse().unwrap();
    header.base.as_mut().unwrap().name = "y".repeat(200).parse().unwrap();
    header.size = ByteSize::pib(1);
    let last = (1 << 50) - UNIT;
    let records = [Record::Zeros(0, last), Record::Data(last, pattern(1, 1))];
    let (stream, _, totals) = encode(&header, &records);
    assert_eq!(
        decode(&stream, &[1]).unwrap(),
        expected(&header, &records, totals)
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    for incremental in [false, true] {
        let (header, records) = sample(incremental);
        let (stream, ..) = encode(&header, &records);
        let mut damaged = stream.clone();
        for at in 0..stream.len() {
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                assert!(
                    decode(&damaged, &[usize::MAX]).is_err(),
                    "bit {bit} of {at}"
                );
                damaged[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn every_truncation_is_noticed_and_so_is_what_follows_the_end() {
    let (header, records) = sample(true);
    let (stream, ends, _) = encode(&header, &records);
    for length in 0..stream.len() {
        let found = decode(&stream[..length], &[1000]).unwrap_err();
        let wanted = if length < ends[0] && length < super::format::HEADER_LENGTH_END {
            Damage::NotAStream
        } else {
            Damage::Truncated
        };
        assert_eq!(found, wanted, "{length}");
    }
    let longer = [&stream[..], &[0]].concat();
    assert_eq!(
        decode(&longer, &[usize::MAX]),
        Err(Damage::Broken("bytes follow its end"))
    );
    let twice = [&stream[..], &stream[..]].concat();
    assert!(decode(&twice, &[usize::MAX]).is_err());
}

#[test]
fn what_is_no_stream_or_a_newer_one_is_said_to_be() {
    assert_eq!(
        decode(b"QFI\xfb and so on.....", &[64]),
        Err(Damage::NotAStream)
    );
    let (mut newer, ..) = encode(&header(false), &[]);
    newer[8] = 2;
    assert_eq!(decode(&newer, &[usize::MAX]), Err(Damage::Newer(2)));
}

/// With all checksums right: what a wrong writer would write.
#[test]
fn records_that_the_format_does_not_allow_are_refused_although_their_checksums_are_right() {
    use super::format::{Kind, crc32c};
    let whole = header(false);
    let bytes = whole.encode();
    let chain = Header::chain(&bytes);
    let legal = super::format::Head {
        kind: Kind::Data,
        payload: 4096,
        offset: 0,
        length: 4096,
        payload_crc: crc32c(&[1; 4096]),
    };
    let zeros = super::format::Head {
        kind: Kind::Zeros,
        payload: 0,
        offset: 0,
        length: 4096,
        payload_crc: 0,
    };
    for wrong in [
        super::format::Head {
            payload: 512,
            length: 512,
            ..legal
        },
        super::format::Head {
            offset: 512,
            ..legal
        },
        super::format::Head {
            length: 8192,
            ..legal
        },
        super::format::Head {
            offset: SIZE,
            ..legal
        },
        super::format::Head {
            offset: u64::MAX - 4095,
            ..legal
        },
        super::format::Head {
            payload: 0,
            length: 0,
            ..legal
        },
        super::format::Head {
            payload: MAX_PAYLOAD + 4096,
            length: MAX_PAYLOAD as u64 + 4096,
            ..legal
        },
        super::format::Head {
            payload: u32::MAX as usize,
            length: u64::from(u32::MAX),
            ..legal
        },
        // A whole stream has none.
        zeros,
    ] {
        let stream = [&bytes[..], &wrong.encode(chain).0[..]].concat();
        assert_eq!(
            decode(&stream, &[usize::MAX]),
            Err(Damage::Broken("a record that the format does not allow")),
            "{wrong:?}"
        );
    }
}

#[test]
fn records_of_one_stream_do_not_pass_in_another() {
    let records = [
        Record::Data(0, pattern(1, 1)),
        Record::Data(8192, pattern(2, 1)),
    ];
    let (one, ends, _) = encode(&header(false), &records);
    let mut other = header(false);
    other.id = Uuid::from_u128(99);
    let (other, ..) = encode(&other, &records);
    let mixed = [&other[..ends[0]], &one[ends[0]..]].concat();
    assert!(decode(&mixed, &[usize::MAX]).is_err());
    // Moved, left out, repeated.
    let part = |n: usize| &one[ends[n - 1]..ends[n]];
    for wrong in [
        [part(2), part(1), part(3)].concat(),
        [part(2), part(3)].concat(),
        [part(1), part(3)].concat(),
        [part(1), part(1), part(2), part(3)].concat(),
    ] {
        let stream = [&one[..ends[0]], &wrong].concat();
        assert!(decode(&stream, &[usize::MAX]).is_err());
    }
}

#[test]
fn runs_of_zeros_are_found_by_whole_blocks() {
    let mut bytes = vec![0; 5 * 4096 + 100];
    bytes[4096 + 17] = 1;
    bytes[3 * 4096 - 1] = 1;
    let found: Vec<_> = zeros::runs(&bytes)
        .map(|run| (run.range, run.zero))
        .collect();
    assert_eq!(
        found,
        [(0..4096, true), (4096..12288, false), (12288..20580, true)]
    );
    assert_eq!(zeros::runs(&[]).count(), 0);
    assert!(!zeros::is_zero(&[0, 0, 1]) && zeros::is_zero(&[0; 33]) && zeros::is_zero(&[]));
}

fn any_records(incremental: bool) -> impl Strategy<Value = Vec<Record>> {
    let one = (0u64..40, 1usize..6, any::<u8>(), any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(move |parts| {
        let mut at = 0;
        let mut records = Vec::new();
        for (gap, blocks, seed, zero) in parts {
            let offset = at + gap * UNIT;
            let length = blocks as u64 * UNIT;
            at = offset + length;
            if at > SIZE {
                break;
            }
            records.push(match zero && incremental {
                true => Record::Zeros(offset, length),
                false => Record::Data(offset, pattern(seed, blocks)),
            });
        }
        records
    })
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_the_same_is_read(
        (incremental, records) in any::<bool>().prop_flat_map(|i| any_records(i).prop_map(move |r| (i, r))),
        pieces in prop::collection::vec(1usize..9000, 1..8),
    ) {
        let header = header(incremental);
        let (stream, _, totals) = encode(&header, &records);
        prop_assert_eq!(decode(&stream, &pieces).unwrap(), expected(&header, &records, totals));
    }

    #[test]
    fn a_flipped_byte_is_noticed_wherever_it_is(
        records in any_records(true), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let (mut stream, ..) = encode(&header(true), &records);
        let at = at.index(stream.len());
        stream[at] ^= flip;
        prop_assert!(decode(&stream, &[usize::MAX]).is_err());
    }

    /// Whatever a crash left of a stream, the rest is written behind the last whole record, and it is the same stream.
    #[test]
    fn an_interrupted_stream_goes_on_to_be_the_one_that_it_would_have_been(
        records in any_records(true), cut in any::<prop::sample::Index>(), garbage in any::<bool>(),
    ) {
        let header = header(true);
        let (stream, ends, _) = encode(&header, &records);
        let cut = cut.index(stream.len() - ends[0]) + ends[0];
        let mut left = stream[..cut].to_vec();
        if garbage {
            left.extend_from_slice(&[0; 100]);
        }
        let mut decoder = Decoder::default();
        let mut rest = &left[..];
        while !rest.is_empty() {
            if decoder.take(&mut rest).is_err() {
                break;
            }
        }
        let mut encoder = decoder.into_encoder().expect("the header is whole");
        left.truncate(usize::try_from(encoder.totals().written).unwrap());
        let whole = ends.iter().filter(|end| **end <= cut && **end < stream.len()).count() - 1;
        prop_assert_eq!(encoder.totals().records, whole as u64);
        for record in &records[whole..] {
            add(&mut encoder, record, &mut left);
        }
        left.extend(encoder.end().0);
        prop_assert!(left == stream);
    }

    #[test]
    fn any_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let stream = if magic { [&super::format::MAGIC[..], &[1, 0, 0, 0, 80, 0, 0, 0], &bytes].concat() } else { bytes };
        prop_assert!(decode(&stream, &[3, 50]).is_err());
    }

    #[test]
    fn runs_cover_everything_and_tell_the_truth(zero in prop::collection::vec(any::<bool>(), 0..40)) {
        let bytes: Vec<u8> = zero.iter().flat_map(|z| vec![u8::from(!*z); UNIT as usize]).collect();
        let mut at = 0;
        let mut last = None;
        for run in zeros::runs(&bytes) {
            prop_assert_eq!(run.range.start, at);
            prop_assert!(bytes[run.range.clone()].iter().all(|b| (*b == 0) == run.zero));
            prop_assert!(last != Some(run.zero), "runs alternate");
            (at, last) = (run.range.end, Some(run.zero));
        }
        prop_assert_eq!(at, bytes.len());
    }
}

/// Heads are as long as the format says.
const _: () = assert!(HEAD == 32);
