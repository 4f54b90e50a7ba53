//! The initiator's view of what the core sends: whole PDUs of a target, padding of zeros, digests as negotiated, StatSN
//! without a gap, a command window that is never wider than the queue is deep (RFC 7143 §4.2.2, §11).
use atoll_targets::iscsi::digest::{DigestMode, crc32c};
use atoll_targets::iscsi::pdu::{
    Bhs, DataIn, InitiatorTaskTag, LoginResponse, NopIn, Opcode, R2t, Reject, Stage,
};
use atoll_targets::iscsi::text::Parameters;

use super::state::QUEUE_DEPTH;

pub struct Checker {
    pending: Vec<u8>,
    sent: u64,
    stat_sn: Option<u32>,
    negotiated: Option<(DigestMode, DigestMode)>,
    digests: (DigestMode, DigestMode),
    cut_off: bool,
    /// Tags of the R2Ts that came.
    transfers: Vec<u32>,
}

impl Checker {
    pub fn new() -> Checker {
        Checker {
            pending: Vec::new(),
            sent: 0,
            stat_sn: None,
            negotiated: None,
            digests: (DigestMode::None, DigestMode::None),
            cut_off: false,
            transfers: Vec::new(),
        }
    }

    /// PDUs so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Target transfer tags of the R2Ts so far.
    pub fn transfers(&self) -> &[u32] {
        &self.transfers
    }

    /// What the login came to; it counts from the response on that ends it.
    pub fn negotiated(&mut self, parameters: &Parameters) {
        self.negotiated = Some((parameters.header_digest, parameters.data_digest));
    }

    /// The transport was given up with output in it.
    pub fn cut_off(&mut self) {
        self.cut_off = true;
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(length) = self.whole(rest) {
            let (pdu, later) = rest.split_at(length);
            self.pdu(pdu);
            rest = later;
        }
        let left = rest.len();
        self.pending = pending;
        self.pending.drain(..self.pending.len() - left);
    }

    /// The length of the PDU that `bytes` begin with, if it is there as a whole.
    fn whole(&self, bytes: &[u8]) -> Option<usize> {
        let length = super::pdu_length(bytes)?;
        let data = if bytes[5..8] == [0; 3] {
            0
        } else {
            self.digests.1.length()
        };
        Some(length + self.digests.0.length() + data).filter(|length| *length <= bytes.len())
    }

    fn pdu(&mut self, pdu: &[u8]) {
        self.sent += 1;
        let (header, rest) = pdu.split_at(48);
        let bhs = Bhs(header.try_into().expect("48 bytes"));
        assert_eq!(bhs.ahs_length(), 0, "no response has additional segments");
        let (digest, rest) = rest.split_at(self.digests.0.length());
        assert!(
            digest.is_empty() || *digest == crc32c(header),
            "header digest"
        );
        let length = bhs.data_segment_length() as usize;
        let (data, digest) = rest.split_at(length.next_multiple_of(4));
        assert!(data[length..].iter().all(|byte| *byte == 0), "padding");
        assert!(digest.is_empty() || *digest == crc32c(data), "data digest");
        self.numbers(&bhs);
        if bhs.opcode() == Opcode::LoginResponse {
            let response = LoginResponse::decode(&bhs);
            let enters = response.transit && response.next_stage == Stage::FullFeaturePhase;
            if response.status == [0, 0] && enters {
                self.digests = self.negotiated.expect("the server was told");
            }
        }
    }

    fn numbers(&mut self, bhs: &Bhs) {
        let numbers = Reject::decode(bhs).numbers;
        let window = numbers
            .max_cmd_sn
            .0
            .wrapping_sub(numbers.exp_cmd_sn.0)
            .wrapping_add(1);
        assert!(
            window <= QUEUE_DEPTH,
            "{:?} opens a window of {window}",
            bhs.opcode()
        );
        let consumes = match bhs.opcode() {
            Opcode::R2t => {
                self.transfers.push(R2t::decode(bhs).target_transfer_tag.0);
                false
            }
            Opcode::DataIn if DataIn::decode(bhs).status.is_none() => return,
            Opcode::NopIn => NopIn::decode(bhs).initiator_task_tag != InitiatorTaskTag::RESERVED,
            Opcode::DataIn
            | Opcode::ScsiResponse
            | Opcode::TaskManagementResponse
            | Opcode::LoginResponse
            | Opcode::TextResponse
            | Opcode::LogoutResponse
            | Opcode::AsyncMessage
            | Opcode::Reject => true,
            other => panic!("{other:?} is no PDU of a target"),
        };
        let due = *self.stat_sn.get_or_insert(numbers.stat_sn.0);
        assert_eq!(numbers.stat_sn.0, due, "StatSN of {:?}", bhs.opcode());
        self.stat_sn = Some(due.wrapping_add(u32::from(consumes)));
    }

    /// Nothing more will come.
    pub fn end(&self) {
        assert!(
            self.pending.is_empty() || self.cut_off,
            "a PDU that is not whole"
        );
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}
