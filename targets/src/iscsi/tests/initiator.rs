//! The initiator's side, written from the standard: builds requests, cuts responses, checks digests,
//! counts sequence numbers. It shares only the wire types with the target.
use crate::iscsi::digest::{DigestMode, crc32c};
use crate::iscsi::pdu::*;
use crate::iscsi::serial::{CmdSn, DataSn, StatSn};

use super::model::Target;

/// One PDU from the target.
pub struct Pdu {
    pub bhs: Bhs,
    pub data: Vec<u8>,
}

pub struct Initiator {
    pub target: Target,
    pub cmd_sn: CmdSn,
    pub tag: u32,
    pub header_digest: DigestMode,
    pub data_digest: DigestMode,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub max_segment: u32,
    pub first_burst: u32,
    pub expected_stat_sn: Option<u32>,
}

/// The keys of a normal login without any operational key.
pub const NAMES: &str =
    "InitiatorName=iqn.2026-01.test:a\0TargetName=iqn.2026-11.io.atoll:demo\0SessionType=Normal\0";

pub fn login_header(text: &str, current_stage: Stage, next_stage: Stage) -> LoginRequest {
    LoginRequest {
        immediate: true,
        transit: true,
        is_continued: false,
        current_stage,
        next_stage,
        version_max: 0,
        version_min: 0,
        isid: Isid([0x80, 1, 2, 3, 4, 5]),
        tsih: Tsih::NONE,
        initiator_task_tag: InitiatorTaskTag(1),
        cid: Cid(0),
        cmd_sn: CmdSn(0xffff_fff0),
        exp_stat_sn: StatSn(0),
        data_segment_length: text.len() as u32,
    }
}

/// Header and padded data without digests.
pub fn plain(bhs: &Bhs, data: &[u8]) -> Vec<u8> {
    let mut bytes = bhs.0.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(48 + data.len().next_multiple_of(4), 0);
    bytes
}

impl Initiator {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            cmd_sn: CmdSn(0xffff_fff0),
            tag: 100,
            header_digest: DigestMode::None,
            data_digest: DigestMode::None,
            initial_r2t: true,
            immediate_data: true,
            max_segment: 8192,
            first_burst: 65536,
            expected_stat_sn: None,
        }
    }

    /// Logs in with these operational keys and returns the answer.
    pub fn login(&mut self, keys: &str) -> String {
        let text = format!("{NAMES}{keys}");
        let header = login_header(
            &text,
            Stage::OperationalNegotiation,
            Stage::FullFeaturePhase,
        );
        let answer = self.exchange(&plain(&header.encode(), text.as_bytes()));
        let response = LoginResponse::decode(&answer[0].bhs);
        assert_eq!(response.status, [0, 0]);
        assert_eq!(response.tsih, Tsih(7));
        let text = String::from_utf8(answer[0].data.clone()).unwrap();
        let has = |pair: &str| text.split('\0').any(|item| item == pair);
        let digest = |key: &str| {
            if has(key) {
                DigestMode::Crc32c
            } else {
                DigestMode::None
            }
        };
        self.header_digest = digest("HeaderDigest=CRC32C");
        self.data_digest = digest("DataDigest=CRC32C");
        self.initial_r2t = !has("InitialR2T=No");
        self.immediate_data = !has("ImmediateData=No");
        text
    }

    /// A PDU as negotiated.
    pub fn pdu(&self, bhs: &Bhs, data: &[u8]) -> Vec<u8> {
        let mut bytes = bhs.0.to_vec();
        if self.header_digest == DigestMode::Crc32c {
            bytes.extend_from_slice(&crc32c(&bhs.0));
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(&padded);
        if self.data_digest == DigestMode::Crc32c && !data.is_empty() {
            bytes.extend_from_slice(&crc32c(&padded));
        }
        bytes
    }

    /// Feeds bytes and cuts what comes back.
    pub fn exchange(&mut self, bytes: &[u8]) -> Vec<Pdu> {
        self.target.feed(bytes);
        self.received()
    }

    pub fn received(&mut self) -> Vec<Pdu> {
        let output = std::mem::take(&mut self.target.output);
        let mut rest = output.as_slice();
        let mut pdus = Vec::new();
        while !rest.is_empty() {
            let bhs = Bhs(rest[..48].try_into().unwrap());
            rest = &rest[48..];
            if self.header_digest == DigestMode::Crc32c {
                assert_eq!(rest[..4], crc32c(&bhs.0), "header digest");
                rest = &rest[4..];
            }
            let length = bhs.data_segment_length() as usize;
            let padded = length.next_multiple_of(4);
            let data = rest[..length].to_vec();
            assert!(rest[length..padded].iter().all(|byte| *byte == 0));
            if self.data_digest == DigestMode::Crc32c && length > 0 {
                assert_eq!(
                    rest[padded..padded + 4],
                    crc32c(&rest[..padded]),
                    "data digest"
                );
                rest = &rest[4..];
            }
            rest = &rest[padded..];
            self.check_stat_sn(&bhs);
            pdus.push(Pdu { bhs, data });
        }
        pdus
    }

    fn check_stat_sn(&mut self, bhs: &Bhs) {
        let (current, consumes) = match bhs.opcode() {
            Opcode::R2t => (R2t::decode(bhs).numbers.stat_sn.0, false),
            Opcode::DataIn => match DataIn::decode(bhs) {
                pdu if pdu.status.is_some() => (pdu.numbers.stat_sn.0, true),
                _ => return,
            },
            Opcode::NopIn => {
                let nop = NopIn::decode(bhs);
                (
                    nop.numbers.stat_sn.0,
                    nop.initiator_task_tag != InitiatorTaskTag::RESERVED,
                )
            }
            _ => (Reject::decode(bhs).numbers.stat_sn.0, true),
        };
        let expected = *self.expected_stat_sn.get_or_insert(current);
        assert_eq!(current, expected, "StatSN of {:?}", bhs.opcode());
        self.expected_stat_sn = Some(expected.wrapping_add(u32::from(consumes)));
    }

    pub fn command(&mut self, write: bool, length: u32) -> ScsiCommand {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.next();
        self.tag += 1;
        ScsiCommand {
            immediate: false,
            is_final: true,
            read: !write && length > 0,
            write,
            attribute: TaskAttribute::Simple,
            ahs_length: 0,
            lun: Lun([0; 8]),
            initiator_task_tag: InitiatorTaskTag(self.tag),
            expected_data_transfer_length: length,
            cmd_sn,
            exp_stat_sn: StatSn(0),
            cdb: [0; 16],
            data_segment_length: 0,
        }
    }

    /// One sequence of Data-Out for `data[from..to]`.
    pub fn data_out(
        &self,
        command: &ScsiCommand,
        tag: TargetTransferTag,
        data: &[u8],
        from: usize,
        to: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut at, mut data_sn) = (from, DataSn(0));
        loop {
            let end = to.min(at + self.max_segment as usize);
            let bhs = DataOut {
                is_final: end == to,
                lun: command.lun,
                initiator_task_tag: command.initiator_task_tag,
                target_transfer_tag: tag,
                exp_stat_sn: StatSn(0),
                data_sn,
                buffer_offset: at as u32,
                data_segment_length: (end - at) as u32,
            };
            bytes.extend(self.pdu(&bhs.encode(), &data[at..end]));
            (at, data_sn) = (end, data_sn.next());
            if at == to {
                return bytes;
            }
        }
    }

    /// Writes as an eager initiator does: all the unsolicited data that is allowed, then what R2Ts ask.
    pub fn write(&mut self, data: &[u8]) -> ScsiResponse {
        let mut command = self.command(true, data.len() as u32);
        let burst = data.len().min(self.first_burst as usize);
        let immediate = if self.immediate_data {
            burst.min(self.max_segment as usize)
        } else {
            0
        };
        command.is_final = self.initial_r2t || burst == immediate;
        command.data_segment_length = immediate as u32;
        let mut bytes = self.pdu(&command.encode(), &data[..immediate]);
        if !command.is_final {
            bytes.extend(self.data_out(
                &command,
                TargetTransferTag::RESERVED,
                data,
                immediate,
                burst,
            ));
        }
        let mut answers = self.exchange(&bytes);
        loop {
            let mut bytes = Vec::new();
            for answer in &answers {
                match answer.bhs.opcode() {
                    Opcode::R2t => {
                        let r2t = R2t::decode(&answer.bhs);
                        let from = r2t.buffer_offset as usize;
                        let to = from + r2t.desired_data_transfer_length as usize;
                        bytes.extend(self.data_out(
                            &command,
                            r2t.target_transfer_tag,
                            data,
                            from,
                            to,
                        ));
                    }
                    Opcode::ScsiResponse => return ScsiResponse::decode(&answer.bhs),
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(!bytes.is_empty(), "no R2T and no response");
            answers = self.exchange(&bytes);
        }
    }

    /// Sends a read and puts the answer together; also the number of Data-In PDUs and the residual.
    pub fn read(&mut self, expected: u32) -> (Vec<u8>, Residual) {
        let command = self.command(false, expected);
        let bytes = self.pdu(&command.encode(), &[]);
        let mut data = Vec::new();
        for (number, answer) in self.exchange(&bytes).iter().enumerate() {
            match answer.bhs.opcode() {
                Opcode::DataIn => {
                    let pdu = DataIn::decode(&answer.bhs);
                    assert_eq!(
                        (pdu.buffer_offset as usize, pdu.data_sn),
                        (data.len(), DataSn(number as u32))
                    );
                    data.extend_from_slice(&answer.data);
                    if let Some((status, residual)) = pdu.status {
                        assert!(pdu.is_final && status == 0);
                        return (data, residual);
                    }
                }
                Opcode::ScsiResponse => return (data, ScsiResponse::decode(&answer.bhs).residual),
                other => panic!("unexpected {other:?}"),
            }
        }
        panic!("no status");
    }
}
