//! The deadlines of a connection: login, pings of a silent initiator, logout on request, drain at the
//! end. Deadlines are values; the server's clock says when they are due.
use super::{CloseReason, Connection, Duration, State, Timestamp, limits};
use crate::iscsi::pdu::{
    AsyncEvent, AsyncMessage, InitiatorTaskTag, Lun, NopIn, TargetTransferTag,
};

/// The tag of our pings: one at a time, so that one tag does. Its upper half is no task's slot.
pub(super) const PING_TAG: TargetTransferTag = TargetTransferTag(0xfffe_0000);

#[derive(Debug)]
pub(super) struct Timers {
    /// Of login or of the drain.
    deadline: Timestamp,
    received: Timestamp,
    sent: Timestamp,
    pinged: Option<Timestamp>,
    logout: Option<Timestamp>,
}

impl Timers {
    pub fn new(now: Timestamp, login_timeout: Duration) -> Self {
        Self {
            deadline: now + login_timeout,
            received: now,
            sent: now,
            pinged: None,
            logout: None,
        }
    }
    pub fn received(&mut self, now: Timestamp) {
        self.received = now;
        self.pinged = None;
    }
    pub fn sent(&mut self, now: Timestamp) {
        self.sent = now;
    }
    pub fn closing(&mut self, now: Timestamp) {
        self.deadline = now + limits::CLOSE_TIMEOUT;
    }
}

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// When `handle_timeout` is due at the latest; ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Login(_) => Some(self.timers.deadline),
            State::Closing => (!self.output.is_empty()).then_some(self.timers.deadline),
            State::FullFeature { .. } => {
                let silence = self.silence_deadline();
                Some(
                    self.timers
                        .logout
                        .map_or(silence, |logout| logout.min(silence)),
                )
            }
        }
    }

    fn silence_deadline(&self) -> Timestamp {
        match self.timers.pinged {
            Some(pinged) => pinged + self.config.ping_timeout,
            None => self.last_sign_of_life() + self.config.ping_interval,
        }
    }

    /// While we do not read, a peer that takes our output is alive.
    fn last_sign_of_life(&self) -> Timestamp {
        let timers = &self.timers;
        if self.wants_read() {
            timers.received
        } else {
            timers.received.max(timers.sent)
        }
    }

    /// Does what is due at `now`: pings, or ends the connection (then `handle` with no input reports it).
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match &self.state {
            State::Login(_) => self.close(now, CloseReason::LoginTimeout),
            State::Closing => self.output.clear(),
            State::FullFeature { .. } if self.timers.logout.is_some_and(|due| due <= now) => {
                self.close(now, CloseReason::LogoutTimeout);
            }
            State::FullFeature { .. } => self.silence(now),
        }
    }

    fn silence(&mut self, now: Timestamp) {
        if self.timers.pinged.is_none() {
            self.timers.pinged = Some(now);
            let ping = NopIn {
                lun: Lun::default(),
                initiator_task_tag: InitiatorTaskTag::RESERVED,
                target_transfer_tag: PING_TAG,
                numbers: self.numbers(),
                data_segment_length: 0,
            };
            self.output.push(&ping.encode(), Vec::new());
        } else if !self.wants_read() && self.last_sign_of_life() + self.config.ping_timeout > now {
            // The answer may lie unread in the socket: we are the ones who do not read.
            self.timers.pinged = Some(now);
        } else {
            self.close(now, CloseReason::PeerSilent);
        }
    }

    /// Asks the initiator to log out within `seconds` (§11.9, event 1); it is dropped when it does not.
    /// In login there is nobody to ask: the connection ends.
    pub fn request_logout(&mut self, now: Timestamp, seconds: u16) {
        match self.state {
            State::Login(_) => self.close(now, CloseReason::Dropped),
            State::Closing => {}
            State::FullFeature { .. } => {
                self.timers.logout = Some(now + Duration::from_secs(u64::from(seconds)));
                self.push_async(AsyncEvent::LogoutRequest, [0, 0, seconds]);
            }
        }
    }

    /// Ends the session from this side, telling the initiator (§11.9, event 3): the target goes away,
    /// the session was reinstated, or a cold reset.
    pub fn drop_session(&mut self, now: Timestamp) {
        if matches!(self.state, State::FullFeature { .. }) {
            let wait = self
                .parameters
                .default_time2wait
                .try_into()
                .unwrap_or(u16::MAX);
            self.push_async(AsyncEvent::DropSession, [0, wait, 0]);
        }
        self.close(now, CloseReason::Dropped);
    }

    fn push_async(&mut self, event: AsyncEvent, parameters: [u16; 3]) {
        let message = AsyncMessage {
            lun: Lun::default(),
            numbers: self.status_numbers(),
            event,
            parameters,
        };
        self.output.push(&message.encode(), Vec::new());
    }
}
