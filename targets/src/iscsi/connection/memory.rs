//! What a connection keeps in memory for its peer, in bytes: what the limits of `limits` have to bound, and
//! what tests hold against the bytes that came. It limits nothing itself.
use super::receive::Receiver;
use super::tasks::{Task, Tasks};
use super::{Connection, State, TaskHandle};
use crate::iscsi::pdu::InitiatorTaskTag;

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// Bytes of memory that this connection holds besides its own size: header and data of an unfinished PDU,
    /// collected text, answers, tasks, queued output. Payloads of reads are the server's and not counted.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let login = match &self.state {
            State::Login(login) => size_of_val(login.as_ref()) + login.held_bytes(),
            State::FullFeature { .. } | State::Closing => 0,
        };
        let negotiator = self.negotiator.as_ref().map_or(0, |n| n.held_bytes());
        login
            + negotiator
            + self.receiver.held_bytes()
            + self.output.held_bytes()
            + self.tasks.held_bytes()
            + self.ready.capacity() * size_of::<TaskHandle>()
            + self.management.capacity() * size_of::<InitiatorTaskTag>()
            + self.text.assembler.held_bytes()
            + self.text.answer.capacity()
    }
}

impl Tasks {
    fn held_bytes(&self) -> usize {
        let sense = |task: &Task| task.deferred.as_ref().map_or(0, |d| d.sense.capacity());
        self.slots.capacity() * size_of::<(u32, Option<Task>)>()
            + self.free.capacity() * size_of::<u32>()
            + self.by_tag.allocation_size()
            + self.iter().map(|(_, task)| sense(task)).sum::<usize>()
    }
}

impl Receiver {
    fn held_bytes(&self) -> usize {
        size_of_val(self.header.as_ref()) + self.sink.held_bytes()
    }
}
