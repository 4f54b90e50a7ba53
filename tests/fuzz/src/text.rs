//! The text of logins and requests, without PDUs around it: pairs and their negotiation.
use atoll_targets::iscsi::limits::{
    DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, MAX_KEYS_PER_REQUEST, MAX_NAME_LENGTH,
    MAX_SEGMENT_LENGTH, MIN_SEGMENT_LENGTH,
};
use atoll_targets::iscsi::text::{Negotiator, Offers, Phase, is_iscsi_name, pairs, parse_number};

use crate::vectors;

/// The first byte says in which phases, then come the texts of up to three requests, divided by `0xff`.
pub fn keys(input: &[u8]) {
    let Some((phases, text)) = input.split_first() else {
        return;
    };
    let mut negotiator = Negotiator::new(Offers::default());
    for (number, request) in text.splitn(3, |byte| *byte == 0xff).enumerate() {
        let phase = match phases >> (2 * number) & 3 {
            0 => Phase::Security,
            1 | 2 => Phase::Operational,
            _ => Phase::FullFeature,
        };
        let Ok(pairs) = pairs(request) else { return };
        assert!(pairs.len() <= MAX_KEYS_PER_REQUEST);
        let mut answer = Vec::new();
        let accepted = negotiator.answer_all(phase, &pairs, &mut answer);
        // An answer leaves in one PDU, with what the target has to declare.
        assert!(answer.len() + 1024 <= DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH as usize);
        let parameters = negotiator.parameters;
        let lengths = MIN_SEGMENT_LENGTH..=MAX_SEGMENT_LENGTH;
        assert!(lengths.contains(&parameters.max_recv_data_segment_length));
        assert!(lengths.contains(&parameters.max_burst_length));
        assert!(lengths.contains(&parameters.first_burst_length));
        assert!(parameters.max_outstanding_r2t >= 1);
        let name = negotiator.initiator_name.as_deref();
        assert!(name.is_none_or(is_iscsi_name));
        // A strange target is one that does not exist; its length is bounded all the same.
        let target = negotiator.target_name.as_deref();
        assert!(target.is_none_or(|name| name.len() <= MAX_NAME_LENGTH));
        if accepted.is_err() {
            return;
        }
    }
    let _ = std::str::from_utf8(text).map(parse_number);
}

/// Real logins, and all keys.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut texts = vectors::texts();
    for rule in atoll_targets::iscsi::text::RULES {
        for value in [
            "Yes",
            "No",
            "1",
            "0x200",
            "16777215",
            "None",
            "CRC32C,None",
            "All",
            "iqn.a",
        ] {
            texts.push(format!("{}={value}\0", rule.name).into_bytes());
        }
    }
    let phased = |(number, text): (usize, &Vec<u8>)| [&[number as u8], text.as_slice()].concat();
    texts.iter().enumerate().map(phased).collect()
}
