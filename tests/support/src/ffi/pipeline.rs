//! libiscsi's asynchronous calls: one session that has many commands outstanding. What they mean is its user's business.
#![allow(unsafe_code, reason = "libiscsi is a C library")]

use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::time::Instant;

use atoll_libiscsi_sys as sys;

use crate::initiator::{Durability, Failure, Initiator, LUN, SECTOR, data_len, outcome};
use crate::process::PATIENCE;

/// How long one wait for the socket lasts before libiscsi looks at its own time limits.
const WAIT_MS: i32 = 1000;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Read {
        lba: u64,
        sectors: u32,
    },
    Write {
        lba: u64,
        durability: Durability,
    },
    Unmap {
        lba: u64,
        sectors: u32,
    },
    /// SYNCHRONIZE CACHE of the whole LUN.
    Flush,
}

/// Names an outstanding command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u64);

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub tag: Tag,
    /// What a read brought.
    pub result: Brought,
    /// What a write was given.
    pub written: Vec<u8>,
}

/// A session with commands outstanding.
pub struct Pipeline {
    /// Declared first: its end calls back for all that is outstanding.
    session: Initiator,
    /// Data of writes, which libiscsi reads until they have ended, by tag.
    writes: HashMap<u64, Box<[u8]>>,
    outstanding: usize,
    last_tag: u64,
    ended: Box<Callbacks>,
}

/// What libiscsi has called back for, and how it ended; `None` for the end of the session.
#[derive(Default)]
struct Callbacks(VecDeque<(u64, Option<Brought>)>);

/// What a read brought; nothing of other commands.
type Brought = Result<Vec<u8>, Failure>;

/// What is handed through libiscsi, owned by the callback.
struct Private {
    tag: u64,
    ended: NonNull<Callbacks>,
}

unsafe extern "C" fn called_back(
    _context: *mut sys::iscsi_context,
    _status: i32,
    task: *mut c_void,
    private: *mut c_void,
) {
    // SAFETY: made by `submit`, given back once; `ended` lives as long as the context that calls, on the same thread,
    // and nobody borrows it while libiscsi runs. The task is complete and ours to free.
    unsafe {
        let private = Box::from_raw(private.cast::<Private>());
        let task = task.cast::<sys::scsi_task>();
        let result = task.as_ref().and_then(|task| outcome(task, <[u8]>::to_vec));
        if !task.is_null() {
            sys::scsi_free_scsi_task(task);
        }
        let mut ended = private.ended;
        ended.as_mut().0.push_back((private.tag, result));
    }
}

impl Pipeline {
    pub fn new(session: Initiator) -> Self {
        Pipeline {
            session,
            writes: HashMap::new(),
            outstanding: 0,
            last_tag: 0,
            ended: Box::default(),
        }
    }

    /// Commands that have not ended.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Begins a command; `data` is what a write writes, whole sectors, else empty.
    ///
    /// # Errors
    /// When the session takes none any more.
    pub fn submit(&mut self, request: Request, data: Vec<u8>) -> Result<Tag, Failure> {
        self.last_tag += 1;
        let tag = self.last_tag;
        let private = Box::new(Private {
            tag,
            ended: NonNull::from(&mut *self.ended),
        });
        let private = Box::into_raw(private).cast::<c_void>();
        let (context, callback) = (self.session.context.as_ptr(), Some(called_back as _));
        let (sector, mut data) = (SECTOR as i32, data.into_boxed_slice());
        let (bytes, length) = (data.as_mut_ptr(), data_len(data.len()));
        // SAFETY: the context is live and ours; `private` is given back by the one callback; the data of a write is
        // kept in `writes` until that; the list of an unmap is copied by the call.
        let task = unsafe {
            match request {
                Request::Read { lba, sectors } => {
                    let length = sectors * SECTOR as u32;
                    sys::iscsi_read16_task(
                        context, LUN, lba, length, sector, 0, 0, 0, 0, 0, callback, private,
                    )
                }
                Request::Write { lba, durability } => {
                    let fua = i32::from(durability == Durability::Now);
                    sys::iscsi_write16_task(
                        context, LUN, lba, bytes, length, sector, 0, 0, fua, 0, 0, callback,
                        private,
                    )
                }
                Request::Unmap { lba, sectors } => {
                    let mut list = sys::unmap_list { lba, num: sectors };
                    sys::iscsi_unmap_task(context, LUN, 0, 0, &raw mut list, 1, callback, private)
                }
                Request::Flush => {
                    sys::iscsi_synchronizecache16_task(context, LUN, 0, 0, 0, 0, callback, private)
                }
            }
        };
        if task.is_null() {
            // SAFETY: a call that fails keeps nothing and does not call back.
            drop(unsafe { Box::from_raw(private.cast::<Private>()) });
            return Err(self.session.connection_failure());
        }
        if !data.is_empty() {
            self.writes.insert(tag, data);
        }
        self.outstanding += 1;
        Ok(Tag(tag))
    }

    /// The next command to end, in whatever order they do.
    ///
    /// # Errors
    /// When the session has ended, and with it all that is outstanding. Panics if nothing is, or nothing ends for long.
    pub fn wait(&mut self) -> Result<Ended, Failure> {
        assert!(self.outstanding > 0, "nothing is outstanding");
        let begun = Instant::now();
        loop {
            if let Some((tag, result)) = self.ended.0.pop_front() {
                self.outstanding -= 1;
                let written = self.writes.remove(&tag).unwrap_or_default().into_vec();
                return Ok(Ended {
                    tag: Tag(tag),
                    result: result.ok_or_else(|| self.session.connection_failure())?,
                    written,
                });
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "none of {} commands has ended within {PATIENCE:?}",
                self.outstanding
            );
            self.serve()?;
        }
    }

    /// Lets libiscsi send and receive.
    fn serve(&mut self) -> Result<(), Failure> {
        let context = self.session.context.as_ptr();
        // SAFETY: the context is live and ours.
        let (fd, events) =
            unsafe { (sys::iscsi_get_fd(context), sys::iscsi_which_events(context)) };
        let mut poll = libc::pollfd {
            fd,
            events: i16::try_from(events).expect("poll's events"),
            revents: 0,
        };
        // SAFETY: one entry, ours.
        let ready = unsafe { libc::poll(&raw mut poll, 1, WAIT_MS) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "poll: {error}");
            return Ok(());
        }
        // SAFETY: the context is live and ours.
        let served = unsafe { sys::iscsi_service(context, i32::from(poll.revents)) };
        match served {
            0 => Ok(()),
            _ => Err(self.session.connection_failure()),
        }
    }

    /// Ends the session in order; nothing may be outstanding.
    pub fn logout(self) {
        assert_eq!(self.outstanding, 0);
        // The fields are taken apart so that the session ends while its callbacks have their place.
        let Pipeline { session, ended, .. } = self;
        session.logout();
        drop(ended);
    }
}
