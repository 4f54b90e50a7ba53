//! The registrar of sessions, on the first core: hands out session handles, limits their number, and lets a session
//! that logs in again replace its older self. It serves no session.

use super::limits;
use super::state::{CoreState, TargetId, on_core};
use super::wait::Signal;
use crate::iscsi::LoginStatus;
use crate::iscsi::pdu::{Isid, Tsih};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What makes two sessions the same one (RFC 7143 §4.4.1): the initiator port, and the target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Identity {
    pub(super) initiator: String,
    pub(super) isid: [u8; 6],
    pub(super) target: TargetId,
}

impl Identity {
    pub(super) fn new(initiator: &str, isid: Isid, target: TargetId) -> Identity {
        Identity {
            // Names are compared in lower case (§4.2.7.2).
            initiator: initiator.to_ascii_lowercase(),
            isid: isid.0,
            target,
        }
    }
}

struct Entry {
    /// `None` for discovery sessions, of which an initiator may have several that look alike.
    identity: Option<Identity>,
    core: usize,
}

/// All sessions of the server.
#[derive(Default)]
pub(super) struct Registrar {
    sessions: RefCell<BTreeMap<u16, Entry>>,
    identities: RefCell<BTreeMap<Identity, u16>>,
    last: Cell<u16>,
    /// A session has gone.
    changed: Signal,
    /// No session is let in any more.
    pub(super) closing: Cell<bool>,
    /// Names of targets that are being removed.
    pub(super) removing: RefCell<BTreeSet<String>>,
}

impl Registrar {
    fn handle_of(&self, identity: &Identity) -> Option<u16> {
        self.identities.borrow().get(identity).copied()
    }

    fn insert(&self, most: u32, entry: Entry) -> Result<Tsih, LoginStatus> {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() >= most.min(limits::MAX_SESSIONS) as usize {
            return Err(LoginStatus::OutOfResources);
        }
        let mut handle = self.last.get();
        loop {
            handle = handle.wrapping_add(1);
            // There are fewer sessions than handles.
            if handle != Tsih::NONE.0 && !sessions.contains_key(&handle) {
                break;
            }
        }
        self.last.set(handle);
        if let Some(identity) = &entry.identity {
            self.identities
                .borrow_mut()
                .insert(identity.clone(), handle);
        }
        sessions.insert(handle, entry);
        Ok(Tsih(handle))
    }

    /// A session has ended, and all it had begun.
    pub(super) fn remove(&self, handle: Tsih) {
        let entry = self.sessions.borrow_mut().remove(&handle.0);
        if let Some(identity) = entry.and_then(|entry| entry.identity) {
            self.identities.borrow_mut().remove(&identity);
        }
        self.changed.notify();
    }
}

/// Lets a session in. One that exists with the same identity is ended first, with all it had begun (RFC 7143 §6.3.5).
pub(super) async fn register(
    first: Rc<CoreState>,
    identity: Option<Identity>,
    asked: Tsih,
    core: usize,
) -> Result<Tsih, LoginStatus> {
    let Some(registrar) = &first.registrar else {
        return Err(LoginStatus::TargetError);
    };
    if asked != Tsih::NONE {
        // A connection to be added to a session: there is one per session.
        let sessions = registrar.sessions.borrow();
        let same = sessions
            .get(&asked.0)
            .is_some_and(|entry| entry.identity.is_some() && entry.identity == identity);
        return Err(match same {
            true => LoginStatus::TooManyConnections,
            false => LoginStatus::SessionDoesNotExist,
        });
    }
    if let Some(identity) = &identity {
        while let Some(old) = registrar.handle_of(identity) {
            end_session(&first, Tsih(old)).await;
            let gone = || (registrar.handle_of(identity) != Some(old)).then_some(());
            registrar.changed.until(gone).await;
        }
    }
    if registrar.closing.get() {
        return Err(LoginStatus::ServiceUnavailable);
    }
    registrar.insert(first.shared.config.max_sessions, Entry { identity, core })
}

async fn end_session(first: &Rc<CoreState>, handle: Tsih) {
    let core = first
        .registrar
        .as_ref()
        .and_then(|registrar| registrar.sessions.borrow().get(&handle.0).map(|e| e.core));
    let Some(core) = core else { return };
    let ended = on_core(&first.shared, core, move |state| async move {
        for link in state.links_of(None) {
            if link.tsih() == Some(handle) {
                link.drop_session();
            }
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::warn!(%error, tsih = handle.0, "a session that is replaced cannot be reached");
    }
}
