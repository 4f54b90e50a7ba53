//! What each event of the protocol core starts: logins, commands, task management, logout, the end. The commands
//! themselves are in `commands`, who may log in is decided in `login`.

use super::limits::PORTAL_GROUP_TAG;
use super::link::{Link, timestamp};
use super::session::Session;
use crate::iscsi::{CallError, CloseReason, Event, TargetRecord, TargetScope};
use atoll_reactor::spawn_detached;
use std::net::SocketAddr;
use std::rc::Rc;

impl Link {
    /// Gives input to the protocol core, and does what comes of it, until no more input is taken.
    pub(super) fn pump(self: &Rc<Self>, input: &mut &[u8]) {
        if self.pumping.replace(true) {
            // Called from within: the caller at the bottom goes on.
            return;
        }
        loop {
            let event = self.protocol.borrow_mut().handle(timestamp(), input);
            match event {
                Some(event) => self.dispatch(event),
                None if self.decide() => {}
                None => break,
            }
        }
        self.pumping.set(false);
        self.output.notify();
    }

    fn dispatch(self: &Rc<Self>, event: Event<'_>) {
        match event {
            Event::Login(identity) => {
                self.login_running.set(true);
                let link = self.clone();
                spawn_detached(async move { link.login(identity).await });
            }
            Event::FullFeaturePhase(_) => {
                self.full_feature.set(true);
                self.login_place.take();
                self.move_timer();
            }
            Event::SendTargets(scope) => self.send_targets(&scope),
            Event::Command(command) => self.begin_command(&command),
            Event::DataOut {
                task,
                offset,
                bytes,
            } => self.take_data(task, offset, bytes),
            Event::DataOutComplete { task } => self.data_complete(task),
            Event::TaskFailed { task, violation } => {
                tracing::debug!(%violation, "a command ended");
                self.tasks.abort(task, &mut Vec::new());
                if let Some(session) = &*self.session.borrow() {
                    session.count(|counters| counters.errors += 1);
                }
                self.make_room();
            }
            Event::TaskManagement {
                request,
                function,
                lun,
                referenced,
            } => self.manage(request, function, lun, referenced),
            Event::Logout(_) => {
                let link = self.clone();
                self.abort_all();
                spawn_detached(async move { link.log_out().await });
            }
            Event::Closed(reason) => self.closed(&reason),
        }
    }

    /// Answers a logout after all that the session had begun has ended.
    async fn log_out(self: Rc<Self>) {
        self.until_quiet().await;
        // The connection may have ended meanwhile.
        let _ = self.protocol.borrow_mut().complete_logout(timestamp());
        self.pump(&mut [].as_slice());
    }

    fn closed(self: &Rc<Self>, reason: &CloseReason) {
        let session = self.session.borrow().clone();
        let initiator = session.as_ref().map_or("", |s| s.initiator.as_str());
        match reason {
            CloseReason::Logout(_) | CloseReason::Dropped => {
                tracing::debug!(peer = %self.peer(), initiator, %reason, "a connection ends");
            }
            _ => tracing::info!(peer = %self.peer(), initiator, %reason, "a connection ends"),
        }
        self.end_tasks();
        self.closing();
    }

    /// The session's commands, if it uses a unit.
    pub(super) fn unit_session(&self) -> Option<Rc<Session>> {
        let session = self.session.borrow();
        session.clone().filter(|session| session.unit.is_some())
    }

    fn send_targets(&self, scope: &TargetScope) {
        let mut records = self.records(scope);
        loop {
            let answered = self.protocol.borrow_mut().answer_send_targets(&records);
            match answered {
                Err(CallError::TooLong) => {
                    tracing::warn!(
                        targets = records.len(),
                        "the list of targets is longer than an initiator is told: it is cut"
                    );
                    records.truncate(records.len() / 2);
                }
                _ => return,
            }
        }
    }

    fn records(&self, scope: &TargetScope) -> Vec<TargetRecord> {
        let record = |name: &str| TargetRecord {
            name: name.to_string(),
            portals: self.portals(),
        };
        match scope {
            TargetScope::All => {
                let targets = self.state.targets.borrow();
                targets.keys().map(|name| record(name)).collect()
            }
            TargetScope::Named(name) => {
                let target = self.state.target(name);
                target.map(|t| record(&t.target.iqn)).into_iter().collect()
            }
            TargetScope::Current => {
                let session = self.unit_session();
                let unit = session.as_ref().and_then(|session| session.unit.as_ref());
                unit.map(|unit| record(&unit.target.target.iqn))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Where initiators are told to connect to.
    fn portals(&self) -> Vec<(String, u16)> {
        let shared = &self.state.shared;
        let here = match shared.listen.ip().is_unspecified() {
            // An IPv4 peer of a dual-stack socket is told an IPv4 address.
            true => SocketAddr::new(self.local().ip().to_canonical(), self.local().port()),
            false => shared.listen,
        };
        let portals = match shared.config.advertise.as_slice() {
            [] => std::slice::from_ref(&here),
            advertised => advertised,
        };
        let named = portals.iter().map(|at| (at.to_string(), PORTAL_GROUP_TAG));
        named.collect()
    }

    /// The most seconds that initiators are given to log out.
    pub(super) fn logout_seconds(grace: std::time::Duration) -> u16 {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        u16::try_from(seconds).unwrap_or(u16::MAX)
    }
}
