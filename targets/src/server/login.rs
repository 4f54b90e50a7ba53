//! Who is let in: the target must exist, and the registrar must have a place for the session. There is no access
//! control yet; the daemon listens on loopback unless it is told to do without.

use super::limits::PORTAL_GROUP_TAG;
use super::link::{Link, timestamp, unregister};
use super::registrar::{Identity, register};
use super::session::{Session, Unit};
use super::state::{LocalTarget, on_core};
use crate::iscsi::{LoginAccept, LoginIdentity, LoginStatus, SessionKind};
use atoll_reactor::now;
use std::cell::RefCell;
use std::rc::Rc;

impl Link {
    /// Decides a login and answers it.
    pub(super) async fn login(self: Rc<Self>, identity: LoginIdentity) {
        let name = identity.initiator_name.clone();
        let decided = self.let_in(identity).await;
        match decided {
            Ok(session) => {
                let accept = LoginAccept {
                    tsih: session.tsih,
                    target_portal_group_tag: PORTAL_GROUP_TAG,
                    target_alias: None,
                };
                tracing::debug!(peer = %self.peer(), initiator = name, tsih = session.tsih.0, "login");
                if let Some(unit) = &session.unit {
                    self.share.belong_to(unit.target.clone());
                }
                *self.session.borrow_mut() = Some(Rc::new(session));
                // The connection may have ended meanwhile; its end gives the place back.
                let _ = self.protocol.borrow_mut().accept_login(timestamp(), accept);
            }
            Err(status) => {
                tracing::info!(peer = %self.peer(), initiator = name, %status, "login refused");
                let _ = self.protocol.borrow_mut().refuse_login(timestamp(), status);
            }
        }
        self.login_running.set(false);
        self.ended.notify();
        self.pump(&mut [].as_slice());
        self.input.notify();
    }

    async fn let_in(&self, identity: LoginIdentity) -> Result<Session, LoginStatus> {
        let target = self.find(&identity.session)?;
        let port = target
            .as_ref()
            .map(|t| Identity::new(&identity.initiator_name, identity.isid, t.target.id));
        let (asked, core) = (identity.tsih, self.state.core);
        let registered = on_core(&self.state.shared, 0, move |first| {
            register(first, port, asked, core)
        })
        .await;
        let tsih = registered.map_err(|_| LoginStatus::ServiceUnavailable)??;
        // The target may have been removed meanwhile.
        if let Some(target) = &target {
            let still = self.state.target(&target.target.iqn);
            if still.is_none_or(|still| still.target.id != target.target.id) {
                unregister(&self.state, tsih).await;
                return Err(LoginStatus::NotFound);
            }
        }
        Ok(Session {
            tsih,
            isid: identity.isid,
            initiator: identity.initiator_name,
            initiator_alias: identity.initiator_alias,
            since: now(),
            unit: target.map(|target| Unit {
                nexus: RefCell::new(target.target.unit.attach()),
                target,
            }),
            counters: RefCell::default(),
        })
    }

    /// The target that is asked for; `None` for discovery.
    fn find(&self, kind: &SessionKind) -> Result<Option<Rc<LocalTarget>>, LoginStatus> {
        match kind {
            SessionKind::Discovery => Ok(None),
            SessionKind::Normal { target_name } => match self.state.target(target_name) {
                Some(target) => Ok(Some(target)),
                None => Err(LoginStatus::NotFound),
            },
        }
    }
}
