//! Status codes and sense data: what a command ends with (SAM-5 5.3, SPC-4 4.5).
//! Encodes both sense formats; which one is used is the logical unit's choice (D_SENSE).

use super::units::Lba;

/// SCSI status (SAM-5 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    Good = 0x00,
    CheckCondition = 0x02,
    ConditionMet = 0x04,
    Busy = 0x08,
    ReservationConflict = 0x18,
    TaskSetFull = 0x28,
    AcaActive = 0x30,
    TaskAborted = 0x40,
}

impl Status {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Sense keys (SPC-4 table 43).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SenseKey {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xA,
    AbortedCommand = 0xB,
    Reserved = 0xC,
    VolumeOverflow = 0xD,
    Miscompare = 0xE,
    Completed = 0xF,
}

impl SenseKey {
    const ALL: [SenseKey; 16] = [
        SenseKey::NoSense,
        SenseKey::RecoveredError,
        SenseKey::NotReady,
        SenseKey::MediumError,
        SenseKey::HardwareError,
        SenseKey::IllegalRequest,
        SenseKey::UnitAttention,
        SenseKey::DataProtect,
        SenseKey::BlankCheck,
        SenseKey::VendorSpecific,
        SenseKey::CopyAborted,
        SenseKey::AbortedCommand,
        SenseKey::Reserved,
        SenseKey::VolumeOverflow,
        SenseKey::Miscompare,
        SenseKey::Completed,
    ];
}

/// Where the field in error was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldSource {
    /// In the CDB.
    Cdb,
    /// In the Data-Out parameter list.
    Parameters,
}

/// Sense-key specific data of ILLEGAL REQUEST: the field in error (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// CDB or parameter list.
    pub source: FieldSource,
    /// First byte of the field.
    pub byte: u16,
    /// Most significant bit of the field (7..=0), where it is not a whole byte.
    pub bit: Option<u8>,
}

/// Sense data before it has a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    pub key: SenseKey,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// INFORMATION: a block address, or an offset where the command says so.
    pub information: Option<u64>,
    /// The field in error.
    pub field: Option<FieldPointer>,
}

/// Longest encoding: header, information and sense-key specific descriptors.
pub const MAX_SENSE_LENGTH: usize = 8 + 12 + 8;
/// Length of fixed format sense data.
pub const FIXED_SENSE_LENGTH: usize = 18;

/// Encoded sense data; at most [`MAX_SENSE_LENGTH`] bytes, without heap allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenseBytes {
    bytes: [u8; MAX_SENSE_LENGTH],
    length: usize,
}

impl SenseBytes {
    /// The bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The two formats of sense data (SPC-4 4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenseFormat {
    /// Response code 70h, 18 bytes.
    Fixed,
    /// Response code 72h.
    Descriptor,
}

impl Sense {
    /// NO SENSE: nothing to report.
    pub const NONE: Sense = Sense::new(SenseKey::NoSense, 0x00, 0x00);
    /// INVALID COMMAND OPERATION CODE, pointing at byte 0.
    pub const INVALID_OPCODE: Sense =
        Sense::new(SenseKey::IllegalRequest, 0x20, 0x00).at_cdb(0, None);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Sense = Sense::new(SenseKey::IllegalRequest, 0x21, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const LUN_NOT_SUPPORTED: Sense = Sense::new(SenseKey::IllegalRequest, 0x25, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LENGTH: Sense = Sense::new(SenseKey::IllegalRequest, 0x1A, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const SAVING_NOT_SUPPORTED: Sense = Sense::new(SenseKey::IllegalRequest, 0x39, 0x00);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the transport announced a length that cannot be.
    pub const INVALID_TRANSFER_LENGTH: Sense = Sense::new(SenseKey::IllegalRequest, 0x0E, 0x03);
    /// LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED: stopped by START STOP UNIT.
    pub const STOPPED: Sense = Sense::new(SenseKey::NotReady, 0x04, 0x02);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Sense = Sense::new(SenseKey::DataProtect, 0x27, 0x00);

    /// Sense data without information or field pointer.
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        Sense {
            key,
            asc,
            ascq,
            information: None,
            field: None,
        }
    }

    /// INVALID FIELD IN CDB at `byte` (and `bit`, the field's most significant one).
    pub const fn invalid_cdb_field(byte: u16, bit: Option<u8>) -> Self {
        Sense::new(SenseKey::IllegalRequest, 0x24, 0x00).at_cdb(byte, bit)
    }

    /// INVALID FIELD IN PARAMETER LIST at `byte` (and `bit`).
    pub const fn invalid_parameter_field(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Sense::new(SenseKey::IllegalRequest, 0x26, 0x00);
        sense.field = Some(FieldPointer {
            source: FieldSource::Parameters,
            byte,
            bit,
        });
        sense
    }

    /// The same, with INFORMATION naming the block in error.
    pub const fn with_lba(self, lba: Lba) -> Self {
        self.with_information(lba.0)
    }

    /// The same, with INFORMATION that means what the condition's clause says.
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    const fn at_cdb(mut self, byte: u16, bit: Option<u8>) -> Self {
        self.field = Some(FieldPointer {
            source: FieldSource::Cdb,
            byte,
            bit,
        });
        self
    }

    /// Encodes in `format`. Fixed format has 32 bits of INFORMATION: a larger value is left out (VALID = 0).
    pub fn encode(&self, format: SenseFormat) -> SenseBytes {
        match format {
            SenseFormat::Fixed => self.encode_fixed(),
            SenseFormat::Descriptor => self.encode_descriptor(),
        }
    }

    fn encode_fixed(&self) -> SenseBytes {
        let mut bytes = [0; MAX_SENSE_LENGTH];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = (FIXED_SENSE_LENGTH - 8) as u8;
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&field.encode());
        }
        SenseBytes {
            bytes,
            length: FIXED_SENSE_LENGTH,
        }
    }

    fn encode_descriptor(&self) -> SenseBytes {
        let mut bytes = [0; MAX_SENSE_LENGTH];
        bytes[..4].copy_from_slice(&[0x72, self.key as u8, self.asc, self.ascq]);
        let mut length = 8;
        if let Some(information) = self.information {
            bytes[length..length + 3].copy_from_slice(&[0x00, 0x0A, 0x80]);
            bytes[length + 4..length + 12].copy_from_slice(&information.to_be_bytes());
            length += 12;
        }
        if let Some(field) = self.field {
            bytes[length..length + 2].copy_from_slice(&[0x02, 0x06]);
            bytes[length + 4..length + 7].copy_from_slice(&field.encode());
            length += 8;
        }
        bytes[7] = (length - 8) as u8;
        SenseBytes { bytes, length }
    }

    /// Decodes what [`Sense::encode`] produced; `None` for anything that is not current sense data of that shape.
    pub fn decode(bytes: &[u8]) -> Option<Sense> {
        match bytes.first()? & 0x7F {
            0x70 if bytes.len() >= FIXED_SENSE_LENGTH => Some(Sense {
                key: SenseKey::ALL[usize::from(bytes[2] & 0x0F)],
                asc: bytes[12],
                ascq: bytes[13],
                information: (bytes[0] & 0x80 != 0).then(|| super::units::be(bytes, 3, 4)),
                field: FieldPointer::decode(&bytes[15..18]),
            }),
            0x72 if bytes.len() >= 8 => Self::decode_descriptors(bytes),
            _ => None,
        }
    }

    fn decode_descriptors(bytes: &[u8]) -> Option<Sense> {
        let mut sense = Sense::new(
            SenseKey::ALL[usize::from(bytes[1] & 0x0F)],
            bytes[2],
            bytes[3],
        );
        let mut rest = bytes.get(8..8 + usize::from(bytes[7]))?;
        while let [kind, length, ..] = rest {
            let body = rest.get(2..2 + usize::from(*length))?;
            match (kind, body.len()) {
                (0x00, 0x0A) => sense.information = Some(super::units::be(body, 2, 8)),
                (0x02, 0x06) => sense.field = FieldPointer::decode(&body[2..5]),
                _ => {}
            }
            rest = &rest[2 + body.len()..];
        }
        Some(sense)
    }
}

impl FieldPointer {
    fn encode(self) -> [u8; 3] {
        let mut first = 0x80;
        if self.source == FieldSource::Cdb {
            first |= 0x40;
        }
        if let Some(bit) = self.bit {
            first |= 0x08 | (bit & 0x07);
        }
        let [high, low] = self.byte.to_be_bytes();
        [first, high, low]
    }

    fn decode(bytes: &[u8]) -> Option<FieldPointer> {
        let [first, high, low] = bytes else {
            return None;
        };
        (first & 0x80 != 0).then(|| FieldPointer {
            source: if first & 0x40 != 0 {
                FieldSource::Cdb
            } else {
                FieldSource::Parameters
            },
            byte: u16::from_be_bytes([*high, *low]),
            bit: (first & 0x08 != 0).then_some(first & 0x07),
        })
    }
}
