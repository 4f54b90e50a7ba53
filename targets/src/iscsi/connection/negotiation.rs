//! Login and text requests on the connection: feeds `login` and `text`, frames their answers, and asks
//! the server for consent and for lists of targets.
use super::dispatch::Order;
use super::{
    CallError, CloseReason, Connection, Event, LoginStatus, State, TargetRecord, TargetScope,
    TextExchange, Timestamp, Waiting, limits,
};
use crate::iscsi::error::Violation;
use crate::iscsi::login::{LoginAccept, Step};
use crate::iscsi::pdu::{
    Bhs, LoginRequest, LoginResponse, Lun, RejectReason, Stage, TargetTransferTag, TextRequest,
    TextResponse, Tsih,
};
use crate::iscsi::text::{self, Phase, TextError};

/// Upper half of the tags of text exchanges; above every task's slot, below the ping's.
const TEXT_TAG: u32 = 0xfffd_0000;

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    pub(super) fn login_request<'b>(
        &mut self,
        now: Timestamp,
        bhs: &Bhs,
        data: &[u8],
    ) -> Option<Event<'b>> {
        let request = LoginRequest::decode(bhs);
        if self.login_header.is_none() {
            self.stat_sn = request.exp_stat_sn;
            self.exp_cmd_sn = request.cmd_sn;
            self.max_cmd_sn = request.cmd_sn.plus(self.config.queue_depth - 1);
            self.cid = request.cid;
        }
        self.login_header = Some(request);
        let State::Login(login) = &mut self.state else {
            return None;
        };
        match login.request(&request, data) {
            Ok(Step::Ask(identity)) => {
                self.waiting = Waiting::Login;
                Some(Event::Login(identity))
            }
            Ok(step) => {
                self.login_step(now, step);
                None
            }
            Err(status) => {
                self.fail_login(now, status);
                None
            }
        }
    }

    /// Answers a `Login` event: the initiator may use what it asked for.
    pub fn accept_login(&mut self, now: Timestamp, accept: LoginAccept) -> Result<(), CallError> {
        let (Waiting::Login, State::Login(login)) = (&self.waiting, &mut self.state) else {
            return Err(CallError::NotWaiting);
        };
        let step = login.accept(accept).ok_or(CallError::NotWaiting)?;
        self.waiting = Waiting::No;
        self.login_step(now, step);
        Ok(())
    }

    /// Answers a `Login` event with a refusal; the connection ends.
    pub fn refuse_login(&mut self, now: Timestamp, status: LoginStatus) -> Result<(), CallError> {
        if !matches!(self.waiting, Waiting::Login) {
            return Err(CallError::NotWaiting);
        }
        self.fail_login(now, status);
        Ok(())
    }

    fn login_step(&mut self, now: Timestamp, step: Step) {
        let Step::Respond {
            text,
            transit,
            stage,
            next,
            tsih,
        } = step
        else {
            return;
        };
        self.push_login_response(LoginStatus::Success, text, (transit, stage, next), tsih);
        if transit && next == Stage::FullFeaturePhase {
            self.enter_full_feature_phase(now);
        }
    }

    fn enter_full_feature_phase(&mut self, now: Timestamp) {
        let entered = State::FullFeature { discovery: false };
        let State::Login(login) = std::mem::replace(&mut self.state, entered) else {
            return;
        };
        let (parameters, negotiator) = login.finish();
        self.state = State::FullFeature {
            discovery: negotiator.discovery,
        };
        self.parameters = parameters;
        self.negotiator = Some(negotiator);
        self.output
            .set_digests(parameters.header_digest, parameters.data_digest);
        self.entered_full_feature = true;
        self.timers.received(now);
    }

    /// Answers the login with a failure and ends the connection (§11.13.5).
    pub(super) fn fail_login(&mut self, now: Timestamp, status: LoginStatus) {
        // Something else than a login request: its task tag is in the same place.
        let bhs = self.receiver.bhs();
        let header = self
            .login_header
            .unwrap_or_else(|| LoginRequest::decode(&bhs));
        self.login_header = Some(header);
        let stages = (false, header.current_stage, Stage::SecurityNegotiation);
        self.push_login_response(status, Vec::new(), stages, header.tsih);
        self.close(now, CloseReason::LoginRefused(status));
    }

    fn push_login_response(
        &mut self,
        status: LoginStatus,
        text: Vec<u8>,
        (transit, current_stage, next_stage): (bool, Stage, Stage),
        tsih: Tsih,
    ) {
        let Some(request) = self.login_header else {
            return;
        };
        let response = LoginResponse {
            transit,
            is_continued: false,
            current_stage,
            next_stage,
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih,
            initiator_task_tag: request.initiator_task_tag,
            numbers: self.status_numbers(),
            status: status.wire(),
            data_segment_length: text.len() as u32,
        };
        self.output.push(&response.encode(), text);
    }

    pub(super) fn text_request<'b>(
        &mut self,
        bhs: &Bhs,
        data: &[u8],
    ) -> Result<Option<Event<'b>>, Violation> {
        let request = TextRequest::decode(bhs);
        if self.accept_cmd_sn(bhs)? == Order::Ignore {
            return Ok(None);
        }
        self.retire(request.immediate);
        let continues = request.target_transfer_tag != TargetTransferTag::RESERVED;
        if continues && self.text.tag != Some(request.target_transfer_tag) {
            self.refuse_text(bhs);
            return Ok(None);
        }
        if !continues {
            // A new negotiation resets an unfinished one (§11.10.4).
            let tags_used = self.text.tags_used;
            self.text = TextExchange {
                tags_used,
                ..TextExchange::default()
            };
        }
        self.text.request = Some((request.initiator_task_tag, request.lun, request.is_final));
        if !self.text.answer.is_empty() {
            self.push_text_piece();
            return Ok(None);
        }
        match self.collect_text(&request, data) {
            Ok(event) => Ok(event),
            Err(_) => {
                self.refuse_text(bhs);
                Ok(None)
            }
        }
    }

    fn refuse_text(&mut self, bhs: &Bhs) {
        self.text = TextExchange {
            tags_used: self.text.tags_used,
            ..TextExchange::default()
        };
        self.reject(bhs, RejectReason::ProtocolError);
    }

    fn collect_text<'b>(
        &mut self,
        request: &TextRequest,
        data: &[u8],
    ) -> Result<Option<Event<'b>>, TextError> {
        self.text.assembler.push(data)?;
        if request.is_continued {
            self.push_text_piece();
            return Ok(None);
        }
        let collected = self.text.assembler.take();
        let pairs = text::pairs(&collected)?;
        let mut answer = Vec::new();
        if let Some(negotiator) = &mut self.negotiator {
            negotiator.begin_full_feature_phase();
            negotiator.answer_all(Phase::FullFeature, &pairs, &mut answer)?;
            self.parameters.max_recv_data_segment_length =
                negotiator.parameters.max_recv_data_segment_length;
        }
        self.text.answer = answer.into();
        let mut requests = pairs.iter().filter(|(name, _)| *name == "SendTargets");
        let scope = requests.next().map(|(_, value)| *value);
        if requests.next().is_some() {
            return Err(TextError::Duplicate("SendTargets"));
        }
        let discovery = matches!(self.state, State::FullFeature { discovery: true });
        let scope = match scope {
            None => {
                self.push_text_piece();
                return Ok(None);
            }
            Some("All") if discovery => TargetScope::All,
            Some("") if !discovery => TargetScope::Current,
            Some("" | "All") => return Err(TextError::IllegalValue("SendTargets")),
            Some(name) => TargetScope::Named(name.to_string()),
        };
        self.waiting = Waiting::SendTargets;
        Ok(Some(Event::SendTargets(scope)))
    }

    /// Answers a `SendTargets` event; no targets is a legal answer.
    pub fn answer_send_targets(&mut self, targets: &[TargetRecord]) -> Result<(), CallError> {
        if !matches!(self.waiting, Waiting::SendTargets) {
            return Err(CallError::NotWaiting);
        }
        let mut list = Vec::new();
        for target in targets {
            text::push_pair(&mut list, "TargetName", &target.name);
            for (address, group) in &target.portals {
                text::push_pair(&mut list, "TargetAddress", &format!("{address},{group}"));
            }
            if list.len() > limits::MAX_SEND_TARGETS_LENGTH {
                return Err(CallError::TooLong);
            }
        }
        self.waiting = Waiting::No;
        self.text.answer.extend(list);
        self.push_text_piece();
        Ok(())
    }

    /// Sends as much of the answer as one response takes; the rest on the next, empty request.
    fn push_text_piece(&mut self) {
        let Some((initiator_task_tag, lun, request_final)) = self.text.request.take() else {
            return;
        };
        let most = self.parameters.max_recv_data_segment_length as usize;
        let length = self.text.answer.len().min(most);
        let piece: Vec<u8> = self.text.answer.drain(..length).collect();
        let more = !self.text.answer.is_empty();
        let is_final = request_final && !more;
        let tag = if is_final {
            TargetTransferTag::RESERVED
        } else {
            self.next_text_tag()
        };
        self.text.tag = (!is_final).then_some(tag);
        let response = TextResponse {
            is_final,
            is_continued: more,
            lun: if is_final { Lun::default() } else { lun },
            initiator_task_tag,
            target_transfer_tag: tag,
            numbers: self.status_numbers(),
            data_segment_length: piece.len() as u32,
        };
        self.output.push(&response.encode(), piece);
    }

    fn next_text_tag(&mut self) -> TargetTransferTag {
        self.text.tags_used = (self.text.tags_used + 1) & 0xffff;
        TargetTransferTag(TEXT_TAG | self.text.tags_used)
    }
}
