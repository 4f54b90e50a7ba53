//! The end of tasks: Data-In, status, residuals, and abortion (RFC 7143 §11.4, §11.7). It runs nothing;
//! the server says what came out.
use super::output::PayloadCursor;
use super::tasks::{DataInState, Deferred, Task, TaskHandle};
use super::{CallError, Connection};
use crate::iscsi::limits::MAX_SENSE_LENGTH;
use crate::iscsi::pdu::{
    DataIn, InitiatorTaskTag, Lun, Residual, ScsiResponse, ServiceResponse, TargetTransferTag,
};
use crate::iscsi::serial::DataSn;

/// SAM-5 status GOOD, the one that may travel in a Data-In.
const GOOD: u8 = 0;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// SCSI status, opaque.
    pub status: u8,
    /// Sense data, empty for none; at most [`MAX_SENSE_LENGTH`] bytes are sent.
    pub sense: &'a [u8],
    /// Bytes that the SCSI command calls for, or did transfer when it failed; the difference to what the
    /// initiator expected becomes the residual.
    pub transfer_length: u64,
}

/// What Data-In PDUs say of their task.
#[derive(Clone, Copy)]
struct Reader {
    lun: Lun,
    initiator_task_tag: InitiatorTaskTag,
    expected: u32,
    progress: DataInState,
}

impl Reader {
    fn of(task: &Task) -> Self {
        Self {
            lun: task.lun,
            initiator_task_tag: task.initiator_task_tag,
            expected: task.expected,
            progress: task.data_in,
        }
    }

    /// Where its data ends with these bytes.
    fn end<P: AsRef<[u8]>>(&self, data_in: &[P]) -> u32 {
        let offered: usize = data_in.iter().map(|segment| segment.as_ref().len()).sum();
        u32::try_from(offered)
            .unwrap_or(u32::MAX)
            .saturating_add(self.progress.sent)
            .min(self.expected)
    }
}

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// Ends a task. `data_in` is the data of a read in order, behind what `send_data_in` was given; what exceeds the initiator's expected length
    /// is not sent. A response to a write waits until data in flight has arrived and is swallowed.
    pub fn complete(
        &mut self,
        task: TaskHandle,
        outcome: Outcome<'_>,
        data_in: &[P],
    ) -> Result<(), CallError> {
        let state = self
            .tasks
            .get_mut(task)
            .filter(|state| state.deferred.is_none());
        let state = state.ok_or(CallError::TaskGone)?;
        let residual = Residual::between(state.expected, outcome.transfer_length);
        let sense = &outcome.sense[..outcome.sense.len().min(MAX_SENSE_LENGTH)];
        if state.data_in_flight() {
            state.deferred = Some(Deferred {
                status: outcome.status,
                sense: sense.to_vec(),
                residual,
            });
            return Ok(());
        }
        let Some(state) = self.tasks.remove(task) else {
            return Err(CallError::TaskGone);
        };
        self.retire(state.immediate);
        if state.read {
            let status = (outcome.status == GOOD && sense.is_empty()).then_some(residual);
            let (data_in, status_sent) = self.push_data_in(Reader::of(&state), status, data_in);
            if !status_sent {
                self.push_response(&state, outcome.status, sense, residual, data_in.data_sn);
            }
        } else {
            let r2ts = DataSn(state.data_out.r2ts_sent);
            self.push_response(&state, outcome.status, sense, residual, r2ts);
        }
        Ok(())
    }

    /// Sends the next part of the data of a read that goes on; `complete` then sends the rest and the status. A part ends
    /// a sequence.
    pub fn send_data_in(&mut self, task: TaskHandle, data_in: &[P]) -> Result<(), CallError> {
        let state = self.tasks.get(task).filter(|state| state.read);
        let reader = Reader::of(state.ok_or(CallError::TaskGone)?);
        let (progress, _) = self.push_data_in(reader, None, data_in);
        if let Some(state) = self.tasks.get_mut(task) {
            state.data_in = progress;
        }
        Ok(())
    }

    /// Forgets a task without a response: it was aborted. Its late data is swallowed.
    pub fn abort_task(&mut self, task: TaskHandle) -> Result<(), CallError> {
        if self.forget(task) {
            Ok(())
        } else {
            Err(CallError::TaskGone)
        }
    }

    pub(super) fn forget(&mut self, task: TaskHandle) -> bool {
        let removed = self.tasks.remove(task);
        if let Some(state) = &removed {
            self.retire(state.immediate);
        }
        removed.is_some()
    }

    pub(super) fn respond_deferred(&mut self, task: TaskHandle) {
        let Some(mut state) = self.tasks.remove(task) else {
            return;
        };
        self.retire(state.immediate);
        if let Some(deferred) = state.deferred.take() {
            let r2ts = DataSn(state.data_out.r2ts_sent);
            self.push_response(
                &state,
                deferred.status,
                &deferred.sense,
                deferred.residual,
                r2ts,
            );
        }
    }

    /// Bytes of the Data-In PDU at `offset`.
    fn data_in_step(&self, offset: u32, total: u32) -> u32 {
        let burst = self.parameters.max_burst_length;
        let in_burst = burst - offset % burst;
        in_burst
            .min(self.parameters.max_recv_data_segment_length)
            .min(total - offset)
    }

    /// Queues the Data-In PDUs. With a residual the last one carries GOOD status, if there is one: it says whether.
    fn push_data_in(
        &mut self,
        reader: Reader,
        good: Option<Residual>,
        data_in: &[P],
    ) -> (DataInState, bool) {
        let total = reader.end(data_in);
        let DataInState {
            sent: mut offset,
            mut data_sn,
        } = reader.progress;
        let mut status_sent = false;
        let mut cursor = PayloadCursor::new(data_in);
        while offset < total {
            let length = self.data_in_step(offset, total);
            let end = offset + length;
            let last = end == total;
            let status = good.filter(|_| last).map(|residual| (GOOD, residual));
            let mut numbers = if status.is_some() {
                self.status_numbers()
            } else {
                self.numbers()
            };
            if status.is_none() {
                // Reserved without S (§11.7.6).
                numbers.stat_sn = Default::default();
            }
            status_sent |= status.is_some();
            let pdu = DataIn {
                is_final: last || end.is_multiple_of(self.parameters.max_burst_length),
                status,
                lun: reader.lun,
                initiator_task_tag: reader.initiator_task_tag,
                target_transfer_tag: TargetTransferTag::RESERVED,
                numbers,
                data_sn,
                buffer_offset: offset,
                data_segment_length: length,
            };
            self.output
                .push_payload(&pdu.encode(), &mut cursor, length as usize);
            (offset, data_sn) = (end, data_sn.next());
        }
        let progress = DataInState {
            sent: offset,
            data_sn,
        };
        (progress, status_sent)
    }

    fn push_response(
        &mut self,
        state: &Task,
        status: u8,
        sense: &[u8],
        residual: Residual,
        exp_data_sn: DataSn,
    ) {
        let mut data = Vec::new();
        if !sense.is_empty() {
            data.extend_from_slice(&(sense.len() as u16).to_be_bytes());
            data.extend_from_slice(sense);
        }
        let response = ScsiResponse {
            residual,
            response: ServiceResponse::CommandCompleted,
            status,
            initiator_task_tag: state.initiator_task_tag,
            numbers: self.status_numbers(),
            exp_data_sn,
            data_segment_length: data.len() as u32,
        };
        self.output.push(&response.encode(), data);
    }
}
