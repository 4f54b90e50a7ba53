//! What one I_T nexus has pending at one logical unit: unit attention conditions (SAM-5 5.14).
//! Conditions that the unit raises for all nexuses are found by comparing counters, so no list of nexuses exists.

use super::mode::THRESHOLD_DESCRIPTOR;
use super::sense::{Sense, SenseKey};

/// A unit attention condition. The order is that of reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum UnitAttention {
    /// POWER ON OCCURRED: the nexus is new to the unit.
    PowerOn,
    /// BUS DEVICE RESET FUNCTION OCCURRED: LOGICAL UNIT RESET or a target reset.
    Reset,
    /// I_T NEXUS LOSS OCCURRED.
    NexusLoss,
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    CommandsCleared,
    /// REPORTED LUNS DATA HAS CHANGED.
    ReportedLunsChanged,
    /// INQUIRY DATA HAS CHANGED.
    InquiryDataChanged,
    /// MODE PARAMETERS CHANGED.
    ModeParametersChanged,
    /// CAPACITY DATA HAS CHANGED.
    CapacityChanged,
    /// THIN PROVISIONING SOFT THRESHOLD REACHED: the pool's space has come below the unit's threshold.
    ThresholdReached,
}

impl UnitAttention {
    const ALL: [UnitAttention; 9] = [
        UnitAttention::PowerOn,
        UnitAttention::Reset,
        UnitAttention::NexusLoss,
        UnitAttention::CommandsCleared,
        UnitAttention::ReportedLunsChanged,
        UnitAttention::InquiryDataChanged,
        UnitAttention::ModeParametersChanged,
        UnitAttention::CapacityChanged,
        UnitAttention::ThresholdReached,
    ];

    /// The sense data that report it.
    pub const fn sense(self) -> Sense {
        let (asc, ascq) = match self {
            // The general code, not 29h/01h: it is the one that initiators' tools retry after.
            UnitAttention::PowerOn => (0x29, 0x00),
            UnitAttention::Reset => (0x29, 0x03),
            UnitAttention::NexusLoss => (0x29, 0x07),
            UnitAttention::CommandsCleared => (0x2F, 0x00),
            UnitAttention::ReportedLunsChanged => (0x3F, 0x0E),
            UnitAttention::InquiryDataChanged => (0x3F, 0x03),
            UnitAttention::ModeParametersChanged => (0x2A, 0x01),
            UnitAttention::CapacityChanged => (0x2A, 0x09),
            UnitAttention::ThresholdReached => (0x38, 0x07),
        };
        let sense = Sense::new(SenseKey::UnitAttention, asc, ascq);
        match self {
            // Where the threshold is described in the Logical Block Provisioning mode page (SBC-3 4.7.3.7.6).
            UnitAttention::ThresholdReached => sense.with_information(THRESHOLD_DESCRIPTOR as u64),
            _ => sense,
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// How often the unit has raised each condition that concerns all nexuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generations {
    pub reset: u32,
    pub mode: u32,
    pub capacity: u32,
    pub threshold: u32,
}

/// One I_T nexus's view of one logical unit. Made by [`super::LogicalUnit::attach`].
#[derive(Debug)]
pub struct Nexus {
    pending: u16,
    seen: Generations,
}

impl Nexus {
    pub(super) fn new(seen: Generations) -> Self {
        Nexus {
            pending: UnitAttention::PowerOn.bit(),
            seen,
        }
    }

    /// Establishes a condition for this nexus alone.
    pub fn raise(&mut self, condition: UnitAttention) {
        self.pending |= condition.bit();
    }

    /// Whether `condition` is pending, as far as the unit's counters have been looked at.
    pub fn is_pending(&self, condition: UnitAttention) -> bool {
        self.pending & condition.bit() != 0
    }

    /// Establishes what the unit has raised since it was last looked at. A reset drops the conditions before it,
    /// which its own stands for (SAM-5 5.14.4).
    pub(super) fn observe(&mut self, now: Generations) {
        if now.reset != self.seen.reset {
            self.pending = UnitAttention::Reset.bit();
        } else if now.mode != self.seen.mode {
            self.raise(UnitAttention::ModeParametersChanged);
        }
        if now.capacity != self.seen.capacity {
            self.raise(UnitAttention::CapacityChanged);
        }
        if now.threshold != self.seen.threshold {
            self.raise(UnitAttention::ThresholdReached);
        }
        self.seen = now;
    }

    /// This nexus changed the mode parameters itself, from generation `before`: no condition for it.
    pub(super) fn changed_mode(&mut self, before: u32) {
        if self.seen.mode == before {
            self.seen.mode = before.wrapping_add(1);
        }
    }

    /// The condition to report next, no longer pending.
    pub(super) fn take(&mut self) -> Option<UnitAttention> {
        let next = UnitAttention::ALL
            .into_iter()
            .find(|condition| self.is_pending(*condition))?;
        self.clear(next);
        Some(next)
    }

    pub(super) fn clear(&mut self, condition: UnitAttention) {
        self.pending &= !condition.bit();
    }
}
