//! The tasks (SCSI commands) of a connection in slots that are used again, found by handle or by
//! Initiator Task Tag. It holds their state; what changes it is in `data_out` and `respond`.
use hashbrown::HashMap;

use crate::iscsi::pdu::{InitiatorTaskTag, Lun, Residual, ScsiCommand, TargetTransferTag};
use crate::iscsi::serial::DataSn;

/// Names one task of one connection; stale once the task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskHandle {
    slot: u32,
    generation: u32,
}

impl TaskHandle {
    /// The tag of this task's R2T number `index`; unique among the outstanding ones.
    pub(super) fn transfer_tag(self, index: u32) -> TargetTransferTag {
        TargetTransferTag(self.slot << 16 | index & 0xffff)
    }

    /// A small number, unique among the live tasks of the connection and used again: an index for
    /// the server's own table. Below queue depth + `MAX_IMMEDIATE_TASKS`.
    #[must_use]
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

/// A response that waits for data in flight.
#[derive(Debug)]
pub(super) struct Deferred {
    pub status: u8,
    pub sense: Vec<u8>,
    pub residual: Residual,
}

/// Fixed-format sense data, ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR (47h/05h): what §11.4.7.2 wants
/// of a task that ends because data is missing or out of sequence.
const SEQUENCE_ERROR_SENSE: [u8; 18] = [
    0x70, 0, 0x0b, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x47, 0x05, 0, 0, 0, 0,
];
/// SAM-5 status CHECK CONDITION.
const CHECK_CONDITION: u8 = 0x02;

impl Deferred {
    /// The end of a task whose data came out of sequence.
    pub fn sequence_error(expected: u32) -> Self {
        let residual = Residual::between(expected, 0);
        Self {
            status: CHECK_CONDITION,
            sense: SEQUENCE_ERROR_SENSE.to_vec(),
            residual,
        }
    }
}

/// Progress of the data to the target.
#[derive(Debug)]
pub(super) struct DataOutState {
    /// Bytes that the server wants; `None` until it says.
    pub wanted: Option<u32>,
    /// Bytes received and verified, without a gap from 0.
    pub received: u32,
    /// Where unsolicited data ended; `None` while more may come.
    pub unsolicited_end: Option<u32>,
    /// Where it must end at the latest.
    pub unsolicited_limit: u32,
    /// What was asked for since the server wanted more: from which offset on, and the number of its first R2T.
    pub extended: Option<(u32, u32)>,
    /// DataSN due next in the current sequence.
    pub data_sn: DataSn,
    /// R2Ts sent and answered.
    pub r2ts_sent: u32,
    pub r2ts_done: u32,
    /// `DataOutComplete` was reported.
    pub announced: bool,
}

impl DataOutState {
    /// Where the R2Ts of the present request begin: offset, and the number of the first.
    pub fn solicited(&self) -> (u32, u32) {
        self.extended
            .unwrap_or((self.unsolicited_end.unwrap_or(0), 0))
    }
}

/// Progress of the data to the initiator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataInState {
    /// Bytes queued for sending.
    pub sent: u32,
    /// DataSN of the next PDU.
    pub data_sn: DataSn,
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub initiator_task_tag: InitiatorTaskTag,
    pub lun: Lun,
    pub expected: u32,
    pub read: bool,
    pub write: bool,
    pub immediate: bool,
    pub data_out: DataOutState,
    pub data_in: DataInState,
    pub deferred: Option<Deferred>,
}

impl Task {
    pub fn new(command: &ScsiCommand, unsolicited_limit: u32) -> Self {
        let unsolicited_end = command.is_final.then_some(command.data_segment_length);
        Self {
            initiator_task_tag: command.initiator_task_tag,
            lun: command.lun,
            expected: command.expected_data_transfer_length,
            read: command.read,
            write: command.write,
            immediate: command.immediate,
            data_out: DataOutState {
                wanted: None,
                received: 0,
                unsolicited_end,
                unsolicited_limit,
                extended: None,
                data_sn: DataSn(0),
                r2ts_sent: 0,
                r2ts_done: 0,
                announced: false,
            },
            data_in: DataInState::default(),
            deferred: None,
        }
    }

    /// Whether data that the initiator was allowed to send is still on its way.
    pub fn data_in_flight(&self) -> bool {
        let data = &self.data_out;
        let unsolicited = data.unsolicited_end.is_none_or(|end| data.received < end);
        self.write && (unsolicited || data.r2ts_sent != data.r2ts_done)
    }
}

/// All tasks of a connection.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) slots: Vec<(u32, Option<Task>)>,
    pub(super) free: Vec<u32>,
    pub(super) by_tag: HashMap<InitiatorTaskTag, TaskHandle>,
    immediate: u32,
}

impl Tasks {
    pub fn insert(&mut self, task: Task) -> TaskHandle {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let tag = task.initiator_task_tag;
        self.immediate += u32::from(task.immediate);
        let place = &mut self.slots[slot as usize];
        place.1 = Some(task);
        let handle = TaskHandle {
            slot,
            generation: place.0,
        };
        self.by_tag.insert(tag, handle);
        handle
    }

    pub fn remove(&mut self, handle: TaskHandle) -> Option<Task> {
        let place = self.slots.get_mut(handle.slot as usize)?;
        if place.0 != handle.generation {
            return None;
        }
        let task = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(handle.slot);
        self.by_tag.remove(&task.initiator_task_tag);
        self.immediate -= u32::from(task.immediate);
        Some(task)
    }

    pub fn get(&self, handle: TaskHandle) -> Option<&Task> {
        let (generation, task) = self.slots.get(handle.slot as usize)?;
        task.as_ref().filter(|_| *generation == handle.generation)
    }

    pub fn get_mut(&mut self, handle: TaskHandle) -> Option<&mut Task> {
        let (generation, task) = self.slots.get_mut(handle.slot as usize)?;
        task.as_mut().filter(|_| *generation == handle.generation)
    }

    pub fn find(&self, tag: InitiatorTaskTag) -> Option<TaskHandle> {
        self.by_tag.get(&tag).copied()
    }

    pub fn immediate(&self) -> u32 {
        self.immediate
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskHandle, &Task)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, (generation, task))| {
                let handle = TaskHandle {
                    slot: slot as u32,
                    generation: *generation,
                };
                task.as_ref().map(|task| (handle, task))
            })
    }

    pub fn clear(&mut self) {
        let live: Vec<TaskHandle> = self.iter().map(|(handle, _)| handle).collect();
        for handle in live {
            self.remove(handle);
        }
    }
}
