//! What each request of the full feature phase starts: the order of CmdSN, commands, pings, task
//! management, logout, refusals. Data of commands is in `data_out`, text in `negotiation`.
use super::receive::Sink;
use super::tasks::Task;
use super::{
    CallError, CloseReason, Command, Connection, Event, State, TaskManagementHandle, Timestamp,
    Waiting, limits,
};
use crate::iscsi::error::Violation;
use crate::iscsi::pdu::{
    Bhs, InitiatorTaskTag, LogoutReason, LogoutRequest, LogoutResponse, LogoutResponseCode, NopIn,
    NopOut, Opcode, Reject, RejectReason, ScsiCommand, TargetTransferTag, TaskManagementFunction,
    TaskManagementRequest, TaskManagementResponse, TaskManagementResponseCode, parse_ahs,
};
use crate::iscsi::serial::DataSn;

/// What the CmdSN of a request says (§4.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Deliver,
    /// Outside the window or seen before: silently ignored.
    Ignore,
}

/// Where the data of a PDU goes, and what its header means to the server.
pub(super) type Begun<'b> = Result<(Sink, Option<Event<'b>>), Violation>;

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// Called with a complete, verified header: decides where its data goes.
    pub(super) fn begin_pdu<'b>(&mut self, bhs: &Bhs) -> Begun<'b> {
        match bhs.opcode() {
            Opcode::LoginRequest if matches!(self.state, State::Login(_)) => {
                Ok((Sink::Collect(Vec::new()), None))
            }
            Opcode::LoginRequest => Err(Violation::LoginAgain),
            Opcode::ScsiCommand => self.begin_command(bhs),
            Opcode::DataOut => self.begin_data_out(bhs),
            Opcode::NopOut | Opcode::TextRequest => Ok((Sink::Collect(Vec::new()), None)),
            _ => Ok((Sink::Discard, None)),
        }
    }

    /// Called when a PDU is complete and its data verified.
    pub(super) fn finish_pdu<'b>(
        &mut self,
        now: Timestamp,
        bhs: &Bhs,
        sink: Sink,
    ) -> Result<Option<Event<'b>>, Violation> {
        match (bhs.opcode(), sink) {
            (Opcode::ScsiCommand | Opcode::DataOut, sink) => {
                if let Sink::Task(task, _) = sink {
                    self.finish_data_out(task, bhs)?;
                }
                Ok(None)
            }
            (Opcode::LoginRequest, Sink::Collect(data)) => Ok(self.login_request(now, bhs, &data)),
            (Opcode::NopOut, Sink::Collect(data)) => self.nop_out(bhs, data).map(|()| None),
            (Opcode::TextRequest, Sink::Collect(data)) => self.text_request(bhs, &data),
            (Opcode::TaskManagementRequest, _) => self.task_management(bhs),
            (Opcode::LogoutRequest, _) => self.logout(bhs),
            (Opcode::SnackRequest, _) => {
                self.reject(bhs, RejectReason::SnackReject);
                Ok(None)
            }
            _ => {
                self.reject(bhs, RejectReason::CommandNotSupported);
                Ok(None)
            }
        }
    }

    pub(super) fn accept_cmd_sn(&mut self, bhs: &Bhs) -> Result<Order, Violation> {
        let (got, expected) = (bhs.cmd_sn(), self.exp_cmd_sn);
        if bhs.is_immediate() {
            return Ok(Order::Deliver);
        }
        if got.is_before(expected) || self.max_cmd_sn.is_before(got) {
            return Ok(Order::Ignore);
        }
        if got != expected {
            return Err(Violation::CommandGap { got, expected });
        }
        self.exp_cmd_sn = expected.next();
        Ok(Order::Deliver)
    }

    /// A request has left the queue: its place in the window is free again.
    pub(super) fn retire(&mut self, immediate: bool) {
        if !immediate {
            self.max_cmd_sn = self.max_cmd_sn.next();
        }
    }

    pub(super) fn reject(&mut self, bhs: &Bhs, reason: RejectReason) {
        let reject = Reject {
            reason,
            numbers: self.status_numbers(),
            data_sn: DataSn(0),
            data_segment_length: bhs.0.len() as u32,
        };
        self.output.push(&reject.encode(), bhs.0.to_vec());
    }

    fn begin_command<'b>(&mut self, bhs: &Bhs) -> Begun<'b> {
        let command = ScsiCommand::decode(bhs);
        if self.accept_cmd_sn(bhs)? == Order::Ignore {
            return Ok((Sink::Discard, None));
        }
        if let Some(reason) = self.refusal(&command) {
            self.retire(command.immediate);
            self.reject(bhs, reason);
            return Ok((Sink::Discard, None));
        }
        let limit = self.unsolicited_limit(&command)?;
        let ahs = parse_ahs(self.receiver.ahs())?;
        let task = self.tasks.insert(Task::new(&command, limit));
        let event = Event::Command(Command {
            task,
            lun: command.lun,
            cdb: command.cdb,
            extended_cdb: ahs.extended_cdb,
            attribute: command.attribute,
            expected_data_transfer_length: command.expected_data_transfer_length,
            read: command.read,
            write: command.write,
            immediate: command.immediate,
        });
        Ok((Sink::Task(task, 0), Some(event)))
    }

    /// Reasons to refuse a command without ending the connection.
    fn refusal(&self, command: &ScsiCommand) -> Option<RejectReason> {
        if matches!(self.state, State::FullFeature { discovery: true }) {
            Some(RejectReason::ProtocolError)
        } else if command.initiator_task_tag == InitiatorTaskTag::RESERVED {
            Some(RejectReason::InvalidPduField)
        } else if self.tasks.find(command.initiator_task_tag).is_some() {
            Some(RejectReason::TaskInProgress)
        } else if command.read && command.write {
            Some(RejectReason::CommandNotSupported)
        } else if command.immediate && self.tasks.immediate() >= limits::MAX_IMMEDIATE_TASKS {
            Some(RejectReason::ImmediateCommandReject)
        } else {
            None
        }
    }

    /// How much data may come without an R2T; checks the command's flags and immediate data (§11.3.1).
    fn unsolicited_limit(&self, command: &ScsiCommand) -> Result<u32, Violation> {
        let data = command.data_segment_length;
        if !command.write {
            let legal = command.is_final && data == 0;
            return if legal {
                Ok(0)
            } else {
                Err(Violation::CommandFlags)
            };
        }
        let limit = self
            .parameters
            .first_burst_length
            .min(command.expected_data_transfer_length);
        let immediate = data == 0 || self.parameters.immediate_data;
        let unsolicited = command.is_final || !self.parameters.initial_r2t;
        if immediate && unsolicited && data <= limit {
            Ok(limit)
        } else {
            Err(Violation::UnsolicitedData)
        }
    }

    fn nop_out(&mut self, bhs: &Bhs, mut data: Vec<u8>) -> Result<(), Violation> {
        let ping = NopOut::decode(bhs);
        if self.accept_cmd_sn(bhs)? == Order::Ignore {
            return Ok(());
        }
        self.retire(ping.immediate);
        // Without a task tag it answers our ping; any byte from the initiator did already.
        if ping.initiator_task_tag == InitiatorTaskTag::RESERVED {
            return Ok(());
        }
        data.truncate(self.parameters.max_recv_data_segment_length as usize);
        // What is queued is counted by its length: no memory may hide behind a short echo of a long ping.
        data.shrink_to_fit();
        let echo = NopIn {
            lun: ping.lun,
            initiator_task_tag: ping.initiator_task_tag,
            target_transfer_tag: TargetTransferTag::RESERVED,
            numbers: self.status_numbers(),
            data_segment_length: data.len() as u32,
        };
        self.output.push(&echo.encode(), data);
        Ok(())
    }

    fn task_management<'b>(&mut self, bhs: &Bhs) -> Result<Option<Event<'b>>, Violation> {
        let request = TaskManagementRequest::decode(bhs);
        if self.accept_cmd_sn(bhs)? == Order::Ignore {
            return Ok(None);
        }
        self.retire(request.immediate);
        let tag = request.initiator_task_tag;
        let refusal = if matches!(self.state, State::FullFeature { discovery: true }) {
            Some(RejectReason::ProtocolError)
        } else if tag == InitiatorTaskTag::RESERVED {
            Some(RejectReason::InvalidPduField)
        } else if self.management.contains(&tag) || self.tasks.find(tag).is_some() {
            Some(RejectReason::TaskInProgress)
        } else if self.management.len() >= limits::MAX_TASK_MANAGEMENT_REQUESTS {
            Some(RejectReason::ImmediateCommandReject)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.reject(bhs, reason);
            return Ok(None);
        }
        let function = request.function;
        let referenced =
            match function {
                TaskManagementFunction::AbortTask => {
                    // A task whose response waits for data in flight has ended for the server already.
                    let found = self.tasks.find(request.referenced_task_tag);
                    let found = found
                        .filter(|task| self.tasks.get(*task).is_some_and(|t| t.lun == request.lun));
                    let Some(task) = found else {
                        return Ok(self
                            .answer_management(tag, TaskManagementResponseCode::TaskDoesNotExist));
                    };
                    if self
                        .tasks
                        .get(task)
                        .is_some_and(|task| task.deferred.is_some())
                    {
                        self.forget(task);
                        return Ok(self
                            .answer_management(tag, TaskManagementResponseCode::FunctionComplete));
                    }
                    Some(task)
                }
                TaskManagementFunction::TaskReassign => {
                    return Ok(self.answer_management(
                        tag,
                        TaskManagementResponseCode::TaskReassignmentNotSupported,
                    ));
                }
                TaskManagementFunction::Other(_) => {
                    return Ok(self
                        .answer_management(tag, TaskManagementResponseCode::FunctionNotSupported));
                }
                _ => None,
            };
        self.management.push(tag);
        let request = TaskManagementHandle(tag);
        Ok(Some(Event::TaskManagement {
            request,
            function,
            lun: TaskManagementRequest::decode(bhs).lun,
            referenced,
        }))
    }

    fn answer_management<'b>(
        &mut self,
        tag: InitiatorTaskTag,
        response: TaskManagementResponseCode,
    ) -> Option<Event<'b>> {
        let answer = TaskManagementResponse {
            response,
            initiator_task_tag: tag,
            numbers: self.status_numbers(),
        };
        self.output.push(&answer.encode(), Vec::new());
        None
    }

    /// Answers a `TaskManagement` event, after its effect is complete.
    pub fn complete_task_management(
        &mut self,
        request: TaskManagementHandle,
        response: TaskManagementResponseCode,
    ) -> Result<(), CallError> {
        let place = self
            .management
            .iter()
            .position(|tag| *tag == request.0)
            .ok_or(CallError::NotWaiting)?;
        self.management.swap_remove(place);
        self.answer_management(request.0, response);
        Ok(())
    }

    fn logout<'b>(&mut self, bhs: &Bhs) -> Result<Option<Event<'b>>, Violation> {
        let request = LogoutRequest::decode(bhs);
        if self.accept_cmd_sn(bhs)? == Order::Ignore {
            return Ok(None);
        }
        self.retire(request.immediate);
        let refusal = match request.reason {
            LogoutReason::CloseSession => None,
            LogoutReason::CloseConnection if request.cid == self.cid => None,
            LogoutReason::CloseConnection => Some(LogoutResponseCode::CidNotFound),
            LogoutReason::RemoveConnectionForRecovery => {
                Some(LogoutResponseCode::RecoveryNotSupported)
            }
            LogoutReason::Other(_) => {
                self.reject(bhs, RejectReason::InvalidPduField);
                return Ok(None);
            }
        };
        if let Some(response) = refusal {
            self.answer_logout(request.initiator_task_tag, response);
            return Ok(None);
        }
        self.waiting = Waiting::Logout(request.reason, request.initiator_task_tag);
        Ok(Some(Event::Logout(request.reason)))
    }

    fn answer_logout(&mut self, tag: InitiatorTaskTag, response: LogoutResponseCode) {
        let answer = LogoutResponse {
            response,
            initiator_task_tag: tag,
            numbers: self.status_numbers(),
            time2wait: self
                .parameters
                .default_time2wait
                .try_into()
                .unwrap_or(u16::MAX),
            time2retain: 0,
        };
        self.output.push(&answer.encode(), Vec::new());
    }

    /// Answers a `Logout` event, after all tasks of the session have ended; the connection ends.
    pub fn complete_logout(&mut self, now: Timestamp) -> Result<(), CallError> {
        let Waiting::Logout(reason, tag) = self.waiting else {
            return Err(CallError::NotWaiting);
        };
        self.answer_logout(tag, LogoutResponseCode::Closed);
        self.close(now, CloseReason::Logout(reason));
        Ok(())
    }
}
