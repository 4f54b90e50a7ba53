//! The Basic Header Segment (RFC 7143 §11.2.1) as 48 bytes with big-endian field access, and the
//! small types that most PDUs share. Knows no PDU type.
use crate::iscsi::limits::BHS_LENGTH;
use crate::iscsi::serial::{CmdSn, StatSn};

/// 48 raw header bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bhs(pub [u8; BHS_LENGTH]);

/// Bit 6 of byte 0: immediate delivery.
const IMMEDIATE: u8 = 0x40;
/// Bit 7 of byte 1: F (final) or, in login, T.
pub(super) const FINAL: u8 = 0x80;

impl Bhs {
    pub(super) fn new(opcode: Opcode, flags: u8) -> Self {
        let mut bhs = Self([0; BHS_LENGTH]);
        bhs.0[0] = opcode.to_bits();
        bhs.0[1] = flags;
        bhs
    }
    /// The operation code, §11.2.1.2.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        Opcode::from_bits(self.0[0] & 0x3f)
    }
    /// The I bit, §11.2.1.1.
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.0[0] & IMMEDIATE != 0
    }
    pub(super) fn immediate(mut self, immediate: bool) -> Self {
        if immediate {
            self.0[0] |= IMMEDIATE;
        }
        self
    }
    /// Bytes of Additional Header Segments, §11.2.1.5.
    #[must_use]
    pub fn ahs_length(&self) -> usize {
        usize::from(self.0[4]) * 4
    }
    /// Bytes of data without padding, §11.2.1.6.
    #[must_use]
    pub fn data_segment_length(&self) -> u32 {
        self.u32(4) & 0x00ff_ffff
    }
    pub(super) fn data(mut self, length: u32) -> Self {
        debug_assert!(length < 1 << 24);
        let [_, bytes @ ..] = length.to_be_bytes();
        self.0[5..8].copy_from_slice(&bytes);
        self
    }
    /// Bytes 16-19, which every request and most responses use so.
    #[must_use]
    pub fn initiator_task_tag(&self) -> InitiatorTaskTag {
        InitiatorTaskTag(self.u32(16))
    }
    /// Bytes 24-27 of the requests that carry one.
    #[must_use]
    pub fn cmd_sn(&self) -> CmdSn {
        CmdSn(self.u32(24))
    }
    pub(super) fn has(&self, at: usize, bit: u8) -> bool {
        self.0[at] & bit != 0
    }
    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }
    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
    pub(super) fn put<const N: usize>(mut self, at: usize, bytes: [u8; N]) -> Self {
        self.0[at..at + N].copy_from_slice(&bytes);
        self
    }
    pub(super) fn put16(self, at: usize, value: u16) -> Self {
        self.put(at, value.to_be_bytes())
    }
    pub(super) fn put32(self, at: usize, value: u32) -> Self {
        self.put(at, value.to_be_bytes())
    }
    pub(super) fn sequence_numbers(&self) -> SequenceNumbers {
        SequenceNumbers {
            stat_sn: StatSn(self.u32(24)),
            exp_cmd_sn: CmdSn(self.u32(28)),
            max_cmd_sn: CmdSn(self.u32(32)),
        }
    }
    pub(super) fn put_sequence_numbers(self, numbers: SequenceNumbers) -> Self {
        self.put32(24, numbers.stat_sn.0)
            .put32(28, numbers.exp_cmd_sn.0)
            .put32(32, numbers.max_cmd_sn.0)
    }
}

/// What every PDU of the target carries in bytes 24-35.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SequenceNumbers {
    /// StatSN, §11.4.8.
    pub stat_sn: StatSn,
    /// ExpCmdSN, §11.4.9.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN, §11.4.10.
    pub max_cmd_sn: CmdSn,
}

/// Initiator Task Tag, §11.2.1.8: opaque to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InitiatorTaskTag(pub u32);

impl InitiatorTaskTag {
    /// No task.
    pub const RESERVED: Self = Self(u32::MAX);
}

/// Target Transfer Tag, §11.7.4: ours, opaque to the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetTransferTag(pub u32);

impl TargetTransferTag {
    /// No transfer: unsolicited data, first request, no answer wanted.
    pub const RESERVED: Self = Self(u32::MAX);
}

/// The eight bytes of a logical unit number (SAM-5), opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Lun(pub [u8; 8]);

macro_rules! opcodes {
    ($($name:ident = $bits:literal),* $(,)?) => {
        /// Operation codes, §11.2.1.2.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Opcode {
            $(#[doc = concat!("Opcode ", stringify!($bits), ".")] $name,)*
            /// Anything else.
            Other(u8),
        }
        impl Opcode {
            pub(super) const fn from_bits(bits: u8) -> Self {
                match bits { $($bits => Self::$name,)* other => Self::Other(other) }
            }
            pub(super) const fn to_bits(self) -> u8 {
                match self { $(Self::$name => $bits,)* Self::Other(bits) => bits }
            }
        }
    };
}

opcodes! {
    NopOut = 0x00, ScsiCommand = 0x01, TaskManagementRequest = 0x02, LoginRequest = 0x03,
    TextRequest = 0x04, DataOut = 0x05, LogoutRequest = 0x06, SnackRequest = 0x10,
    NopIn = 0x20, ScsiResponse = 0x21, TaskManagementResponse = 0x22, LoginResponse = 0x23,
    TextResponse = 0x24, DataIn = 0x25, LogoutResponse = 0x26, R2t = 0x31,
    AsyncMessage = 0x32, Reject = 0x3f,
}
