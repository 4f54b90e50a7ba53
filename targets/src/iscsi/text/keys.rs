//! The table of all keys of RFC 7143 §13: how each is negotiated, when, and in which sessions.
//! It holds no values; `negotiate` applies it.

/// How a value comes about (§6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The initiator lists values in its order of preference, the target picks one.
    List,
    /// Yes only if both say Yes.
    And,
    /// Yes if one says Yes.
    Or,
    /// The smaller number; offers outside `min..=max` are refused.
    Minimum {
        /// Least legal offer.
        min: u32,
        /// Greatest legal offer.
        max: u32,
    },
    /// The greater number; offers outside `min..=max` are refused.
    Maximum {
        /// Least legal offer.
        min: u32,
        /// Greatest legal offer.
        max: u32,
    },
    /// The initiator declares, no answer.
    DeclaredByInitiator,
    /// The target declares; an initiator that sends it errs.
    DeclaredByTarget,
    /// Obsolete marker switch: always answered No (§13.25).
    ObsoleteNo,
    /// Obsolete marker interval: always answered Reject (§13.25).
    ObsoleteReject,
    /// A request of text, not a negotiation.
    Request,
}

/// When a request carrying a key is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Login, SecurityNegotiation stage.
    Security,
    /// Login, LoginOperationalNegotiation stage.
    Operational,
    /// After login.
    FullFeature,
}

/// Where a key may be used (§13, "Use").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// SecurityNegotiation only.
    Security,
    /// LoginOperationalNegotiation only.
    Operational,
    /// Both login stages.
    Login,
    /// Everywhere.
    All,
    /// Full feature phase only.
    FullFeature,
}

impl Use {
    /// Whether the key may appear in `phase`.
    #[must_use]
    pub fn allows(self, phase: Phase) -> bool {
        match self {
            Self::Security => phase == Phase::Security,
            Self::Operational => phase == Phase::Operational,
            Self::Login => phase != Phase::FullFeature,
            Self::All => true,
            Self::FullFeature => phase == Phase::FullFeature,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Which key.
    pub key: Key,
    /// Its name on the wire.
    pub name: &'static str,
    /// How it is negotiated.
    pub kind: Kind,
    /// Where it may appear.
    pub usable: Use,
    /// Answered Irrelevant in discovery sessions.
    pub normal_session_only: bool,
}

macro_rules! keys {
    ($($key:ident $name:literal $kind:expr, $usable:ident, $normal:expr, $clause:literal;)*) => {
        /// The keys of §13.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Key {
            $(#[doc = concat!("`", $name, "`, §", $clause, ".")] $key,)*
        }
        /// All keys, in the order of [`Key`].
        pub const RULES: &[Rule] = &[
            $(Rule { key: Key::$key, name: $name, kind: $kind, usable: Use::$usable, normal_session_only: $normal },)*
        ];
    };
}

const LENGTH: Kind = Kind::Minimum {
    min: crate::iscsi::limits::MIN_SEGMENT_LENGTH,
    max: crate::iscsi::limits::MAX_SEGMENT_LENGTH,
};

keys! {
    AuthMethod "AuthMethod" Kind::List, Security, false, "12.1";
    HeaderDigest "HeaderDigest" Kind::List, Operational, false, "13.1";
    DataDigest "DataDigest" Kind::List, Operational, false, "13.1";
    MaxConnections "MaxConnections" Kind::Minimum { min: 1, max: 65535 }, Operational, true, "13.2";
    SendTargets "SendTargets" Kind::Request, FullFeature, false, "13.3";
    TargetName "TargetName" Kind::DeclaredByInitiator, Login, false, "13.4";
    InitiatorName "InitiatorName" Kind::DeclaredByInitiator, Login, false, "13.5";
    TargetAlias "TargetAlias" Kind::DeclaredByTarget, All, false, "13.6";
    InitiatorAlias "InitiatorAlias" Kind::DeclaredByInitiator, All, false, "13.7";
    TargetAddress "TargetAddress" Kind::DeclaredByTarget, All, false, "13.8";
    TargetPortalGroupTag "TargetPortalGroupTag" Kind::DeclaredByTarget, Login, false, "13.9";
    InitialR2T "InitialR2T" Kind::Or, Operational, true, "13.10";
    ImmediateData "ImmediateData" Kind::And, Operational, true, "13.11";
    MaxRecvDataSegmentLength "MaxRecvDataSegmentLength" Kind::DeclaredByInitiator, All, false, "13.12";
    MaxBurstLength "MaxBurstLength" LENGTH, Operational, true, "13.13";
    FirstBurstLength "FirstBurstLength" LENGTH, Operational, true, "13.14";
    DefaultTime2Wait "DefaultTime2Wait" Kind::Maximum { min: 0, max: 3600 }, Operational, false, "13.15";
    DefaultTime2Retain "DefaultTime2Retain" Kind::Minimum { min: 0, max: 3600 }, Operational, false, "13.16";
    MaxOutstandingR2T "MaxOutstandingR2T" Kind::Minimum { min: 1, max: 65535 }, Operational, true, "13.17";
    DataPDUInOrder "DataPDUInOrder" Kind::Or, Operational, true, "13.18";
    DataSequenceInOrder "DataSequenceInOrder" Kind::Or, Operational, true, "13.19";
    ErrorRecoveryLevel "ErrorRecoveryLevel" Kind::Minimum { min: 0, max: 2 }, Operational, false, "13.20";
    SessionType "SessionType" Kind::DeclaredByInitiator, Login, false, "13.21";
    TaskReporting "TaskReporting" Kind::List, Operational, true, "13.23";
    ISCSIProtocolLevel "iSCSIProtocolLevel" Kind::Minimum { min: 0, max: 31 }, Operational, true, "13.24";
    IFMarker "IFMarker" Kind::ObsoleteNo, Operational, false, "13.25";
    OFMarker "OFMarker" Kind::ObsoleteNo, Operational, false, "13.25";
    IFMarkInt "IFMarkInt" Kind::ObsoleteReject, Operational, false, "13.25";
    OFMarkInt "OFMarkInt" Kind::ObsoleteReject, Operational, false, "13.25";
}

impl Key {
    /// The row of a name; keys are case sensitive (§6.1).
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.name == name)
    }
    /// A bit of its own in a set of keys.
    #[must_use]
    pub fn bit(self) -> u64 {
        1 << self as u32
    }
}

const _: () = assert!(RULES.len() <= u64::BITS as usize);
