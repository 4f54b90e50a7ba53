//! Commands as typed values, and how much data each moves. Parsed from CDBs by the table in `opcodes`;
//! nothing here looks at a logical unit's state.

use super::opcodes;
use super::sense::Sense;
use super::units::{BlockSize, Blocks, ByteCount, Lba};

/// A command that this device server supports, with the fields of its CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY (SPC-4 6.47).
    TestUnitReady,
    /// REQUEST SENSE (SPC-4 6.39).
    RequestSense { descriptor: bool, allocation: u32 },
    /// INQUIRY (SPC-4 6.6); `page` is the VPD page when EVPD is set.
    Inquiry { page: Option<u8>, allocation: u32 },
    /// REPORT LUNS (SPC-4 6.33).
    ReportLuns {
        select: SelectReport,
        allocation: u32,
    },
    /// MODE SENSE 6 and 10 (SPC-4 6.11, 6.12).
    ModeSense(ModeSense),
    /// MODE SELECT 6 and 10 (SPC-4 6.9, 6.10).
    ModeSelect { form: ModeForm, length: u32 },
    /// START STOP UNIT (SBC-3 5.26) without power conditions or ejection.
    StartStopUnit { start: bool },
    /// PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.12): without effect on a fixed medium.
    PreventAllow,
    /// READ CAPACITY 10 (SBC-3 5.15).
    ReadCapacity10,
    /// READ CAPACITY 16 (SBC-3 5.16).
    ReadCapacity16 { allocation: u32 },
    /// GET LBA STATUS (SBC-3 5.4) from `lba` on.
    GetLbaStatus { lba: Lba, allocation: u32 },
    /// READ 6, 10, 12 and 16.
    Read(Transfer),
    /// WRITE 6, 10, 12 and 16.
    Write(Transfer),
    /// VERIFY 10, 12 and 16 (SBC-3 5.29 to 5.31).
    Verify(Verify),
    /// WRITE AND VERIFY 10, 12 and 16 (SBC-3 5.38 to 5.40).
    WriteAndVerify(Verify),
    /// COMPARE AND WRITE (SBC-3 5.2). The first half of the Data-Out buffer is compared, the second written.
    CompareAndWrite(Transfer),
    /// ORWRITE 16 (SBC-3 5.6).
    OrWrite(Transfer),
    /// PRE-FETCH 10 and 16 (SBC-3 5.10, 5.11); 0 blocks are all from `lba` on. IMMED makes no difference.
    PreFetch { lba: Lba, blocks: Blocks },
    /// READ DEFECT DATA 10 and 12 (SBC-3 5.17, 5.18).
    ReadDefectData(ReadDefectData),
    /// LOG SENSE (SPC-4 6.8) of cumulative values, from parameter `pointer` on.
    LogSense {
        page: u8,
        subpage: u8,
        pointer: u16,
        allocation: u32,
    },
    /// SYNCHRONIZE CACHE 10 and 16 (SBC-3 5.22, 5.23). IMMED is treated as 0: answering later is allowed.
    SynchronizeCache { lba: Lba, blocks: Blocks },
    /// UNMAP (SBC-3 5.28).
    Unmap { length: u32 },
    /// WRITE SAME 10 and 16 (SBC-3 5.43, 5.44).
    WriteSame(WriteSame),
    /// REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
    ReportOpcodes {
        query: OpcodeQuery,
        timeouts: bool,
        allocation: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).
    ReportTaskManagement { extended: bool, allocation: u32 },
}

/// A read or write of consecutive blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub lba: Lba,
    pub blocks: Blocks,
    /// Disable page out: the blocks are not worth caching.
    pub dpo: bool,
    /// Force unit access: read from, or written to, stable storage.
    pub fua: bool,
    /// The CDB byte where TRANSFER LENGTH begins, for the field pointer.
    pub length_byte: u16,
}

/// BYTCHK (SBC-3 table 126): what the verified blocks are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: nothing; that they can be read is enough.
    Medium,
    /// 01b: each with its own block of the Data-Out buffer.
    Each,
    /// 11b: each with the one block in the Data-Out buffer.
    Single,
}

/// VERIFY's and WRITE AND VERIFY's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    pub lba: Lba,
    pub blocks: Blocks,
    pub dpo: bool,
    pub check: ByteCheck,
    /// The CDB byte where VERIFICATION LENGTH or TRANSFER LENGTH begins, for the field pointer.
    pub length_byte: u16,
}

/// READ DEFECT DATA's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDefectData {
    /// Whether the header is that of READ DEFECT DATA(12).
    pub long: bool,
    /// REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT, as the header returns them.
    pub lists: u8,
    pub allocation: u32,
}

/// WRITE SAME's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSame {
    pub lba: Lba,
    pub blocks: Blocks,
    /// UNMAP: the blocks may be unmapped if they read as the pattern afterwards.
    pub unmap: bool,
    /// NDOB: no Data-Out buffer, the pattern is zeros.
    pub no_data: bool,
    /// The CDB byte where NUMBER OF LOGICAL BLOCKS begins, for the field pointer.
    pub length_byte: u16,
}

/// SELECT REPORT of REPORT LUNS (SPC-4 table 282).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectReport {
    /// 00h: logical units other than well known ones.
    Units,
    /// 01h: well known logical units.
    WellKnown,
    /// 02h: all.
    All,
    /// 10h: administrative logical units.
    Administrative,
    /// 11h: administrative and simple logical units.
    AdministrativeAndSimple,
    /// 12h: what is subsidiary to the addressed administrative logical unit.
    Subsidiary,
}

/// Which of the two layouts of the mode parameter header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeForm {
    /// MODE SENSE(6), MODE SELECT(6).
    Six,
    /// MODE SENSE(10), MODE SELECT(10).
    Ten,
}

/// PC: which values MODE SENSE returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    Current,
    Changeable,
    Default,
    Saved,
}

/// MODE SENSE's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    pub form: ModeForm,
    /// DBD: no block descriptor.
    pub no_descriptor: bool,
    /// LLBAA: a 16-byte block descriptor may be returned.
    pub long_lba: bool,
    pub control: PageControl,
    pub page: u8,
    pub subpage: u8,
    pub allocation: u32,
}

/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 table 290).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpcodeQuery {
    /// 000b: all commands.
    All,
    /// 001b: one operation code that has no service actions.
    Opcode { opcode: u8 },
    /// 010b: one operation code and service action.
    ServiceAction { opcode: u8, service_action: u16 },
    /// 011b: one operation code, with the service action if it has such.
    Either { opcode: u8, service_action: u16 },
}

/// What a command takes from the Data-Out buffer. An initiator may offer less or more: the server gathers what it
/// offers, up to this, and starts the command all the same; the core judges the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataOutNeed {
    /// Nothing.
    None,
    /// A parameter list or pattern that must be gathered before [`super::LogicalUnit::start`].
    Parameters(ByteCount),
    /// The payload of a write, which goes to the volume and is not given to the core.
    Payload(ByteCount),
}

impl Command {
    /// What the Data-Out buffer must hold.
    pub fn data_out(&self, block: BlockSize) -> DataOutNeed {
        match *self {
            Command::ModeSelect { length, .. } | Command::Unmap { length } if length > 0 => {
                DataOutNeed::Parameters(ByteCount(u64::from(length)))
            }
            Command::WriteSame(WriteSame { no_data: false, .. }) => {
                DataOutNeed::Parameters(block.count(Blocks(1)))
            }
            Command::Write(Transfer { blocks, .. })
            | Command::OrWrite(Transfer { blocks, .. })
            | Command::WriteAndVerify(Verify { blocks, .. })
            | Command::Verify(Verify {
                blocks,
                check: ByteCheck::Each,
                ..
            }) if blocks > Blocks(0) => DataOutNeed::Payload(block.count(blocks)),
            Command::Verify(Verify {
                blocks,
                check: ByteCheck::Single,
                ..
            }) if blocks > Blocks(0) => DataOutNeed::Parameters(block.count(Blocks(1))),
            Command::CompareAndWrite(Transfer { blocks, .. }) if blocks > Blocks(0) => {
                DataOutNeed::Payload(block.count(Blocks(2 * blocks.0)))
            }
            _ => DataOutNeed::None,
        }
    }

    /// The most that the command can return: its allocation length, or its blocks.
    pub fn data_in_limit(&self, block: BlockSize) -> ByteCount {
        match *self {
            Command::RequestSense { allocation, .. }
            | Command::Inquiry { allocation, .. }
            | Command::ReportLuns { allocation, .. }
            | Command::ModeSense(ModeSense { allocation, .. })
            | Command::ReadCapacity16 { allocation }
            | Command::GetLbaStatus { allocation, .. }
            | Command::ReadDefectData(ReadDefectData { allocation, .. })
            | Command::LogSense { allocation, .. }
            | Command::ReportOpcodes { allocation, .. }
            | Command::ReportTaskManagement { allocation, .. } => ByteCount(u64::from(allocation)),
            Command::ReadCapacity10 => ByteCount(8),
            Command::Read(Transfer { blocks, .. }) => block.count(blocks),
            _ => ByteCount(0),
        }
    }

    /// Whether a pending unit attention condition lets the command through (SAM-5 5.14.3).
    pub(super) fn passes_unit_attention(&self) -> bool {
        matches!(
            self,
            Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. }
        )
    }

    /// Whether the command needs the medium, and so fails while the unit is stopped.
    pub(super) fn needs_medium(&self) -> bool {
        matches!(
            self,
            Command::TestUnitReady
                | Command::GetLbaStatus { .. }
                | Command::Read(_)
                | Command::Write(_)
                | Command::Verify(_)
                | Command::WriteAndVerify(_)
                | Command::CompareAndWrite(_)
                | Command::OrWrite(_)
                | Command::PreFetch { .. }
                | Command::SynchronizeCache { .. }
                | Command::Unmap { .. }
                | Command::WriteSame(_)
        )
    }

    /// Whether the command changes the medium, and so fails on a write protected one.
    pub(crate) fn writes_medium(&self) -> bool {
        matches!(
            self,
            Command::Write(_)
                | Command::WriteAndVerify(_)
                | Command::CompareAndWrite(_)
                | Command::OrWrite(_)
                | Command::Unmap { .. }
                | Command::WriteSame(_)
        )
    }
}

/// Decodes a CDB. `cdb` may be longer than the command needs (iSCSI always carries 16 bytes).
///
/// Errors: INVALID COMMAND OPERATION CODE for an operation code that is not supported; INVALID FIELD IN CDB, with a
/// field pointer, for a service action, bit or value that is not, for NACA, and for a CDB that is cut short.
/// Reserved bits that no usage map names are ignored.
pub fn parse(cdb: &[u8]) -> Result<Command, Sense> {
    let spec = opcodes::find(cdb)?;
    spec.check(cdb)?;
    (spec.decode)(&cdb[..spec.usage.len()])
}
