//! The iSCSI connection core in each of its states, under any bytes: what it must never do whatever comes. A state is
//! reached by a fixed prefix of legal PDUs (`state`); then the input is fed, a server answers the events (`server`),
//! and what the core sends is checked (`check`). `mutator` makes inputs that get far.
pub mod check;
pub mod mutator;
pub mod pdu;
pub mod server;
pub mod state;

use atoll_targets::iscsi::digest::crc32c;
use atoll_targets::iscsi::{Duration, Timestamp};
use server::Server;
pub use state::State;

/// Option bits, the first byte of an input: what the server and the transport do.
pub mod option {
    /// Commands and task management requests are answered at the end only.
    pub const HOLD: u8 = 1;
    /// A write wants half of what the initiator has.
    pub const HALF: u8 = 1 << 1;
    /// A write is answered before its data is there.
    pub const EARLY: u8 = 1 << 2;
    /// Output is taken only when the core waits for that.
    pub const LAZY: u8 = 1 << 3;
    /// Digests are in the input as they are; else right ones are put where they belong.
    pub const RAW: u8 = 1 << 4;
    /// Logins are refused.
    pub const REFUSE: u8 = 1 << 5;
    /// A second passes between two pieces.
    pub const TIME: u8 = 1 << 6;
    /// The server drops the session at the end.
    pub const DROP: u8 = 1 << 7;
}

/// The second byte of an input: how the stream is split.
const PIECES: [usize; 8] = [usize::MAX, 1, 3, 47, 48, 49, 200, 1000];

/// Length of the PDU that `stream` begins with, without digests; `None` below a header's length. It may be cut short.
pub fn pdu_length(stream: &[u8]) -> Option<usize> {
    let header = stream.first_chunk::<48>()?;
    let data = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
    Some(48 + usize::from(header[4]) * 4 + data.next_multiple_of(4))
}

/// The stream with right digests where the core will look for them.
fn with_digests(mut stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.len() * 9 / 8);
    while let Some(length) = pdu_length(stream) {
        let (pdu, rest) = stream.split_at(length.min(stream.len()));
        let (header, data) = pdu.split_at((48 + usize::from(pdu[4]) * 4).min(pdu.len()));
        out.extend_from_slice(header);
        out.extend_from_slice(&crc32c(header));
        if !data.is_empty() {
            out.extend_from_slice(data);
            out.extend_from_slice(&crc32c(data));
        }
        stream = rest;
    }
    out.extend_from_slice(stream);
    out
}

/// PDUs that begin in the first `taken` bytes, as far as lengths can be believed.
fn count_pdus(stream: &[u8], taken: usize, digests: bool) -> u64 {
    let (mut at, mut count) = (0, 0);
    while at < taken {
        let Some(rest) = stream.get(at..) else { break };
        let Some(length) = pdu_length(rest) else {
            break;
        };
        count += 1;
        let with_data = usize::from(rest[5..8] != [0; 3]);
        at += length + if digests { 4 + 4 * with_data } else { 0 };
    }
    count
}

/// Feeds `input` to a connection in `state` and checks all that is promised. Returns how many PDUs the core read the
/// header of, before it ended.
pub fn stream(state: State, input: &[u8]) -> u64 {
    let [options, split, stream @ ..] = input else {
        return 0;
    };
    let mut server = Server::in_state(state, *options);
    let computed;
    let stream = if state.has_digests() && options & option::RAW == 0 {
        computed = with_digests(stream);
        computed.as_slice()
    } else {
        stream
    };
    let piece = PIECES[usize::from(split & 7)];
    for piece in stream.chunks(piece.min(stream.len().max(1))) {
        server.feed(piece);
        server.check_bounds();
        if options & option::TIME != 0 {
            server.pass(Duration::from_secs(1));
        }
    }
    let taken = match state {
        // All of it is offered, to be left alone or to be swallowed.
        State::LogoutBegun | State::Closing => stream.len(),
        _ => server.taken(),
    };
    server.finish();
    count_pdus(stream, taken, state.has_digests())
}

/// The instant at which every connection is made.
const START: Timestamp = Timestamp(Duration::ZERO);
