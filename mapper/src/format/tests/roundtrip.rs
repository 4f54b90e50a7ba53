//! Keys and rows come back as they went in, nothing but the canonical bytes is accepted, and no
//! bytes at all make a decoder panic.

use super::strategies::*;
use crate::format::key::describe;
use crate::format::*;
use crate::types::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Debug;

/// Encodes, decodes, and decodes again with a byte cut off or added.
fn round_trip<R: Row + PartialEq + Debug>(row: &R) {
    let body = row.encode();
    assert_eq!(R::decode(&body).as_ref(), Ok(row));
    let mut longer = body.clone();
    longer.push(0);
    assert!(R::decode(&longer).is_err(), "a byte too many");
    if let Some((_, shorter)) = body.split_last() {
        assert!(R::decode(shorter).is_err(), "a byte too few");
    }
}

/// Whatever decodes is what encoding makes of it.
fn canonical<R: Row>(body: &[u8]) {
    if let Ok(row) = R::decode(body) {
        assert_eq!(row.encode(), body);
    }
}

proptest! {
    #[test]
    fn every_row_comes_back(
        pool in pool_row(),
        resource in resource_row(),
        node in node_row(),
        object in object_row(),
        (a, b) in any::<(u64, u64)>(),
        flag: bool,
        mark in generation(),
        id in reference(),
    ) {
        round_trip(&pool);
        round_trip(&resource);
        round_trip(&node);
        round_trip(&object);
        let instance = InstanceId(u128::from(a).to_le_bytes());
        round_trip(&Superblock { format: a as u32, instance, created: b });
        round_trip(&RunState { clean: flag, starts: a, unclean: b });
        round_trip(&CounterRow { next: a });
        round_trip(&MarkRow { reserved_below: mark });
        round_trip(&NameRow { id: ResourceId(instance.0) });
        round_trip(&ExportRow { read_only: flag });
        round_trip(&ChildRow);
        round_trip(&CountRow { count: a.cast_signed() });
        round_trip(&ContentRow { id });
        round_trip(&DeadRow { count: b });
    }

    #[test]
    fn partial_records_come_back_for_every_object_size(
        row in object_size().prop_flat_map(partial),
    ) {
        round_trip(&row);
    }

    #[test]
    fn keys_parse_to_what_builds_them_again(key in key()) {
        let parsed = Key::parse(&key);
        prop_assert!(parsed.is_some(), "{}", describe(&key));
        let again = match parsed.expect("checked") {
            ParsedKey::Superblock => Key::superblock(),
            ParsedKey::RunState => Key::run_state(),
            ParsedKey::Counter(kind) => Key::counter(kind),
            ParsedKey::Pool(pool) => Key::pool(pool),
            ParsedKey::Mark(pool) => Key::mark(pool),
            ParsedKey::StoreRecord(pool, name) => Key::store_record(pool, &name),
            ParsedKey::Resource(id) => Key::resource(id),
            ParsedKey::Name(name) => Key::name(&name),
            ParsedKey::Export(id, protocol) => Key::export(id, protocol),
            ParsedKey::Node(node) => Key::node(node),
            ParsedKey::Child { parent, child } => Key::child(parent, child),
            ParsedKey::Usage(node) => Key::usage(node),
            ParsedKey::Group(node, group) => Key::group(node, group),
            ParsedKey::Page(node, page) => Key::page(node, page),
            ParsedKey::Partial(pool, object) => Key::partial(pool, object),
            ParsedKey::Object(pool, id) => Key::object(pool, id),
            ParsedKey::Count(pool, id) => Key::count(pool, id),
            ParsedKey::Content(pool, sha) => Key::content(pool, &sha),
            ParsedKey::Dead(pool, object) => Key::dead(pool, object),
        };
        prop_assert_eq!(&again, &key);
        if !matches!(key[0], 0x12 | 0x21) {
            prop_assert_eq!(Key::parse(&Key::after(&key)), None, "a byte too many");
        }
    }

    #[test]
    fn page_keys_sort_as_their_numbers(a in any::<(u64, u32)>(), b in any::<(u64, u32)>()) {
        let number = |(node, page): (u64, u32)| (node.max(1), page >> 1);
        let key = |at| {
            let (node, page) = number(at);
            let node = NodeId::new(node).expect("not 0");
            Key::page(node, PageNo::new(page).expect("31 bits"))
        };
        prop_assert_eq!(key(a).cmp(&key(b)), number(a).cmp(&number(b)));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(body in vec(any::<u8>(), 0..120)) {
        canonical::<Superblock>(&body);
        canonical::<RunState>(&body);
        canonical::<CounterRow>(&body);
        canonical::<PoolRow>(&body);
        canonical::<MarkRow>(&body);
        canonical::<ResourceRow>(&body);
        canonical::<NameRow>(&body);
        canonical::<ExportRow>(&body);
        canonical::<NodeRow>(&body);
        canonical::<ChildRow>(&body);
        canonical::<PartialRow>(&body);
        canonical::<ObjectRow>(&body);
        canonical::<CountRow>(&body);
        canonical::<ContentRow>(&body);
        canonical::<DeadRow>(&body);
        // Parsing must not panic; what it says is checked above.
        let _ = Key::parse(&body);
    }

    #[test]
    fn damaged_rows_are_refused_or_canonical(
        row in resource_row(),
        node in node_row(),
        at: prop::sample::Index,
        bits in 1..=255_u8,
    ) {
        let mut body = row.encode();
        let at_row = at.index(body.len());
        body[at_row] ^= bits;
        canonical::<ResourceRow>(&body);
        let mut body = node.encode();
        let at_node = at.index(body.len());
        body[at_node] ^= bits;
        canonical::<NodeRow>(&body);
    }

    #[test]
    fn a_seal_notices_every_flipped_bit_and_another_key(
        key in key(),
        other in key(),
        body in vec(any::<u8>(), 0..100),
        at: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let mut value = seal(&key, &body);
        prop_assert_eq!(unseal(&key, &value), Ok(body.as_slice()));
        if other != key {
            prop_assert!(unseal(&other, &value).is_err());
        }
        let at = at.index(value.len());
        value[at] ^= 1 << bit;
        prop_assert!(unseal(&key, &value).is_err());
    }

    #[test]
    fn ids_come_back_from_text(bytes: [u8; 16]) {
        let id = ResourceId(bytes);
        prop_assert_eq!(ResourceId::parse(&id.to_string()), Some(id));
        prop_assert_eq!(ResourceId::parse(&id.to_string().to_uppercase()), Some(id));
    }

    #[test]
    fn names_are_what_the_rule_says(text in "[a-zA-Z0-9._ é/-]{0,4}") {
        let good = !text.is_empty()
            && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'));
        prop_assert_eq!(ResourceName::new(&text).is_ok(), good);
    }
}

#[test]
fn names_end_at_200_bytes_and_the_error_says_the_rule() {
    assert!(ResourceName::new(&"a".repeat(200)).is_ok());
    let error = ResourceName::new(&"a".repeat(201)).expect_err("too long");
    assert_eq!(error.kind(), crate::ErrorKind::Invalid);
    assert!(
        error.to_string().contains("1 to 200 characters of a-z"),
        "{error}"
    );
}

#[test]
fn what_is_no_uuid_is_refused() {
    let good = "01234567-89ab-cdef-0123-456789abcdef";
    assert!(ResourceId::parse(good).is_some());
    let cases = [
        "",
        "01234567-89ab-cdef-0123-456789abcde",
        "01234567-89ab-cdef-0123-456789abcdefa",
        "0123456789abcdef0123456789abcdef",
        "01234567-89ab-cdef-0123_456789abcdef",
        "01234567-89ab-cdef-0123-456789abcdeg",
        "0é23456-89ab-cdef-0123-456789abcdef",
        "+1234567-89ab-cdef-0123-456789abcdef",
    ];
    for text in cases {
        assert_eq!(ResourceId::parse(text), None, "{text}");
    }
}

#[test]
fn an_unknown_layout_is_refused_even_with_a_right_sum() {
    let key = Key::run_state();
    let mut sealed = seal(&key, &[1, 2]);
    sealed[0] = 2;
    let end = sealed.len() - 4;
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&key);
    digest.update(&sealed[..end]);
    let sum = (digest.finalize() as u32).to_le_bytes();
    sealed[end..].copy_from_slice(&sum);
    let error = unseal(&key, &sealed).expect_err("layout 2");
    assert_eq!(error.to_string(), "its layout is unknown");
    for short in 0..5 {
        assert!(unseal(&key, &sealed[..short]).is_err());
    }
}

#[test]
fn ranges_hold_what_they_name_and_end_before_the_next() {
    let node = |id| NodeId::new(id).expect("not 0");
    let page = |page| PageNo::new(page).expect("31 bits");
    let holds = |range: &KeyRange, key: &Key| range.from <= *key && *key < range.to;
    for id in [1, 255, 256, u64::MAX - 1, u64::MAX] {
        let range = KeyRange::pages_of(node(id), page(7));
        assert!(!holds(&range, &Key::page(node(id), page(6))));
        assert!(holds(&range, &Key::page(node(id), page(7))));
        assert!(holds(&range, &Key::page(node(id), PageNo::MAX)));
        assert!(!holds(&range, &Key::group(node(id), GroupNo::MAX)));
        assert!(id == u64::MAX || !holds(&range, &Key::page(node(id.wrapping_add(1)), page(7))));
    }
    let some = KeyRange::pages_between(node(3), page(4), page(5));
    assert!(
        holds(&some, &Key::page(node(3), page(4))) && holds(&some, &Key::page(node(3), page(5)))
    );
    assert!(!holds(&some, &Key::page(node(3), page(6))));
    for table in Table::ALL {
        let range = KeyRange::prefix(*table);
        assert_eq!(&*range.from, [*table as u8]);
        assert_eq!(&*range.to, [*table as u8 + 1]);
        assert_eq!(Table::from_byte(*table as u8), Some(*table));
    }
    assert!(holds(&KeyRange::all(), &Key::superblock()));
    assert!(holds(&KeyRange::all(), &KeyRange::prefix(Table::Dead).to));
}
