//! One connection on its core: the protocol core, its socket, and the three tasks that move bytes and time between
//! them. What the events mean is in `dispatch`, what commands do in `tasks`.

use super::config::SessionInfo;
use super::limits::{
    ABORT_PATIENCE, CROWDED_LOGIN_TIME, IDLE_RECEIVE_BYTES, RECEIVE_BYTES, RECEIVE_IDLE,
    SEND_TIMEOUT,
};
use super::memory::Share;
use super::session::Session;
use super::state::{CoreState, LinkId, LoginPlace, Place, TargetId, on_core};
use super::tasks::TaskTable;
use super::transmit::Gatherer;
use super::wait::Signal;
use crate::iscsi::pdu::Tsih;
use crate::iscsi::{Connection, Timestamp, limits as protocol_limits};
use atoll_reactor::net::{DetachedStream, TcpStream};
use atoll_reactor::{Buf, Instant, SharedBuf, now, spawn_detached, timeout, timeout_at};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// One connection.
pub(super) struct Link {
    pub(super) state: Rc<CoreState>,
    id: LinkId,
    stream: TcpStream,
    pub(super) protocol: RefCell<Connection<SharedBuf>>,
    /// Once its login was accepted.
    pub(super) session: RefCell<Option<Rc<Session>>>,
    pub(super) full_feature: Cell<bool>,
    /// A login asks the registrar: what it is told must not get lost.
    pub(super) login_running: Cell<bool>,
    pub(super) login_place: Cell<Option<LoginPlace>>,
    connected: Instant,
    pub(super) tasks: TaskTable,
    /// Of the core's memory for commands.
    pub(super) share: Share,
    /// Something waits for room in it.
    pub(super) waits_for_memory: Cell<bool>,
    /// A command that is done in steps may go on.
    pub(super) steps: Signal,
    /// There may be something to send.
    pub(super) output: Signal,
    /// There may be room for input again.
    pub(super) input: Signal,
    /// The deadline may have come nearer.
    timer: Signal,
    timer_moved: Cell<bool>,
    /// A command, a login or the transport has ended.
    pub(super) ended: Signal,
    /// Bytes that are being sent.
    pub(super) sending: Cell<usize>,
    pub(super) pumping: Cell<bool>,
    /// When the closing connection is cut off, whatever it still has to say.
    cut_off: Cell<Option<Instant>>,
    /// The transport has ended.
    over: Cell<bool>,
}

/// The clock as the protocol core wants it.
pub(super) fn timestamp() -> Timestamp {
    Timestamp(Duration::from_nanos(now().as_nanos()))
}

fn instant(at: Timestamp) -> Instant {
    Instant::from_nanos(u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX))
}

/// Serves a connection to its end. On the core that is to serve it.
pub(super) async fn serve(
    state: Rc<CoreState>,
    stream: DetachedStream,
    place: Place,
    login: LoginPlace,
) {
    let stream = match stream.attach() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it was served");
            return;
        }
    };
    let protocol = Connection::new(state.shared.config.connection(), timestamp());
    let link = Rc::new(Link {
        id: state.new_link_id(),
        share: Share::of(state.memory.clone()),
        waits_for_memory: Cell::new(false),
        steps: Signal::default(),
        state,
        stream,
        protocol: RefCell::new(protocol),
        session: RefCell::default(),
        full_feature: Cell::new(false),
        login_running: Cell::new(false),
        login_place: Cell::new(Some(login)),
        connected: now(),
        tasks: TaskTable::default(),
        output: Signal::default(),
        input: Signal::default(),
        timer: Signal::default(),
        timer_moved: Cell::new(false),
        ended: Signal::default(),
        sending: Cell::new(0),
        pumping: Cell::new(false),
        cut_off: Cell::new(None),
        over: Cell::new(false),
    });
    link.state.links.borrow_mut().insert(link.id, link.clone());
    spawn_detached(transmit(link.clone()));
    spawn_detached(watch(link.clone()));
    receive(&link).await;
    clean_up(&link).await;
    drop(place);
}

/// After the transport has ended: waits for what the connection had begun, then forgets it and gives its places free.
async fn clean_up(link: &Rc<Link>) {
    link.lost();
    let decided = || (!link.login_running.get()).then_some(());
    link.ended.until(decided).await;
    link.until_quiet().await;
    let session = link.session.borrow_mut().take();
    if let Some(session) = session {
        unregister(&link.state, session.tsih).await;
    }
    link.login_place.take();
    link.state.links.borrow_mut().remove(&link.id);
    link.state.changed.notify();
}

/// Tells the registrar that a session, and all it had begun, has ended.
pub(super) async fn unregister(state: &Rc<CoreState>, handle: Tsih) {
    // It fails only when the server has stopped, and the registrar with it.
    let _ = on_core(&state.shared, 0, move |first| async move {
        if let Some(registrar) = &first.registrar {
            registrar.remove(handle);
        }
    })
    .await;
}

async fn receive(link: &Rc<Link>) {
    let mut buffer = ReceiveBuffer::default();
    while !link.over.get() {
        let mut unread = buffer.unread();
        let before = unread.len();
        link.pump(&mut unread);
        let consumed = before - unread.len();
        buffer.consume(consumed);
        if link.over.get() {
            return;
        }
        if !link.wants_read() || !buffer.unread().is_empty() {
            let ready = || (link.over.get() || link.wants_read()).then_some(());
            link.input.until(ready).await;
            continue;
        }
        if !buffer.fill(&link.stream).await {
            return;
        }
    }
}

/// What was received and not consumed. While nothing comes it is small.
#[derive(Default)]
struct ReceiveBuffer {
    buffer: Option<Buf>,
    start: usize,
    end: usize,
    /// There is traffic that is worth a large buffer.
    busy: bool,
}

impl ReceiveBuffer {
    fn unread(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer[self.start..self.end],
            None => &[],
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Receives more, when all is consumed; false at the end of the stream.
    async fn fill(&mut self, stream: &TcpStream) -> bool {
        (self.start, self.end) = (0, 0);
        let kept = self.buffer.take();
        if self.busy {
            let large = kept.filter(|buffer| buffer.len() == RECEIVE_BYTES);
            let large = large.unwrap_or_else(|| Buf::alloc(RECEIVE_BYTES));
            // Giving up loses nothing: the kernel has no buffer of ours in between.
            match timeout(RECEIVE_IDLE, stream.recv(large)).await {
                Ok(received) => return self.take_in(received),
                Err(_) => self.busy = false,
            }
        }
        let small = Buf::alloc(IDLE_RECEIVE_BYTES);
        self.take_in(stream.recv(small).await)
    }

    fn take_in(&mut self, (received, buffer): (std::io::Result<usize>, Buf)) -> bool {
        let count = match received {
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost");
                0
            }
        };
        self.busy |= count >= IDLE_RECEIVE_BYTES;
        self.end = count;
        self.buffer = Some(buffer);
        count > 0
    }
}

async fn transmit(link: Rc<Link>) {
    let mut gatherer = Gatherer::default();
    loop {
        let next = link.output.until(|| link.next_batch(&mut gatherer)).await;
        let Some(bytes) = next else { break };
        link.sending.set(bytes);
        let sent = timeout(SEND_TIMEOUT, link.stream.send_all(gatherer.batch())).await;
        gatherer.sent();
        link.sending.set(0);
        match sent {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection was lost");
                break;
            }
            Err(_) => {
                tracing::info!(peer = %link.peer(), "a peer takes no output: it is dropped");
                break;
            }
        }
        link.make_room();
    }
    link.lost();
}

async fn watch(link: Rc<Link>) {
    while !link.over.get() {
        let moved = link.timer.until(|| link.timer_moved.take().then_some(()));
        let due = match link.deadline() {
            Some(due) => timeout_at(due, moved).await.is_err(),
            None => {
                moved.await;
                false
            }
        };
        if !due || link.over.get() {
            continue;
        }
        if link.cut_off.get().is_some_and(|at| at <= now()) {
            link.lost();
            return;
        }
        link.protocol.borrow_mut().handle_timeout(timestamp());
        link.pump(&mut [].as_slice());
    }
}

impl Link {
    /// The bytes of the next send, `None` at the end of the output; waits otherwise.
    #[allow(clippy::option_option, reason = "what `Signal::until` asks for")]
    fn next_batch(&self, gatherer: &mut Gatherer) -> Option<Option<usize>> {
        if self.over.get() {
            return Some(None);
        }
        let mut protocol = self.protocol.borrow_mut();
        match gatherer.gather(&mut protocol, timestamp()) {
            0 if protocol.is_finished() => Some(None),
            0 => None,
            bytes => Some(Some(bytes)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let cut_off = self.cut_off.get();
        cut_off.or_else(|| self.protocol.borrow().poll_timeout().map(instant))
    }

    /// The deadline may have come nearer.
    pub(super) fn move_timer(&self) {
        self.timer_moved.set(true);
        self.timer.notify();
    }

    /// Whether input would be consumed now.
    pub(super) fn wants_read(&self) -> bool {
        self.protocol.borrow().wants_read()
    }

    /// The protocol has ended: what is still to be sent has this long.
    pub(super) fn closing(&self) {
        self.cut_off
            .set(Some(now() + protocol_limits::CLOSE_TIMEOUT));
        self.move_timer();
        self.output.notify();
        self.input.notify();
    }

    /// The transport has ended, or is to: what was begun on the volume goes on, the rest is forgotten.
    pub(super) fn lost(&self) {
        if self.over.replace(true) {
            return;
        }
        self.stream.shutdown();
        self.end_tasks();
        self.move_timer();
        self.output.notify();
        self.input.notify();
        self.ended.notify();
        self.steps.notify();
        if self.waits_for_memory.get() {
            self.state.memory.freed.notify();
        }
    }

    /// Until nothing that was begun runs on the volume any more, or a store that does not answer was waited for.
    pub(super) async fn until_quiet(&self) {
        let quiet = || self.tasks.is_quiet().then_some(());
        if timeout(ABORT_PATIENCE, self.ended.until(quiet))
            .await
            .is_err()
        {
            tracing::warn!(peer = %self.peer(), "a session ends while a store does not answer to what it had begun");
        }
    }

    /// Asks the initiator to log out within `seconds`; it is dropped when it does not.
    pub(super) fn request_logout(self: &Rc<Self>, seconds: u16) {
        let time = timestamp();
        self.protocol.borrow_mut().request_logout(time, seconds);
        self.after_control();
    }

    /// Others want to log in: ends it if it had its time and has not. One that is being decided goes on.
    pub(super) fn drop_slow_login(self: &Rc<Self>) {
        let in_login = !self.full_feature.get() && !self.login_running.get();
        if in_login && !self.over.get() && now().since(self.connected) >= CROWDED_LOGIN_TIME {
            tracing::debug!(peer = %self.peer(), "too slow a login while others wait");
            self.lost();
        }
    }

    /// Ends the session from this side.
    pub(super) fn drop_session(self: &Rc<Self>) {
        self.protocol.borrow_mut().drop_session(timestamp());
        self.after_control();
    }

    fn after_control(self: &Rc<Self>) {
        self.pump(&mut [].as_slice());
        self.move_timer();
    }

    pub(super) fn peer(&self) -> std::net::SocketAddr {
        self.stream.peer_addr()
    }

    pub(super) fn local(&self) -> std::net::SocketAddr {
        self.stream.local_addr()
    }

    pub(super) fn tsih(&self) -> Option<Tsih> {
        self.session.borrow().as_ref().map(|session| session.tsih)
    }

    /// The target that its session uses.
    pub(super) fn target_id(&self) -> Option<TargetId> {
        let session = self.session.borrow();
        let unit = session.as_ref()?.unit.as_ref()?;
        Some(unit.target.target.id)
    }

    /// Its session, if it is in full feature phase.
    pub(super) fn info(&self) -> Option<SessionInfo> {
        if !self.full_feature.get() || self.over.get() {
            return None;
        }
        let session = self.session.borrow();
        let session = session.as_ref()?;
        Some(SessionInfo {
            initiator: session.initiator.clone(),
            initiator_alias: session.initiator_alias.clone(),
            target: session
                .unit
                .as_ref()
                .map(|unit| unit.target.target.iqn.clone()),
            isid: session.isid.0,
            tsih: session.tsih.0,
            core: atoll_reactor::core_id(),
            peer: self.peer(),
            portal: self.local(),
            connected_for: now().since(session.since),
            outstanding: self.protocol.borrow().tasks().count(),
            counters: *session.counters.borrow(),
        })
    }
}
