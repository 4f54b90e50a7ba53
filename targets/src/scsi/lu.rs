//! A logical unit: turns a parsed command into an answer or a volume operation. Shared by all nexuses and cores
//! (its little state is atomic); does no I/O, keeps no queue and knows no transport.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::command::{Command, ModeForm};
use super::config::{ConfigError, LuConfig, check_capacity};
use super::lun::Lun;
use super::mode::{self, ModeContext, ModeValues};
use super::nexus::{Generations, Nexus, UnitAttention};
use super::sense::{Sense, SenseBytes, SenseFormat};
use super::units::{Blocks, ByteCount};
use super::volume::{Action, Response, VolumeOp};
use super::{inquiry, log, report};

/// A logical unit of a direct access block device.
#[derive(Debug)]
pub struct LogicalUnit {
    pub(super) config: LuConfig,
    blocks: AtomicU64,
    d_sense: AtomicBool,
    stopped: AtomicBool,
    /// The pool's space is below the threshold, and that has been told.
    low: AtomicBool,
    resets: AtomicU32,
    mode_changes: AtomicU32,
    capacity_changes: AtomicU32,
    thresholds: AtomicU32,
}

/// A command with what the transport knows about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub command: &'a Command,
    /// The Data-Out bytes that the initiator announced (iSCSI: Expected Data Transfer Length of a write), else 0.
    pub offered: ByteCount,
    /// The parameter list or pattern gathered, as [`Command::data_out`] asked for; empty for the payload of WRITE.
    pub data_out: &'a [u8],
    /// The logical units of the target that this nexus may see, for REPORT LUNS.
    pub luns: &'a [Lun],
}

impl LogicalUnit {
    /// A started logical unit. Errors: a configuration out of its ranges.
    pub fn new(config: LuConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(LogicalUnit {
            blocks: AtomicU64::new(config.blocks.0),
            config,
            d_sense: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            low: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            mode_changes: AtomicU32::new(0),
            capacity_changes: AtomicU32::new(0),
            thresholds: AtomicU32::new(0),
        })
    }

    /// The configuration as given; the capacity may have changed since.
    pub fn config(&self) -> &LuConfig {
        &self.config
    }

    /// The capacity now.
    pub fn capacity(&self) -> Blocks {
        Blocks(self.blocks.load(Ordering::Acquire))
    }

    /// A new I_T nexus: its first command gets POWER ON OCCURRED.
    pub fn attach(&self) -> Nexus {
        Nexus::new(self.generations())
    }

    /// The volume was resized: every nexus gets CAPACITY DATA HAS CHANGED. When shrinking, call this before blocks are
    /// cut off, so that no later command reaches them; the volume itself refuses those already on their way.
    pub fn set_capacity(&self, blocks: Blocks) -> Result<(), ConfigError> {
        check_capacity(self.config.block_size, blocks)?;
        if self.blocks.swap(blocks.0, Ordering::AcqRel) != blocks.0 {
            self.capacity_changes.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The pool has this much space. Where it has come below the threshold, every nexus gets THIN PROVISIONING SOFT
    /// THRESHOLD REACHED, once until there is clearly more again.
    pub fn set_available(&self, available: ByteCount) {
        let Some(threshold) = &self.config.threshold else {
            return;
        };
        if threshold.is_reached(self.config.block_size, available) {
            if !self.low.swap(true, Ordering::AcqRel) {
                self.thresholds.fetch_add(1, Ordering::AcqRel);
            }
        } else if threshold.is_left(self.config.block_size, available) {
            self.low.store(false, Ordering::Release);
        }
    }

    /// LOGICAL UNIT RESET (SAM-5 6.3.3): mode parameters return to their defaults, the unit is started, and every nexus
    /// gets a unit attention. Ending the unit's tasks is the server's part.
    pub fn reset(&self) {
        self.d_sense.store(false, Ordering::Release);
        self.stopped.store(false, Ordering::Release);
        self.resets.fetch_add(1, Ordering::AcqRel);
    }

    /// Encodes sense data for this unit's initiators, in the format that D_SENSE chooses.
    pub fn encode_sense(&self, sense: &Sense) -> SenseBytes {
        let format = match self.mode_values().d_sense {
            true => SenseFormat::Descriptor,
            false => SenseFormat::Fixed,
        };
        sense.encode(format)
    }

    /// Executes a command, or says what the volume has to do for it. A WRITE is to be started before its payload is
    /// gathered.
    pub fn start(&self, nexus: &mut Nexus, request: &Request<'_>) -> Action {
        nexus.observe(self.generations());
        if !request.command.passes_unit_attention()
            && let Some(condition) = nexus.take()
        {
            return Action::Done(condition.sense().into());
        }
        self.execute(nexus, request)
            .unwrap_or_else(|sense| Action::Done(sense.into()))
    }

    fn execute(&self, nexus: &mut Nexus, request: &Request<'_>) -> Result<Action, Sense> {
        let command = request.command;
        if command.needs_medium() && self.stopped.load(Ordering::Acquire) {
            return Err(Sense::STOPPED);
        }
        if command.writes_medium() && self.config.read_only {
            return Err(Sense::WRITE_PROTECTED);
        }
        match *command {
            Command::Read(transfer) => self.read(&transfer),
            Command::Write(transfer) => self.write(&transfer, request.offered),
            Command::Verify(fields) => self.verify(&fields, request),
            Command::WriteAndVerify(fields) => self.write_and_verify(&fields, request.offered),
            Command::CompareAndWrite(transfer) => {
                self.compare_and_write(&transfer, request.offered)
            }
            Command::OrWrite(transfer) => self.or_write(&transfer, request.offered),
            Command::PreFetch { lba, blocks } => self.pre_fetch(lba, blocks),
            Command::GetLbaStatus { lba, allocation } => self.lba_status(lba, allocation),
            Command::SynchronizeCache { lba, blocks } => {
                self.range(lba, blocks)?;
                Ok(Action::Volume(VolumeOp::Flush))
            }
            Command::Unmap { length } => self.unmap(length, request),
            Command::WriteSame(fields) => self.write_same(&fields, request),
            Command::LogSense {
                page,
                subpage,
                pointer,
                allocation,
            } => log::sense(&self.config, page, subpage, pointer, allocation),
            Command::StartStopUnit { start } => Ok(self.start_stop(start)),
            Command::ModeSelect { form, length } => self.mode_select(nexus, form, length, request),
            _ => self.inform(nexus, request).map(Action::Done),
        }
    }

    /// Commands that change nothing.
    fn inform(&self, nexus: &mut Nexus, request: &Request<'_>) -> Result<Response, Sense> {
        Ok(match *request.command {
            Command::Inquiry {
                page: None,
                allocation,
            } => Response::data(inquiry::standard(&self.config), allocation),
            Command::Inquiry {
                page: Some(page),
                allocation,
            } => Response::data(inquiry::vital_product_data(&self.config, page)?, allocation),
            Command::ReportLuns { select, allocation } => {
                nexus.clear(UnitAttention::ReportedLunsChanged);
                Response::data(report::luns(select, request.luns), allocation)
            }
            Command::RequestSense {
                descriptor,
                allocation,
            } => {
                let format = if descriptor {
                    SenseFormat::Descriptor
                } else {
                    SenseFormat::Fixed
                };
                Response::data(
                    self.pollable_sense(nexus)
                        .encode(format)
                        .as_slice()
                        .to_vec(),
                    allocation,
                )
            }
            Command::ModeSense(fields) => Response::data(
                mode::sense(&fields, &self.mode_context())?,
                fields.allocation,
            ),
            Command::ReadCapacity10 => {
                let data = report::capacity10(&self.config, self.capacity());
                Response::data(data, u32::MAX)
            }
            Command::ReadCapacity16 { allocation } => Response::data(
                report::capacity16(&self.config, self.capacity()),
                allocation,
            ),
            Command::ReadDefectData(fields) => {
                Response::data(report::no_defects(&fields), fields.allocation)
            }
            Command::ReportOpcodes {
                query,
                timeouts,
                allocation,
            } => Response::data(report::opcodes(query, timeouts)?, allocation),
            Command::ReportTaskManagement {
                extended,
                allocation,
            } => Response::data(report::task_management(extended), allocation),
            Command::TestUnitReady | Command::PreventAllow => Response::good(),
            // Named one by one, so that a new command is not answered by accident.
            Command::Read(_)
            | Command::Write(_)
            | Command::Verify(_)
            | Command::WriteAndVerify(_)
            | Command::CompareAndWrite(_)
            | Command::OrWrite(_)
            | Command::PreFetch { .. }
            | Command::GetLbaStatus { .. }
            | Command::SynchronizeCache { .. }
            | Command::Unmap { .. }
            | Command::WriteSame(_)
            | Command::LogSense { .. }
            | Command::StartStopUnit { .. }
            | Command::ModeSelect { .. } => return Err(Sense::INVALID_OPCODE),
        })
    }

    /// A pending unit attention, else why the unit is not ready, else nothing (SPC-4 5.6, 6.39).
    fn pollable_sense(&self, nexus: &mut Nexus) -> Sense {
        match nexus.take() {
            Some(condition) => condition.sense(),
            None if self.stopped.load(Ordering::Acquire) => Sense::STOPPED,
            None => Sense::NONE,
        }
    }

    /// Stopping makes the cache durable first, NO_FLUSH or not: flushing more than asked for is always allowed.
    fn start_stop(&self, start: bool) -> Action {
        self.stopped.store(!start, Ordering::Release);
        if start {
            Action::Done(Response::good())
        } else {
            Action::Volume(VolumeOp::Flush)
        }
    }

    fn mode_select(
        &self,
        nexus: &mut Nexus,
        form: ModeForm,
        length: u32,
        request: &Request<'_>,
    ) -> Result<Action, Sense> {
        let list = parameter_list(length, request)?;
        if !list.is_empty() {
            let values = mode::select(form, list, &self.mode_context())?;
            if self.d_sense.swap(values.d_sense, Ordering::AcqRel) != values.d_sense {
                nexus.changed_mode(self.mode_changes.fetch_add(1, Ordering::AcqRel));
            }
        }
        Ok(Action::Done(Response::good()))
    }

    fn mode_values(&self) -> ModeValues {
        ModeValues {
            d_sense: self.d_sense.load(Ordering::Acquire),
        }
    }

    fn mode_context(&self) -> ModeContext<'_> {
        ModeContext {
            config: &self.config,
            blocks: self.capacity(),
            values: self.mode_values(),
        }
    }

    fn generations(&self) -> Generations {
        Generations {
            reset: self.resets.load(Ordering::Acquire),
            mode: self.mode_changes.load(Ordering::Acquire),
            capacity: self.capacity_changes.load(Ordering::Acquire),
            threshold: self.thresholds.load(Ordering::Acquire),
        }
    }
}

/// The parameter list of `length` bytes, or PARAMETER LIST LENGTH ERROR if the initiator sent less.
pub(super) fn parameter_list<'a>(length: u32, request: &Request<'a>) -> Result<&'a [u8], Sense> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    request
        .data_out
        .get(..length)
        .ok_or(Sense::PARAMETER_LENGTH)
}
