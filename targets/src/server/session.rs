//! A session that was let in: who it is and what it uses. One connection each.

use super::config::Counters;
use super::state::LocalTarget;
use crate::iscsi::pdu::{Isid, Tsih};
use crate::scsi::{BlockSize, Nexus, Sense, SenseBytes, SenseFormat};
use atoll_reactor::Instant;
use std::cell::RefCell;
use std::rc::Rc;

/// A session.
pub(super) struct Session {
    pub(super) tsih: Tsih,
    pub(super) isid: Isid,
    pub(super) initiator: String,
    pub(super) initiator_alias: Option<String>,
    pub(super) since: Instant,
    /// `None` for a discovery session.
    pub(super) unit: Option<Unit>,
    pub(super) counters: RefCell<Counters>,
}

/// LUN 0 as the session sees it.
pub(super) struct Unit {
    pub(super) target: Rc<LocalTarget>,
    pub(super) nexus: RefCell<Nexus>,
}

impl Session {
    /// Counts in the session and in its target.
    pub(super) fn count(&self, change: impl Fn(&mut Counters)) {
        change(&mut self.counters.borrow_mut());
        if let Some(unit) = &self.unit {
            change(&mut unit.target.counters.borrow_mut());
        }
    }

    /// Logical block size of its unit.
    pub(super) fn block_size(&self) -> BlockSize {
        let unit = self.unit.as_ref();
        unit.map_or(BlockSize::B512, |unit| {
            unit.target.target.unit.config().block_size
        })
    }

    /// Sense data in the format that the unit's mode parameters choose.
    pub(super) fn encode_sense(&self, sense: &Sense) -> SenseBytes {
        match &self.unit {
            Some(unit) => unit.target.target.unit.encode_sense(sense),
            None => sense.encode(SenseFormat::Fixed),
        }
    }
}
