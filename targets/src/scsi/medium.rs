//! Commands that access the medium: their ranges, limits and lengths checked, made into volume operations (SBC-3 5).
//! What they share with all commands, and the unit's state, is in `lu`.

use super::command::{ByteCheck, Transfer, Verify, WriteSame};
use super::lu::{LogicalUnit, Request, parameter_list};
use super::sense::Sense;
use super::units::{Blocks, ByteCount, ByteRange, Lba};
use super::unmap::{self, first_outside};
use super::volume::{Action, Fill, LbaStatus, Response, VolumeOp};

impl LogicalUnit {
    pub(super) fn range(&self, lba: Lba, blocks: Blocks) -> Result<ByteRange, Sense> {
        let capacity = self.capacity();
        let range = self.config.block_size.range(lba, blocks, capacity);
        range.ok_or(Sense::LBA_OUT_OF_RANGE.with_lba(first_outside(lba, capacity)))
    }

    fn transfer_range(&self, transfer: &Transfer) -> Result<ByteRange, Sense> {
        let range = self.range(transfer.lba, transfer.blocks)?;
        if transfer.blocks > self.config.max_transfer {
            return Err(Sense::invalid_cdb_field(transfer.length_byte, None));
        }
        Ok(range)
    }

    fn verified_range(&self, fields: &Verify) -> Result<ByteRange, Sense> {
        let range = self.range(fields.lba, fields.blocks)?;
        if fields.blocks > self.config.max_transfer {
            return Err(Sense::invalid_cdb_field(fields.length_byte, None));
        }
        Ok(range)
    }

    /// A range of which 0 blocks are all from `lba` on, which then must be one.
    fn range_or_rest(&self, lba: Lba, blocks: Blocks) -> Result<ByteRange, Sense> {
        if blocks > Blocks(0) {
            return self.range(lba, blocks);
        }
        let capacity = self.capacity();
        let rest = Blocks(capacity.0.saturating_sub(lba.0));
        let range = self.config.block_size.range(lba, rest, capacity);
        range
            .filter(|range| range.length > ByteCount(0))
            .ok_or(Sense::LBA_OUT_OF_RANGE.with_lba(lba))
    }

    /// What of a range an initiator that offers so much sends: whole blocks.
    fn offered_range(&self, mut range: ByteRange, offered: ByteCount) -> Result<ByteRange, Sense> {
        if offered < range.length {
            let block = u64::from(self.config.block_size.bytes());
            if !offered.0.is_multiple_of(block) {
                return Err(Sense::INVALID_TRANSFER_LENGTH);
            }
            range.length = offered;
        }
        Ok(range)
    }

    pub(super) fn read(&self, transfer: &Transfer) -> Result<Action, Sense> {
        let range = self.transfer_range(transfer)?;
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::Read {
            range,
            fua: transfer.fua,
            dpo: transfer.dpo,
        }))
    }

    /// An initiator that announces less than the CDB asks for gets the whole blocks that it sends written; the residual
    /// tells it so. Part of a block cannot be written.
    pub(super) fn write(&self, transfer: &Transfer, offered: ByteCount) -> Result<Action, Sense> {
        let range = self.offered_range(self.transfer_range(transfer)?, offered)?;
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::Write {
            range,
            fua: transfer.fua,
            dpo: transfer.dpo,
        }))
    }

    /// Blocks are verified as they are on stable storage (SBC-3 4.15.3); DPO makes no difference without a cache.
    pub(super) fn verify(&self, fields: &Verify, request: &Request<'_>) -> Result<Action, Sense> {
        let range = self.verified_range(fields)?;
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(match fields.check {
            ByteCheck::Medium => VolumeOp::Verify {
                range,
                pattern: None,
            },
            ByteCheck::Each => {
                // Part of a comparison would pass for all of it.
                if request.offered < range.length {
                    return Err(Sense::INVALID_TRANSFER_LENGTH);
                }
                VolumeOp::Compare { range }
            }
            ByteCheck::Single => VolumeOp::Verify {
                range,
                pattern: Some(self.single_block(request)?.into()),
            },
        }))
    }

    /// Of less data than the CDB asks for, the whole blocks are written and verified, as WRITE does.
    pub(super) fn write_and_verify(
        &self,
        fields: &Verify,
        offered: ByteCount,
    ) -> Result<Action, Sense> {
        let range = self.offered_range(self.verified_range(fields)?, offered)?;
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::WriteAndVerify {
            range,
            compare: fields.check == ByteCheck::Each,
        }))
    }

    /// NUMBER OF LOGICAL BLOCKS has 8 bits, so that none is beyond MAXIMUM COMPARE AND WRITE LENGTH.
    pub(super) fn compare_and_write(
        &self,
        transfer: &Transfer,
        offered: ByteCount,
    ) -> Result<Action, Sense> {
        let range = self.range(transfer.lba, transfer.blocks)?;
        if offered.0 != 2 * range.length.0 {
            // More blocks than the field can count look like none, with data.
            return Err(match transfer.blocks {
                Blocks(0) => Sense::invalid_cdb_field(transfer.length_byte, None),
                _ => Sense::INVALID_TRANSFER_LENGTH,
            });
        }
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::CompareAndWrite {
            range,
            fua: transfer.fua,
        }))
    }

    /// All or nothing is merged: the command is one uninterrupted action.
    pub(super) fn or_write(
        &self,
        transfer: &Transfer,
        offered: ByteCount,
    ) -> Result<Action, Sense> {
        let range = self.transfer_range(transfer)?;
        if offered < range.length {
            return Err(Sense::INVALID_TRANSFER_LENGTH);
        }
        if range.length == ByteCount(0) {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::OrWrite {
            range,
            fua: transfer.fua,
        }))
    }

    /// GOOD and not CONDITION MET: there is no cache with room for the blocks (SBC-3 5.10), so nothing is fetched,
    /// however many are asked for.
    pub(super) fn pre_fetch(&self, lba: Lba, blocks: Blocks) -> Result<Action, Sense> {
        self.range_or_rest(lba, blocks)?;
        Ok(Action::Done(Response::good()))
    }

    /// The capacity is read once, so that a resize meanwhile cannot come between the check and the count.
    pub(super) fn lba_status(&self, lba: Lba, allocation: u32) -> Result<Action, Sense> {
        let range = self.range_or_rest(lba, Blocks(0))?;
        Ok(Action::Volume(VolumeOp::LbaStatus(LbaStatus {
            range,
            lba,
            block_size: self.config.block_size,
            allocation,
        })))
    }

    /// The one block of a Data-Out buffer that must hold exactly that.
    fn single_block<'a>(&self, request: &Request<'a>) -> Result<&'a [u8], Sense> {
        let block = self.config.block_size.bytes();
        let exact = request.offered == ByteCount(u64::from(block))
            && request.data_out.len() == block as usize;
        exact
            .then_some(request.data_out)
            .ok_or(Sense::INVALID_TRANSFER_LENGTH)
    }

    pub(super) fn unmap(&self, length: u32, request: &Request<'_>) -> Result<Action, Sense> {
        let list = parameter_list(length, request)?;
        let ranges = unmap::ranges(list, &self.config, self.capacity())?;
        if ranges.is_empty() {
            return Ok(Action::Done(Response::good()));
        }
        Ok(Action::Volume(VolumeOp::Unmap(ranges)))
    }

    pub(super) fn write_same(
        &self,
        fields: &WriteSame,
        request: &Request<'_>,
    ) -> Result<Action, Sense> {
        let range = self.range(fields.lba, fields.blocks)?;
        // 0 would mean the rest of the unit; WSNZ says that it is refused.
        if fields.blocks == Blocks(0) || fields.blocks > self.config.max_write_same {
            return Err(Sense::invalid_cdb_field(fields.length_byte, None));
        }
        let zeros = if fields.unmap {
            Fill::Unmap
        } else {
            Fill::Zeros
        };
        if fields.no_data {
            return Ok(Action::Volume(VolumeOp::WriteSame { range, fill: zeros }));
        }
        let block = self.single_block(request)?;
        // LBPRZ: an unmapped block reads as zeros, so only a pattern of zeros may be unmapped (SBC-3 4.7.3.4.4).
        let fill = match block.iter().all(|byte| *byte == 0) {
            true => zeros,
            false => Fill::Pattern(block.into()),
        };
        Ok(Action::Volume(VolumeOp::WriteSame { range, fill }))
    }
}
