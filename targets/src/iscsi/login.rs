//! The login phase (RFC 7143 §6.3, §11.12, §11.13) as a state machine over requests: stages, transit,
//! versions, identity, refusals. It neither frames PDUs nor decides who may log in.
use super::limits::MAX_LOGIN_REQUESTS;
use super::pdu::{Cid, Isid, LoginRequest, Stage, Tsih};
use super::text::{self, Assembler, Negotiator, Offers, Parameters, Phase, TextError};

/// Status-Class and Status-Detail, §11.13.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginStatus {
    /// 0000h.
    #[error("success")]
    Success,
    /// 0200h: the initiator broke the rules of login.
    #[error("initiator error")]
    InitiatorError,
    /// 0201h.
    #[error("authentication failure")]
    AuthenticationFailure,
    /// 0202h: this initiator may not use this target.
    #[error("authorization failure")]
    AuthorizationFailure,
    /// 0203h: no such target.
    #[error("target not found")]
    NotFound,
    /// 0204h: the target is gone for good.
    #[error("target removed")]
    TargetRemoved,
    /// 0205h.
    #[error("unsupported version")]
    UnsupportedVersion,
    /// 0206h: the session has as many connections as it may.
    #[error("too many connections")]
    TooManyConnections,
    /// 0207h: InitiatorName or TargetName is missing.
    #[error("missing parameter")]
    MissingParameter,
    /// 0208h.
    #[error("target does not support a session spanning this connection")]
    CannotIncludeInSession,
    /// 0209h.
    #[error("session type not supported")]
    SessionTypeNotSupported,
    /// 020Ah: the TSIH names no session of this initiator.
    #[error("session does not exist")]
    SessionDoesNotExist,
    /// 020Bh: something else than a login request.
    #[error("invalid during login")]
    InvalidDuringLogin,
    /// 0300h.
    #[error("target error")]
    TargetError,
    /// 0301h: not now.
    #[error("service unavailable")]
    ServiceUnavailable,
    /// 0302h.
    #[error("out of resources")]
    OutOfResources,
}

impl LoginStatus {
    /// The two bytes on the wire.
    #[must_use]
    pub const fn wire(self) -> [u8; 2] {
        match self {
            Self::Success => [0, 0],
            Self::InitiatorError => [2, 0],
            Self::AuthenticationFailure => [2, 1],
            Self::AuthorizationFailure => [2, 2],
            Self::NotFound => [2, 3],
            Self::TargetRemoved => [2, 4],
            Self::UnsupportedVersion => [2, 5],
            Self::TooManyConnections => [2, 6],
            Self::MissingParameter => [2, 7],
            Self::CannotIncludeInSession => [2, 8],
            Self::SessionTypeNotSupported => [2, 9],
            Self::SessionDoesNotExist => [2, 10],
            Self::InvalidDuringLogin => [2, 11],
            Self::TargetError => [3, 0],
            Self::ServiceUnavailable => [3, 1],
            Self::OutOfResources => [3, 2],
        }
    }
}

impl From<TextError> for LoginStatus {
    fn from(error: TextError) -> Self {
        match error {
            TextError::NoAuthMethod => Self::AuthenticationFailure,
            _ => Self::InitiatorError,
        }
    }
}

/// What kind of session is wanted (§4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Only to ask for targets.
    Discovery,
    /// To use one target.
    Normal {
        /// Its name, as the initiator wrote it.
        target_name: String,
    },
}

/// Who logs in, for the server to accept or refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginIdentity {
    /// InitiatorName.
    pub initiator_name: String,
    /// InitiatorAlias, for people.
    pub initiator_alias: Option<String>,
    /// Discovery, or the target.
    pub session: SessionKind,
    /// With the initiator's name and the portal group, the identity of the session: a session that
    /// exists with the same is reinstated, that is closed, when this one is accepted (§6.3.5).
    pub isid: Isid,
    /// Zero: a new session. Else the server refuses with `SessionDoesNotExist`, or
    /// `TooManyConnections` if it does exist: there is one connection per session.
    pub tsih: Tsih,
    /// The connection's name in its session.
    pub cid: Cid,
}

/// The server's consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAccept {
    /// The handle of the new session, not zero.
    pub tsih: Tsih,
    /// Tag of the portal group that was connected to.
    pub target_portal_group_tag: u16,
    /// For people.
    pub target_alias: Option<String>,
}

/// What to do after a request or an answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send a response with this text.
    Respond {
        text: Vec<u8>,
        transit: bool,
        stage: Stage,
        next: Stage,
        tsih: Tsih,
    },
    /// Ask the server, then call `accept`.
    Ask(LoginIdentity),
}

/// One login.
#[derive(Debug)]
pub(super) struct Login {
    declared_segment_length: u32,
    negotiator: Negotiator,
    assembler: Assembler,
    stage: Option<Stage>,
    requests: u32,
    session: (Isid, Tsih, Cid),
    accepted: Option<LoginAccept>,
    asked: Option<(LoginRequest, Vec<u8>)>,
    segment_length_declared: bool,
}

impl Login {
    pub fn new(offers: Offers, declared_segment_length: u32) -> Self {
        Self {
            declared_segment_length,
            negotiator: Negotiator::new(offers),
            assembler: Assembler::default(),
            stage: None,
            requests: 0,
            session: Default::default(),
            accepted: None,
            asked: None,
            segment_length_declared: false,
        }
    }

    /// Bytes of memory besides its own size.
    pub fn held_bytes(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |(_, text)| text.capacity());
        self.negotiator.held_bytes() + self.assembler.held_bytes() + asked
    }

    /// The results, once the login is complete.
    pub fn finish(mut self) -> (Parameters, Negotiator) {
        self.negotiator.begin_full_feature_phase();
        (self.negotiator.parameters, self.negotiator)
    }

    /// Checks the header and takes the text of one request.
    pub fn request(&mut self, request: &LoginRequest, data: &[u8]) -> Result<Step, LoginStatus> {
        self.check(request)?;
        self.assembler.push(data)?;
        if request.is_continued {
            return Ok(self.respond(request, Vec::new(), false));
        }
        let collected = self.assembler.take();
        let pairs = text::pairs(&collected)?;
        let phase = match request.current_stage {
            Stage::SecurityNegotiation => Phase::Security,
            _ => Phase::Operational,
        };
        let mut answer = Vec::new();
        self.negotiator.answer_all(phase, &pairs, &mut answer)?;
        if self.accepted.is_some() {
            self.declare_segment_length(request, &mut answer);
            return Ok(self.respond(request, answer, request.transit));
        }
        let identity = self.identity(request)?;
        self.asked = Some((*request, answer));
        Ok(Step::Ask(identity))
    }

    /// The server consents; the request that was waiting is answered.
    pub fn accept(&mut self, accept: LoginAccept) -> Option<Step> {
        let (request, negotiated) = self.asked.take()?;
        let mut answer = Vec::new();
        if !self.negotiator.discovery {
            let tag = accept.target_portal_group_tag.to_string();
            text::push_pair(&mut answer, "TargetPortalGroupTag", &tag);
            if let Some(alias) = &accept.target_alias {
                text::push_pair(&mut answer, "TargetAlias", alias);
            }
        }
        answer.extend(negotiated);
        self.accepted = Some(accept);
        self.declare_segment_length(&request, &mut answer);
        Some(self.respond(&request, answer, request.transit))
    }

    fn check(&mut self, request: &LoginRequest) -> Result<(), LoginStatus> {
        if request.version_min > 0 {
            return Err(LoginStatus::UnsupportedVersion);
        }
        self.requests += 1;
        let session = (request.isid, request.tsih, request.cid);
        if self.requests == 1 {
            self.session = session;
        }
        let login_stage = |stage| {
            matches!(
                stage,
                Stage::SecurityNegotiation | Stage::OperationalNegotiation
            )
        };
        let stage = *self.stage.get_or_insert(request.current_stage);
        let forward = match request.next_stage {
            Stage::OperationalNegotiation => stage == Stage::SecurityNegotiation,
            Stage::FullFeaturePhase => true,
            Stage::SecurityNegotiation | Stage::Reserved => false,
        };
        let legal = self.requests <= MAX_LOGIN_REQUESTS
            && session == self.session
            && login_stage(stage)
            && stage == request.current_stage
            && !(request.transit && request.is_continued)
            && (!request.transit || forward);
        if legal {
            Ok(())
        } else {
            Err(LoginStatus::InitiatorError)
        }
    }

    fn identity(&self, request: &LoginRequest) -> Result<LoginIdentity, LoginStatus> {
        let negotiator = &self.negotiator;
        let initiator_name = negotiator
            .initiator_name
            .clone()
            .ok_or(LoginStatus::MissingParameter)?;
        let session = if negotiator.discovery {
            SessionKind::Discovery
        } else {
            let target_name = negotiator
                .target_name
                .clone()
                .ok_or(LoginStatus::MissingParameter)?;
            SessionKind::Normal { target_name }
        };
        Ok(LoginIdentity {
            initiator_name,
            initiator_alias: negotiator.initiator_alias.clone(),
            session,
            isid: request.isid,
            tsih: request.tsih,
            cid: request.cid,
        })
    }

    /// MaxRecvDataSegmentLength is declared once, in the operational stage or at the latest on leaving login.
    fn declare_segment_length(&mut self, request: &LoginRequest, answer: &mut Vec<u8>) {
        let leaving = request.transit && request.next_stage == Stage::FullFeaturePhase;
        let due = leaving || request.current_stage == Stage::OperationalNegotiation;
        if due && !self.segment_length_declared {
            self.segment_length_declared = true;
            text::push_pair(
                answer,
                "MaxRecvDataSegmentLength",
                &self.declared_segment_length.to_string(),
            );
        }
    }

    fn respond(&mut self, request: &LoginRequest, text: Vec<u8>, transit: bool) -> Step {
        let next = if transit {
            request.next_stage
        } else {
            Stage::SecurityNegotiation
        };
        let mut tsih = request.tsih;
        if transit {
            self.stage = Some(next);
            if let (Stage::FullFeaturePhase, Some(accept)) = (next, &self.accepted) {
                tsih = accept.tsih;
            }
        }
        Step::Respond {
            text,
            transit,
            stage: request.current_stage,
            next,
            tsih,
        }
    }
}
