//! The simulated network: TCP connections between listeners and streams of one simulation, whose
//! bytes take time and arrive in pieces, and the faults that tests put on them. No packets, no loss.

use super::config::NetConfig;
use super::world::World;
use crate::time::Instant;
use rand::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::Waker;

/// Ports that the system gives out.
const EPHEMERAL_FIRST: u16 = 32768;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EndId(u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ListenerId(u64);

/// The network of a simulation, for faults. Clones are the same network.
#[derive(Clone)]
pub struct SimNet {
    shared: Rc<Shared>,
}

struct Shared {
    config: NetConfig,
    world: Weak<World>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<ListenerId, Listener>,
    ends: BTreeMap<EndId, End>,
    next: u64,
    next_port: u16,
    cut_off: BTreeSet<SocketAddr>,
    connecting: Vec<Waker>,
}

struct Listener {
    addr: SocketAddr,
    queue: VecDeque<EndId>,
    waiting: Vec<Waker>,
}

enum Segment {
    Data(Vec<u8>),
    Fin,
    Reset,
}

/// What one end knows and holds.
struct End {
    local: SocketAddr,
    peer: SocketAddr,
    is_client: bool,
    other: EndId,
    /// Arrived and not received.
    arrived: VecDeque<u8>,
    /// Bytes on their way to this end.
    travelling: usize,
    /// When the last segment to this end arrives.
    last_due: Instant,
    /// Segments that came while cut off.
    held: VecDeque<Segment>,
    peer_finished: bool,
    shut: bool,
    closed: bool,
    reset: bool,
    /// To be told once.
    error: Option<i32>,
    readers: Vec<Waker>,
    writers: Vec<Waker>,
}

impl End {
    fn fail(&mut self, wake: &mut Vec<Waker>) {
        if !self.reset {
            self.reset = true;
            self.error = Some(libc::ECONNRESET);
        }
        self.wake_all(wake);
    }

    fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        wake.append(&mut self.readers);
        wake.append(&mut self.writers);
    }
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Notes whom to wake, once.
fn wait(list: &mut Vec<Waker>, waker: &Waker) {
    if !list.iter().any(|known| known.will_wake(waker)) {
        list.push(waker.clone());
    }
}

fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// What came of an attempt that may have to wait.
pub(super) enum Attempt<T> {
    Done(io::Result<T>),
    Wait,
}

impl State {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn listener_at(&self, addr: SocketAddr) -> Option<ListenerId> {
        let serves = |listener: &&Listener| {
            let at = listener.addr;
            at == addr || (at.ip().is_unspecified() && at.port() == addr.port())
        };
        let found = self.listeners.iter().find(|(_, l)| serves(l));
        found.map(|(id, _)| *id)
    }

    fn port_in_use(&self, ip: IpAddr, port: u16) -> bool {
        let listens = self.listener_at(SocketAddr::new(ip, port)).is_some();
        listens || self.ends.values().any(|end| end.local.port() == port)
    }

    fn free_port(&mut self, ip: IpAddr) -> u16 {
        loop {
            let port = self.next_port.max(EPHEMERAL_FIRST);
            self.next_port = port.checked_add(1).unwrap_or(EPHEMERAL_FIRST);
            if !self.port_in_use(ip, port) {
                return port;
            }
        }
    }

    fn is_cut_off(&self, end: &End) -> bool {
        self.cut_off.contains(&end.local) || self.cut_off.contains(&end.peer)
    }

    fn new_end(&self, local: SocketAddr, peer: SocketAddr, other: EndId, is_client: bool) -> End {
        End {
            local,
            peer,
            is_client,
            other,
            arrived: VecDeque::new(),
            travelling: 0,
            last_due: Instant::from_nanos(0),
            held: VecDeque::new(),
            peer_finished: false,
            shut: false,
            closed: false,
            reset: false,
            error: None,
            readers: Vec::new(),
            writers: Vec::new(),
        }
    }

    /// Forgets connections that both ends have left.
    fn forget(&mut self, id: EndId) {
        let Some(end) = self.ends.get(&id) else {
            return;
        };
        let other = end.other;
        if end.closed && self.ends.get(&other).is_none_or(|other| other.closed) {
            self.ends.remove(&id);
            self.ends.remove(&other);
        }
    }
}

impl SimNet {
    pub(super) fn new(config: NetConfig, world: Weak<World>) -> SimNet {
        SimNet {
            shared: Rc::new(Shared {
                config,
                world,
                state: RefCell::new(State::default()),
            }),
        }
    }

    /// Nothing to or from this address (of a listener or a client) arrives until [`SimNet::heal`];
    /// connecting to it hangs.
    pub fn partition(&self, addr: SocketAddr) {
        self.shared.state.borrow_mut().cut_off.insert(addr);
    }

    /// Ends a partition: what was held back arrives now, in order.
    pub fn heal(&self, addr: SocketAddr) {
        let (held, connecting) = {
            let mut state = self.shared.state.borrow_mut();
            state.cut_off.remove(&addr);
            let State { ends, cut_off, .. } = &mut *state;
            let mut held = Vec::new();
            for (id, end) in ends {
                if !cut_off.contains(&end.local) && !cut_off.contains(&end.peer) {
                    held.extend(end.held.drain(..).map(|segment| (*id, segment)));
                }
            }
            (held, std::mem::take(&mut state.connecting))
        };
        for (id, segment) in held {
            self.arrive(id, segment);
        }
        wake_all(connecting);
    }

    /// Resets all connections that have an end at this address; their number.
    pub fn reset(&self, addr: SocketAddr) -> usize {
        let mut wake = Vec::new();
        let mut count = 0;
        for end in self.shared.state.borrow_mut().ends.values_mut() {
            if end.local == addr || end.peer == addr {
                end.fail(&mut wake);
                count += usize::from(end.is_client);
            }
        }
        wake_all(wake);
        count
    }

    /// Open connections as (client, server).
    pub fn connections(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let state = self.shared.state.borrow();
        let open = state
            .ends
            .values()
            .filter(|end| end.is_client && !end.reset);
        open.map(|end| (end.local, end.peer)).collect()
    }

    pub(super) fn config(&self) -> &NetConfig {
        &self.shared.config
    }

    pub(super) fn listen(&self, mut addr: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let mut state = self.shared.state.borrow_mut();
        if addr.port() == 0 {
            addr.set_port(state.free_port(addr.ip()));
        }
        let taken = state.listeners.values().any(|listener| {
            let at = listener.addr;
            let overlap = at.ip() == addr.ip() || at.ip().is_unspecified();
            at.port() == addr.port() && (overlap || addr.ip().is_unspecified())
        });
        if taken {
            return Err(os(libc::EADDRINUSE));
        }
        let id = ListenerId(state.id());
        let listener = Listener {
            addr,
            queue: VecDeque::new(),
            waiting: Vec::new(),
        };
        state.listeners.insert(id, listener);
        Ok((id, addr))
    }

    pub(super) fn accept(&self, id: ListenerId, waker: &Waker) -> Attempt<(EndId, SocketAddr)> {
        let mut state = self.shared.state.borrow_mut();
        let State {
            listeners, ends, ..
        } = &mut *state;
        let Some(listener) = listeners.get_mut(&id) else {
            return Attempt::Done(Err(os(libc::EINVAL)));
        };
        let Some(end) = listener.queue.pop_front() else {
            wait(&mut listener.waiting, waker);
            return Attempt::Wait;
        };
        let peer = ends.get(&end).map(|end| end.peer);
        let connecting = std::mem::take(&mut state.connecting);
        drop(state);
        wake_all(connecting);
        Attempt::Done(
            peer.map(|peer| (end, peer))
                .ok_or_else(|| os(libc::ECONNABORTED)),
        )
    }

    pub(super) fn stop_listening(&self, id: ListenerId) {
        let listener = self.shared.state.borrow_mut().listeners.remove(&id);
        for end in listener.into_iter().flat_map(|listener| listener.queue) {
            self.abort(end);
        }
    }

    /// One attempt to connect; the client's end.
    pub(super) fn connect(&self, addr: SocketAddr, waker: &Waker) -> Attempt<EndId> {
        let mut state = self.shared.state.borrow_mut();
        let refused = Attempt::Done(Err(os(libc::ECONNREFUSED)));
        if state.cut_off.contains(&addr) {
            wait(&mut state.connecting, waker);
            return Attempt::Wait;
        }
        let Some(listener) = state.listener_at(addr) else {
            return refused;
        };
        let full = state
            .listeners
            .get(&listener)
            .is_some_and(|listener| listener.queue.len() >= self.shared.config.backlog);
        if full {
            wait(&mut state.connecting, waker);
            return Attempt::Wait;
        }
        let local = SocketAddr::new(addr.ip(), state.free_port(addr.ip()));
        let (client, server) = (EndId(state.id()), EndId(state.id()));
        let ours = state.new_end(local, addr, server, true);
        let theirs = state.new_end(addr, local, client, false);
        state.ends.insert(client, ours);
        state.ends.insert(server, theirs);
        let Some(listener) = state.listeners.get_mut(&listener) else {
            return refused;
        };
        listener.queue.push_back(server);
        let waiting = std::mem::take(&mut listener.waiting);
        drop(state);
        wake_all(waiting);
        Attempt::Done(Ok(client))
    }

    pub(super) fn addresses(&self, id: EndId) -> Option<(SocketAddr, SocketAddr)> {
        let state = self.shared.state.borrow();
        state.ends.get(&id).map(|end| (end.local, end.peer))
    }

    /// Takes some of what arrived; 0 at the end of the stream.
    pub(super) fn recv(&self, id: EndId, out: &mut [u8], waker: &Waker) -> Attempt<usize> {
        let mut state = self.shared.state.borrow_mut();
        let Some(end) = state.ends.get_mut(&id) else {
            return Attempt::Done(Err(os(libc::ENOTCONN)));
        };
        if end.arrived.is_empty() {
            if let Some(code) = end.error.take() {
                return Attempt::Done(Err(os(code)));
            }
            if end.peer_finished || end.shut || end.reset || out.is_empty() {
                return Attempt::Done(Ok(0));
            }
            wait(&mut end.readers, waker);
            return Attempt::Wait;
        }
        let count = self.piece(end.arrived.len().min(out.len()));
        for (to, byte) in out.iter_mut().zip(end.arrived.drain(..count)) {
            *to = byte;
        }
        let other = end.other;
        let writers = state
            .ends
            .get_mut(&other)
            .map(|end| std::mem::take(&mut end.writers));
        drop(state);
        wake_all(writers.unwrap_or_default());
        Attempt::Done(Ok(count))
    }

    /// Sends a first piece of `data`; its length.
    pub(super) fn send(&self, id: EndId, data: &[u8], waker: &Waker) -> Attempt<usize> {
        let mut state = self.shared.state.borrow_mut();
        let State { ends, .. } = &mut *state;
        let Some(end) = ends.get_mut(&id) else {
            return Attempt::Done(Err(os(libc::ENOTCONN)));
        };
        if let Some(code) = end.error.take() {
            return Attempt::Done(Err(os(code)));
        }
        if end.shut || end.reset {
            return Attempt::Done(Err(os(libc::EPIPE)));
        }
        let other = end.other;
        let used = ends
            .get(&other)
            .map_or(0, |other| other.arrived.len() + other.travelling);
        let room = self.shared.config.window.saturating_sub(used);
        if room == 0 {
            if let Some(end) = ends.get_mut(&id) {
                wait(&mut end.writers, waker);
            }
            return Attempt::Wait;
        }
        let count = self.piece(room.min(data.len()).min(self.shared.config.segment));
        drop(state);
        self.dispatch(other, Segment::Data(data[..count].to_vec()));
        Attempt::Done(Ok(count))
    }

    /// A length from 1 to `most` (0 for 0), half the time all of it.
    fn piece(&self, most: usize) -> usize {
        match self.shared.world.upgrade() {
            Some(world) if most > 1 && world.chance(0.5) => {
                world.rng.borrow_mut().random_range(1..=most)
            }
            _ => most,
        }
    }

    /// Sends a segment on its way to an end.
    fn dispatch(&self, to: EndId, segment: Segment) {
        let Some(world) = self
            .shared
            .world
            .upgrade()
            .filter(|world| !world.is_halted())
        else {
            return;
        };
        let segment = match segment {
            Segment::Data(_) if world.chance(self.shared.config.reset_probability) => {
                self.abort(to);
                return;
            }
            other => other,
        };
        let latency = world.draw(&self.shared.config.latency);
        let due = {
            let mut state = self.shared.state.borrow_mut();
            let Some(end) = state.ends.get_mut(&to) else {
                return;
            };
            if let Segment::Data(bytes) = &segment {
                end.travelling += bytes.len();
            }
            end.last_due = end.last_due.max(world.now() + latency);
            end.last_due
        };
        world.at(due, move |world| {
            let net = world.net.clone();
            let held = {
                let mut state = net.shared.state.borrow_mut();
                let held = state
                    .ends
                    .get(&to)
                    .is_some_and(|end| !end.held.is_empty() || state.is_cut_off(end));
                match state.ends.get_mut(&to) {
                    Some(end) if held => {
                        end.held.push_back(segment);
                        return;
                    }
                    _ => segment,
                }
            };
            net.arrive(to, held);
        });
    }

    fn arrive(&self, id: EndId, segment: Segment) {
        let mut wake = Vec::new();
        let mut refused = None;
        if let Some(end) = self.shared.state.borrow_mut().ends.get_mut(&id) {
            match segment {
                Segment::Data(bytes) => {
                    end.travelling -= bytes.len();
                    if end.shut || end.closed {
                        // Nobody will read it: RFC 9293 3.10.7.4, "respond with a reset".
                        end.fail(&mut wake);
                        refused = Some(end.other);
                    } else if !end.reset {
                        end.arrived.extend(bytes);
                    }
                }
                Segment::Fin => end.peer_finished = true,
                Segment::Reset => end.fail(&mut wake),
            }
            end.wake_all(&mut wake);
        }
        if let Some(other) = refused {
            self.dispatch(other, Segment::Reset);
        }
        wake_all(wake);
    }

    /// Breaks a connection at once, at both ends.
    fn abort(&self, id: EndId) {
        let mut wake = Vec::new();
        {
            let mut state = self.shared.state.borrow_mut();
            let other = state.ends.get(&id).map(|end| end.other);
            for id in [Some(id), other].into_iter().flatten() {
                if let Some(end) = state.ends.get_mut(&id) {
                    end.fail(&mut wake);
                }
            }
        }
        wake_all(wake);
    }

    /// Both directions end; what was sent before still arrives.
    pub(super) fn shutdown(&self, id: EndId) {
        let mut wake = Vec::new();
        let other = {
            let mut state = self.shared.state.borrow_mut();
            match state.ends.get_mut(&id) {
                Some(end) if !end.shut => {
                    end.shut = true;
                    end.wake_all(&mut wake);
                    Some(end.other)
                }
                _ => None,
            }
        };
        wake_all(wake);
        if let Some(other) = other {
            self.dispatch(other, Segment::Fin);
        }
    }

    /// The last handle is gone. What was not received makes it a reset, as in Linux.
    pub(super) fn close(&self, id: EndId) {
        let last = {
            let mut state = self.shared.state.borrow_mut();
            let Some(end) = state.ends.get_mut(&id) else {
                return;
            };
            end.closed = true;
            let last = match (end.arrived.is_empty(), end.shut || end.reset) {
                (false, _) => Some(Segment::Reset),
                (true, false) => Some(Segment::Fin),
                (true, true) => None,
            };
            end.arrived.clear();
            let other = end.other;
            state.forget(id);
            last.map(|segment| (other, segment))
        };
        if let Some((other, segment)) = last {
            self.dispatch(other, segment);
        }
    }
}
