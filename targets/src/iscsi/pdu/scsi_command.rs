//! SCSI Command (RFC 7143 §11.3) and the Additional Header Segments that only it may carry (§11.2.2).
//! The CDB is opaque here.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode};
use crate::iscsi::limits::MAX_CDB_LENGTH;
use crate::iscsi::serial::{CmdSn, StatSn};

/// R bit.
const READ: u8 = 0x40;
/// W bit.
const WRITE: u8 = 0x20;

/// SCSI Command, §11.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiCommand {
    /// The I bit: delivered at once, outside the CmdSN order.
    pub immediate: bool,
    /// F: no unsolicited Data-Out follows.
    pub is_final: bool,
    /// R: the command expects data to the initiator.
    pub read: bool,
    /// W: the command expects data to the target.
    pub write: bool,
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// Bytes of Additional Header Segments, a multiple of 4.
    pub ahs_length: usize,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Bytes that the initiator expects to be transferred.
    pub expected_data_transfer_length: u32,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// The first 16 bytes of the CDB.
    pub cdb: [u8; 16],
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl ScsiCommand {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.is_immediate(),
            is_final: bhs.has(1, FINAL),
            read: bhs.has(1, READ),
            write: bhs.has(1, WRITE),
            attribute: TaskAttribute::from_bits(bhs.0[1] & 0x07),
            ahs_length: bhs.ahs_length(),
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            expected_data_transfer_length: bhs.u32(20),
            cmd_sn: bhs.cmd_sn(),
            exp_stat_sn: StatSn(bhs.u32(28)),
            cdb: bhs.array(32),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        let mut flags = self.attribute.to_bits();
        if self.is_final {
            flags |= FINAL;
        }
        if self.read {
            flags |= READ;
        }
        if self.write {
            flags |= WRITE;
        }

        Bhs::new(Opcode::ScsiCommand, flags)
            .immediate(self.immediate)
            .data(self.data_segment_length)
            .put(4, [(self.ahs_length / 4) as u8])
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.expected_data_transfer_length)
            .put32(24, self.cmd_sn.0)
            .put32(28, self.exp_stat_sn.0)
            .put(32, self.cdb)
    }
}

/// Task attributes, §11.3.1; their meaning is SAM-5's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskAttribute {
    /// 0.
    Untagged,
    /// 1.
    Simple,
    /// 2.
    Ordered,
    /// 3.
    HeadOfQueue,
    /// 4.
    Aca,
    /// Reserved codes.
    Other(u8),
}

impl TaskAttribute {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Untagged,
            1 => Self::Simple,
            2 => Self::Ordered,
            3 => Self::HeadOfQueue,
            4 => Self::Aca,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::Untagged => 0,
            Self::Simple => 1,
            Self::Ordered => 2,
            Self::HeadOfQueue => 3,
            Self::Aca => 4,
            Self::Other(bits) => bits,
        }
    }
}

/// What the Additional Header Segments of a command say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ahs {
    /// CDB bytes after the sixteenth, §11.2.2.3.
    pub extended_cdb: Option<Box<[u8]>>,
    /// Expected Bidirectional Read Data Length, §11.2.2.4.
    pub bidirectional_read_length: Option<u32>,
}

/// Why Additional Header Segments are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AhsError {
    /// A segment does not fit the area.
    #[error("an additional header segment is longer than TotalAHSLength allows")]
    Length,
    /// An unknown type.
    #[error("additional header segment of unknown type {0}")]
    Type(u8),
    /// One kind twice.
    #[error("additional header segment of type {0} appears twice")]
    Twice(u8),
    /// CDB longer than [`MAX_CDB_LENGTH`].
    #[error("extended CDB is longer than {MAX_CDB_LENGTH} bytes")]
    CdbLength,
}

/// Parses the whole AHS area of a command, §11.2.2: AHSLength counts what follows the type byte.
pub fn parse_ahs(mut area: &[u8]) -> Result<Ahs, AhsError> {
    let mut ahs = Ahs::default();
    while !area.is_empty() {
        let [high, low, kind, _, rest @ ..] = area else {
            return Err(AhsError::Length);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let content = length
            .checked_sub(1)
            .and_then(|n| rest.get(..n))
            .ok_or(AhsError::Length)?;
        match *kind & 0x3f {
            1 if ahs.extended_cdb.is_some() => return Err(AhsError::Twice(1)),
            1 if 16 + content.len() > MAX_CDB_LENGTH => return Err(AhsError::CdbLength),
            1 => ahs.extended_cdb = Some(content.into()),
            2 if ahs.bidirectional_read_length.is_some() => return Err(AhsError::Twice(2)),
            2 => {
                let bytes: [u8; 4] = content.try_into().map_err(|_| AhsError::Length)?;
                ahs.bidirectional_read_length = Some(u32::from_be_bytes(bytes));
            }
            other => return Err(AhsError::Type(other)),
        }
        area = rest
            .get(content.len().next_multiple_of(4)..)
            .ok_or(AhsError::Length)?;
    }
    Ok(ahs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_cdb_is_found_and_a_wrong_length_refused() {
        let area = [0, 5, 1, 0, 0x11, 0x22, 0x33, 0x44, 0, 5, 2, 0, 0, 0, 2, 0];
        let ahs = parse_ahs(&area).unwrap();
        assert_eq!(
            ahs.extended_cdb.as_deref(),
            Some(&[0x11, 0x22, 0x33, 0x44][..])
        );
        assert_eq!(ahs.bidirectional_read_length, Some(512));
        assert_eq!(
            parse_ahs(&area[..8]).unwrap().bidirectional_read_length,
            None
        );
        assert_eq!(parse_ahs(&area[..4]), Err(AhsError::Length));
        assert_eq!(parse_ahs(&[0, 0, 1, 0]), Err(AhsError::Length));
        assert_eq!(parse_ahs(&[0, 1, 9, 0]), Err(AhsError::Type(9)));
        assert_eq!(
            parse_ahs(&[0, 6, 1, 0, 1, 2, 3, 4, 5]),
            Err(AhsError::Length)
        );
        assert_eq!(
            parse_ahs(&[0, 1, 1, 0, 0, 1, 1, 0]),
            Err(AhsError::Twice(1))
        );
    }

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "scsi_command",
        ScsiCommand,
        ScsiCommand {
            immediate: false,
            is_final: true,
            read: false,
            write: true,
            attribute: TaskAttribute::Simple,
            ahs_length: 0,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            expected_data_transfer_length: 0x1_0000,
            cmd_sn: CmdSn(0x44),
            exp_stat_sn: StatSn(0x55),
            cdb: [0x2a, 0, 0, 0, 0, 8, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
            data_segment_length: 0x2000,
        }
    );
}
