//! Applies the table of keys to what an initiator offers: answers, results, refusals (RFC 7143 §6.2,
//! §13). Knows values and defaults, not PDUs, stages or who may log in.
use super::keys::{Key, Kind, Phase, Rule};
use super::{TextError, is_iscsi_name, parse_number, push_pair};
use crate::iscsi::digest::DigestMode;
use crate::iscsi::limits::{
    DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, MAX_NAME_LENGTH, MAX_SEGMENT_LENGTH, MIN_SEGMENT_LENGTH,
    TARGET_FIRST_BURST_LENGTH,
};

/// What this target brings into a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Insist on an R2T before any Data-Out (Yes) or let the initiator choose (No).
    pub initial_r2t: bool,
    /// Accept immediate data.
    pub immediate_data: bool,
    /// MaxBurstLength, bytes, 512 to 2^24 - 1.
    pub max_burst_length: u32,
    /// FirstBurstLength, bytes, 512 to `max_burst_length`.
    pub first_burst_length: u32,
    /// MaxOutstandingR2T, from 1.
    pub max_outstanding_r2t: u32,
    /// Accept CRC32C digests where the initiator prefers or demands them.
    pub digests: bool,
    /// DefaultTime2Wait, seconds.
    pub default_time2wait: u32,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            initial_r2t: false,
            immediate_data: true,
            max_burst_length: 1024 * 1024,
            first_burst_length: TARGET_FIRST_BURST_LENGTH,
            max_outstanding_r2t: 4,
            digests: true,
            default_time2wait: 2,
        }
    }
}

/// What a negotiation came to; the defaults are those of §13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Header digests in full feature phase.
    pub header_digest: DigestMode,
    /// Data digests in full feature phase.
    pub data_digest: DigestMode,
    /// No unsolicited Data-Out.
    pub initial_r2t: bool,
    /// Data may come with the command.
    pub immediate_data: bool,
    /// What the initiator receives in one data segment, bytes.
    pub max_recv_data_segment_length: u32,
    /// Longest sequence of Data-In or solicited Data-Out, bytes.
    pub max_burst_length: u32,
    /// Most unsolicited data of a command, bytes.
    pub first_burst_length: u32,
    /// R2Ts outstanding per command.
    pub max_outstanding_r2t: u32,
    /// Seconds to wait before reconnecting.
    pub default_time2wait: u32,
    /// Seconds that tasks survive a lost connection; always zero here.
    pub default_time2retain: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_digest: DigestMode::None,
            data_digest: DigestMode::None,
            initial_r2t: true,
            immediate_data: true,
            max_recv_data_segment_length: DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH,
            max_burst_length: 256 * 1024,
            first_burst_length: 64 * 1024,
            max_outstanding_r2t: 1,
            default_time2wait: 2,
            default_time2retain: 0,
        }
    }
}

/// One negotiation: a login, or the text requests after it.
#[derive(Debug)]
pub struct Negotiator {
    offers: Offers,
    seen: u64,
    /// The results so far.
    pub parameters: Parameters,
    /// InitiatorName, once declared.
    pub initiator_name: Option<String>,
    /// InitiatorAlias, once declared.
    pub initiator_alias: Option<String>,
    /// TargetName, once declared.
    pub target_name: Option<String>,
    /// SessionType=Discovery was declared.
    pub discovery: bool,
}

const REJECT: &str = "Reject";
/// Reserved answers (§6.2) that an initiator may send to what the target declared.
const RESERVED: [&str; 3] = ["NotUnderstood", "Irrelevant", REJECT];
/// The protocol level of RFC 7143, §13.24.
const PROTOCOL_LEVEL: u32 = 1;

impl Negotiator {
    /// Starts from the defaults.
    #[must_use]
    pub fn new(offers: Offers) -> Self {
        Self {
            offers,
            seen: 0,
            parameters: Parameters::default(),
            initiator_name: None,
            initiator_alias: None,
            target_name: None,
            discovery: false,
        }
    }

    /// Bytes of memory besides its own size.
    pub(in crate::iscsi) fn held_bytes(&self) -> usize {
        let names = [
            &self.initiator_name,
            &self.initiator_alias,
            &self.target_name,
        ];
        names.into_iter().flatten().map(String::capacity).sum()
    }

    /// Lets keys that may be sent again after login be sent again; results stay.
    pub fn begin_full_feature_phase(&mut self) {
        self.seen = 0;
    }

    /// Takes all pairs of a complete request and appends the answers. SessionType counts for keys
    /// before it too. SendTargets is left to the caller.
    pub fn answer_all(
        &mut self,
        phase: Phase,
        pairs: &[(&str, &str)],
        text: &mut Vec<u8>,
    ) -> Result<(), TextError> {
        if phase != Phase::FullFeature && pairs.contains(&("SessionType", "Discovery")) {
            self.discovery = true;
        }
        for (name, value) in pairs {
            match Key::find(name) {
                None => push_pair(text, name, "NotUnderstood"),
                Some(rule) => {
                    if let Some(answer) = self.answer(phase, rule, value)? {
                        push_pair(text, name, &answer);
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        phase: Phase,
        rule: &Rule,
        value: &str,
    ) -> Result<Option<String>, TextError> {
        if rule.kind == Kind::DeclaredByTarget {
            return if RESERVED.contains(&value) {
                Ok(None)
            } else {
                Err(TextError::WrongSender(rule.name))
            };
        }
        if rule.kind == Kind::Request {
            return Ok((phase != Phase::FullFeature).then(|| REJECT.to_string()));
        }
        let own_declaration = rule.key == Key::MaxRecvDataSegmentLength;
        if own_declaration && RESERVED.contains(&value) {
            return Ok(None);
        }
        if self.seen & rule.key.bit() != 0 {
            return Err(TextError::Duplicate(rule.name));
        }
        self.seen |= rule.key.bit();
        if !rule.usable.allows(phase) {
            return Ok(Some(REJECT.to_string()));
        }
        if rule.normal_session_only && self.discovery {
            return Ok(Some("Irrelevant".to_string()));
        }
        let rejected = || Some(REJECT.to_string());
        match rule.kind {
            Kind::List => self.list(rule.key, value).map(Some),
            Kind::And | Kind::Or => Ok(self.boolean(rule, value).or_else(rejected)),
            Kind::Minimum { min, max } | Kind::Maximum { min, max } => {
                let offer = parse_number(value).filter(|number| (min..=max).contains(number));
                Ok(offer
                    .map(|number| self.number(rule, number).to_string())
                    .or_else(rejected))
            }
            Kind::ObsoleteNo => Ok(Some("No".to_string())),
            Kind::ObsoleteReject => Ok(rejected()),
            Kind::DeclaredByInitiator => self.declare(rule, value).map(|()| None),
            Kind::DeclaredByTarget | Kind::Request => Ok(None),
        }
    }

    fn list(&mut self, key: Key, value: &str) -> Result<String, TextError> {
        let digests: &[&str] = if self.offers.digests {
            &["CRC32C", "None"]
        } else {
            &["None"]
        };
        let known: &[&str] = match key {
            Key::HeaderDigest | Key::DataDigest => digests,
            Key::TaskReporting => &["RFC3720"],
            _ => &["None"],
        };
        let Some(chosen) = value.split(',').find(|offer| known.contains(offer)) else {
            return if key == Key::AuthMethod {
                Err(TextError::NoAuthMethod)
            } else {
                Ok(REJECT.to_string())
            };
        };
        let mode = if chosen == "CRC32C" {
            DigestMode::Crc32c
        } else {
            DigestMode::None
        };
        match key {
            Key::HeaderDigest => self.parameters.header_digest = mode,
            Key::DataDigest => self.parameters.data_digest = mode,
            _ => {}
        }
        Ok(chosen.to_string())
    }

    fn boolean(&mut self, rule: &Rule, value: &str) -> Option<String> {
        let offer = match value {
            "Yes" => true,
            "No" => false,
            _ => return None,
        };
        let ours = match rule.key {
            Key::InitialR2T => self.offers.initial_r2t,
            Key::ImmediateData => self.offers.immediate_data,
            // Data is only ever taken in order.
            _ => true,
        };
        let result = if rule.kind == Kind::And {
            offer && ours
        } else {
            offer || ours
        };
        match rule.key {
            Key::InitialR2T => self.parameters.initial_r2t = result,
            Key::ImmediateData => self.parameters.immediate_data = result,
            _ => {}
        }
        Some(if result { "Yes" } else { "No" }.to_string())
    }

    fn number(&mut self, rule: &Rule, offer: u32) -> u32 {
        let parameters = &mut self.parameters;
        let ours = match rule.key {
            Key::MaxBurstLength => self.offers.max_burst_length,
            Key::FirstBurstLength if self.seen & Key::MaxBurstLength.bit() != 0 => self
                .offers
                .first_burst_length
                .min(parameters.max_burst_length),
            Key::FirstBurstLength => self.offers.first_burst_length,
            Key::MaxOutstandingR2T => self.offers.max_outstanding_r2t,
            Key::DefaultTime2Wait => self.offers.default_time2wait,
            Key::MaxConnections => 1,
            Key::ISCSIProtocolLevel => PROTOCOL_LEVEL,
            // ErrorRecoveryLevel and DefaultTime2Retain: no state outlives a connection.
            _ => 0,
        };
        let result = if matches!(rule.kind, Kind::Maximum { .. }) {
            offer.max(ours)
        } else {
            offer.min(ours)
        };
        match rule.key {
            Key::MaxBurstLength => parameters.max_burst_length = result,
            Key::FirstBurstLength => parameters.first_burst_length = result,
            Key::MaxOutstandingR2T => parameters.max_outstanding_r2t = result,
            Key::DefaultTime2Wait => parameters.default_time2wait = result,
            Key::DefaultTime2Retain => parameters.default_time2retain = result,
            _ => {}
        }
        result
    }

    fn declare(&mut self, rule: &Rule, value: &str) -> Result<(), TextError> {
        let illegal = TextError::IllegalValue(rule.name);
        match rule.key {
            Key::InitiatorName if is_iscsi_name(value) => {
                self.initiator_name = Some(value.to_string())
            }
            // Whether such a target exists is the server's to say; a strange name is just not found.
            Key::TargetName if !value.is_empty() && value.len() <= MAX_NAME_LENGTH => {
                self.target_name = Some(value.to_string());
            }
            Key::InitiatorAlias => self.initiator_alias = Some(value.to_string()),
            Key::SessionType if value == "Normal" || value == "Discovery" => {}
            Key::MaxRecvDataSegmentLength => {
                let length = parse_number(value)
                    .filter(|n| (MIN_SEGMENT_LENGTH..=MAX_SEGMENT_LENGTH).contains(n));
                self.parameters.max_recv_data_segment_length = length.ok_or(illegal)?;
            }
            _ => return Err(illegal),
        }
        Ok(())
    }
}
