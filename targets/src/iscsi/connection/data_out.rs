//! Data from the initiator: immediate, unsolicited and solicited by R2T (RFC 7143 §4.2.5, §11.7, §11.8).
//! It checks the sequence and asks for more; the bytes themselves pass by in `receive`.
use super::dispatch::Begun;
use super::receive::Sink;
use super::tasks::{Deferred, TaskHandle};
use super::{CallError, Connection, Event};
use crate::iscsi::error::Violation;
use crate::iscsi::pdu::{Bhs, DataOut, Opcode, R2t, TargetTransferTag};
use crate::iscsi::serial::{DataSn, R2tSn};

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// Says how many bytes of a write the server wants, from offset 0; what exceeds the initiator's
    /// expected length is not asked for. Returns how many will come. Data beyond is swallowed.
    pub fn expect_data_out(&mut self, task: TaskHandle, length: u32) -> Result<u32, CallError> {
        let state = self.tasks.get_mut(task).ok_or(CallError::TaskGone)?;
        if state.deferred.is_some() {
            return Err(CallError::TaskGone);
        }
        if state.data_out.wanted.is_some() {
            return Err(CallError::NotWaiting);
        }
        let wanted = if state.write {
            length.min(state.expected)
        } else {
            0
        };
        state.data_out.wanted = Some(wanted);
        self.progress(task);
        Ok(wanted)
    }

    /// Wants more of a write of which all that was wanted has come: up to `length` bytes from offset 0. So a server takes
    /// a long write in steps, as it has memory for them. The first step must have covered all unsolicited data.
    pub fn extend_data_out(&mut self, task: TaskHandle, length: u32) -> Result<u32, CallError> {
        let state = self.tasks.get_mut(task).ok_or(CallError::TaskGone)?;
        if state.deferred.is_some() {
            return Err(CallError::TaskGone);
        }
        let data = &mut state.data_out;
        let all_there = data.announced && data.wanted == Some(data.received);
        let more = length.min(state.expected);
        if !all_there || more <= data.received {
            return Err(CallError::NotWaiting);
        }
        data.extended = Some((data.received, data.r2ts_sent));
        data.wanted = Some(more);
        data.announced = false;
        self.progress(task);
        Ok(more)
    }

    /// Checks a Data-Out header. Data of unknown tasks (aborted, refused, ignored) is swallowed.
    /// A sequence error ends the task, not the connection (§7.9): the rest of its data is swallowed,
    /// then CHECK CONDITION follows.
    pub(super) fn begin_data_out<'b>(&mut self, bhs: &Bhs) -> Begun<'b> {
        let pdu = DataOut::decode(bhs);
        let Some(handle) = self.tasks.find(pdu.initiator_task_tag) else {
            return Ok((Sink::Discard, None));
        };
        let max_burst = self.parameters.max_burst_length;
        let Some(task) = self.tasks.get_mut(handle) else {
            return Ok((Sink::Discard, None));
        };
        if task.deferred.is_some() {
            return Ok((Sink::Task(handle, 0), None));
        }
        let data = &task.data_out;
        let end = u64::from(data.received) + u64::from(pdu.data_segment_length);
        if pdu.target_transfer_tag == TargetTransferTag::RESERVED {
            if data.unsolicited_end.is_some() || end > u64::from(data.unsolicited_limit) {
                return Err(Violation::UnsolicitedData);
            }
        } else {
            let due = data.r2ts_sent != data.r2ts_done
                && pdu.target_transfer_tag == handle.transfer_tag(data.r2ts_done)
                && pdu.lun == task.lun;
            if !due {
                return Err(Violation::TransferTag);
            }
            let (base, first) = data.solicited();
            let burst = u64::from(data.r2ts_done - first) + 1;
            let burst_end = u64::from(base) + u64::from(max_burst) * burst;
            let burst_end = burst_end.min(u64::from(data.wanted.unwrap_or(0)));
            if end > burst_end || pdu.is_final != (end == burst_end) {
                return Err(Violation::TransferLength);
            }
        }
        let violation = if pdu.data_sn != data.data_sn {
            Violation::DataSequence {
                got: pdu.data_sn,
                expected: data.data_sn,
            }
        } else if pdu.buffer_offset != data.received {
            Violation::BufferOffset {
                got: pdu.buffer_offset,
                expected: data.received,
            }
        } else {
            return Ok((Sink::Task(handle, pdu.buffer_offset), None));
        };
        task.deferred = Some(Deferred::sequence_error(task.expected));
        Ok((
            Sink::Task(handle, 0),
            Some(Event::TaskFailed {
                task: handle,
                violation,
            }),
        ))
    }

    /// The data of a command PDU or a Data-Out is there and verified.
    pub(super) fn finish_data_out(
        &mut self,
        handle: TaskHandle,
        bhs: &Bhs,
    ) -> Result<(), Violation> {
        let Some(task) = self.tasks.get_mut(handle) else {
            return Ok(());
        };
        let data = &mut task.data_out;
        // Saturates only for a failed task, whose data nobody counts.
        data.received = data.received.saturating_add(bhs.data_segment_length());
        if bhs.opcode() == Opcode::DataOut {
            let pdu = DataOut::decode(bhs);
            data.data_sn = if pdu.is_final {
                DataSn(0)
            } else {
                data.data_sn.next()
            };
            if pdu.target_transfer_tag == TargetTransferTag::RESERVED {
                if pdu.is_final {
                    data.unsolicited_end = Some(data.received);
                }
            } else if pdu.is_final && data.r2ts_done != data.r2ts_sent {
                data.r2ts_done += 1;
            }
        }
        self.progress(handle);
        Ok(())
    }

    /// Does what has become possible for a task: R2Ts, the report that all is there, a deferred response.
    fn progress(&mut self, handle: TaskHandle) {
        let Some(task) = self.tasks.get_mut(handle) else {
            return;
        };
        if task.deferred.is_some() {
            if !task.data_in_flight() {
                self.respond_deferred(handle);
            }
            return;
        }
        let (Some(end), Some(wanted)) = (task.data_out.unsolicited_end, task.data_out.wanted)
        else {
            return;
        };
        if task.data_out.received >= wanted.max(end) && !task.data_out.announced {
            task.data_out.announced = true;
            self.ready.push_back(handle);
            return;
        }
        self.request_transfers(handle, wanted);
    }

    fn request_transfers(&mut self, handle: TaskHandle, wanted: u32) {
        let burst = self.parameters.max_burst_length;
        let numbers = self.numbers();
        let Some(task) = self.tasks.get_mut(handle) else {
            return;
        };
        let data = &mut task.data_out;
        while data.r2ts_sent - data.r2ts_done < self.parameters.max_outstanding_r2t {
            let (base, first) = data.solicited();
            let offset = u64::from(base) + u64::from(burst) * u64::from(data.r2ts_sent - first);
            let Some(offset) = u32::try_from(offset).ok().filter(|offset| *offset < wanted) else {
                return;
            };
            let r2t = R2t {
                lun: task.lun,
                initiator_task_tag: task.initiator_task_tag,
                target_transfer_tag: handle.transfer_tag(data.r2ts_sent),
                numbers,
                r2t_sn: R2tSn(data.r2ts_sent),
                buffer_offset: offset,
                desired_data_transfer_length: burst.min(wanted - offset),
            };
            data.r2ts_sent += 1;
            self.output.push(&r2t.encode(), Vec::new());
        }
    }
}
