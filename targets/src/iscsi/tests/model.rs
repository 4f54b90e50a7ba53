//! A server around a connection: accepts everybody, reads a pattern, keeps what is written, and logs
//! events in a form that does not depend on how the stream was split.
use std::collections::HashMap;
use std::rc::Rc;

use crate::iscsi::pdu::{TaskManagementResponseCode, Tsih};
use crate::iscsi::{
    Chunk, Config, Connection, Event, LoginAccept, Outcome, TargetRecord, TaskHandle, Timestamp,
};

pub type Payload = Rc<Vec<u8>>;

/// Wraps a payload so that it is `AsRef<[u8]>`.
#[derive(Clone, Debug)]
pub struct Bytes(pub Payload);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Byte `index` of every read.
pub fn pattern(index: usize) -> u8 {
    (index * 7 + index / 251) as u8
}

pub struct Target {
    pub connection: Connection<Bytes>,
    pub now: Timestamp,
    pub log: Vec<String>,
    pub output: Vec<u8>,
    pub written: Vec<Vec<u8>>,
    /// SCSI transfer length; `None`: what the initiator expects.
    pub transfer_length: Option<u32>,
    /// Leave commands unanswered.
    pub hold: bool,
    pub held: Vec<TaskHandle>,
    /// Take and give data in steps of so many bytes.
    pub step: Option<u32>,
    buffers: HashMap<TaskHandle, (Vec<u8>, u64)>,
}

impl Target {
    pub fn new(config: Config) -> Self {
        let now = Timestamp::default();
        Self {
            connection: Connection::new(config, now),
            now,
            log: Vec::new(),
            output: Vec::new(),
            written: Vec::new(),
            transfer_length: None,
            hold: false,
            held: Vec::new(),
            step: None,
            buffers: HashMap::new(),
        }
    }

    /// Feeds bytes, runs events, collects output.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        loop {
            let before = input.len();
            let mut events = 0;
            while let Some(event) = self.connection.handle(self.now, &mut input) {
                self.react(event);
                events += 1;
            }
            let sent = self.drain();
            if (input.len() == before && events == 0 && sent == 0)
                || (input.is_empty() && sent == 0)
            {
                return;
            }
        }
    }

    pub fn drain(&mut self) -> usize {
        let before = self.output.len();
        while let Some(chunk) = self.connection.poll_transmit(self.now) {
            assert!(!chunk.bytes().is_empty());
            if let Chunk::Payload(payload, range) = &chunk {
                assert!(range.end <= payload.0.len());
            }
            self.output.extend_from_slice(chunk.bytes());
        }
        self.output.len() - before
    }

    fn react(&mut self, event: Event<'_>) {
        if !matches!(event, Event::DataOut { .. }) {
            self.log.push(format!("{event:?}"));
        }
        match event {
            Event::Login(_) => {
                let accept = LoginAccept {
                    tsih: Tsih(7),
                    target_portal_group_tag: 1,
                    target_alias: None,
                };
                self.connection.accept_login(self.now, accept).unwrap();
            }
            Event::SendTargets(_) => {
                let name = "iqn.2026-11.io.atoll:demo".to_string();
                let portals = vec![
                    ("127.0.0.1:3260".to_string(), 1),
                    ("[::1]:3260".to_string(), 1),
                ];
                self.connection
                    .answer_send_targets(&[TargetRecord { name, portals }])
                    .unwrap();
            }
            Event::Command(command) if command.write => {
                let length = self
                    .transfer_length
                    .unwrap_or(command.expected_data_transfer_length);
                let wanted = length.min(self.step.unwrap_or(u32::MAX));
                let comes = self
                    .connection
                    .expect_data_out(command.task, wanted)
                    .unwrap();
                assert_eq!(comes, wanted.min(command.expected_data_transfer_length));
                // Memory only for what comes, so that mutated lengths do no harm to the test.
                self.buffers
                    .insert(command.task, (Vec::new(), u64::from(length)));
            }
            Event::Command(command) if self.hold => self.held.push(command.task),
            Event::Command(command) => {
                let expected = command.expected_data_transfer_length;
                let length = if command.read {
                    self.transfer_length.unwrap_or(expected.min(1 << 20))
                } else {
                    0
                };
                self.read(command.task, length);
            }
            Event::DataOut {
                task,
                offset,
                bytes,
            } => {
                let (buffer, _) = self.buffers.get_mut(&task).unwrap();
                assert_eq!(
                    buffer.len(),
                    offset as usize,
                    "data comes in order and once"
                );
                buffer.extend_from_slice(bytes);
            }
            Event::DataOutComplete { task } if self.wants_more(task) => {}
            Event::DataOutComplete { task } => {
                let (buffer, transfer_length) = self.buffers.remove(&task).unwrap();
                self.log.push(format!(
                    "written {} {:02x?}",
                    buffer.len(),
                    crate::iscsi::digest::crc32c(&buffer)
                ));
                self.written.push(buffer);
                let outcome = Outcome {
                    status: 0,
                    sense: &[],
                    transfer_length,
                };
                self.connection.complete(task, outcome, &[]).unwrap();
            }
            Event::TaskFailed { task, .. } => {
                self.buffers.remove(&task);
                let outcome = Outcome {
                    status: 0,
                    sense: &[],
                    transfer_length: 0,
                };
                assert!(self.connection.complete(task, outcome, &[]).is_err());
            }
            Event::TaskManagement {
                request,
                referenced,
                ..
            } => {
                if let Some(task) = referenced {
                    self.connection.abort_task(task).unwrap();
                }
                let done = TaskManagementResponseCode::FunctionComplete;
                self.connection
                    .complete_task_management(request, done)
                    .unwrap();
            }
            Event::Logout(_) => self.connection.complete_logout(self.now).unwrap(),
            Event::FullFeaturePhase(_) | Event::Closed(_) => {}
        }
    }

    /// In steps: asks for the next one.
    fn wants_more(&mut self, task: TaskHandle) -> bool {
        let Some(step) = self.step else { return false };
        let (buffer, _) = &self.buffers[&task];
        let next = buffer.len() as u32 + step;
        self.connection.extend_data_out(task, next).is_ok()
    }

    /// Completes a read with the pattern, in two payload segments; in steps, what is before the last one goes first.
    pub fn read(&mut self, task: TaskHandle, length: u32) {
        let mut data: Vec<u8> = (0..length as usize).map(pattern).collect();
        while let Some(step) = self.step.filter(|step| data.len() > *step as usize) {
            let rest = data.split_off(step as usize);
            let part = [Bytes(Rc::new(std::mem::replace(&mut data, rest)))];
            self.connection.send_data_in(task, &part).unwrap();
        }
        let (head, tail) = data.split_at(data.len() / 3);
        let segments = [Bytes(Rc::new(head.to_vec())), Bytes(Rc::new(tail.to_vec()))];
        let outcome = Outcome {
            status: 0,
            sense: &[],
            transfer_length: u64::from(length),
        };
        self.connection.complete(task, outcome, &segments).unwrap();
    }
}
