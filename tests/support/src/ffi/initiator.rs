//! A small safe face over libiscsi's synchronous calls: one session with one LUN, one command at a time.
#![allow(unsafe_code, reason = "libiscsi is a C library")]

use std::ffi::{CStr, CString};
use std::fmt;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};
use std::slice;

use atoll_libiscsi_sys as sys;

/// Seconds after which libiscsi gives a command up.
const TIMEOUT_S: i32 = 60;
pub(crate) const LUN: i32 = 0;
/// Logins that may end in a unit attention, which libiscsi takes for a failure.
const MAX_LOGINS: u32 = 4;
/// Bytes of a block; all of this speaks of 512-byte LBAs.
pub const SECTOR: usize = 512;

/// Why a command was not acknowledged.
#[derive(Debug)]
pub enum Failure {
    /// The session is gone.
    Connection(String),
    /// The target answered with a status that is not GOOD.
    Status {
        status: i32,
        sense_key: u32,
        ascq: i32,
    },
}

impl Failure {
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Failure::Connection(_))
    }

    /// Something has happened that the initiator is told of instead of running its command (SAM-5 5.14).
    pub fn is_unit_attention(&self) -> bool {
        matches!(self, Failure::Status { sense_key: 6, .. })
    }

    /// DATA PROTECT, WRITE PROTECTED.
    pub fn is_write_protected(&self) -> bool {
        matches!(
            self,
            Failure::Status {
                sense_key: 7,
                ascq: 0x2700,
                ..
            }
        )
    }

    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub fn is_out_of_range(&self) -> bool {
        matches!(
            self,
            Failure::Status {
                sense_key: 5,
                ascq: 0x2100,
                ..
            }
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection(why) => write!(f, "the session ended: {why}"),
            Failure::Status {
                status,
                sense_key,
                ascq,
            } => {
                write!(
                    f,
                    "status {status:#x}, sense key {sense_key:#x}, ASC/ASCQ {ascq:#06x}"
                )
            }
        }
    }
}

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// With the next flush.
    Flush,
    /// When it is acknowledged (FUA).
    Now,
}

/// A logged-in session.
pub struct Initiator {
    pub(crate) context: NonNull<sys::iscsi_context>,
}

impl Initiator {
    /// Logs in under `name` (`iqn...`), and waits for the LUN to be ready.
    ///
    /// # Errors
    /// Whatever the target or the network says to that.
    pub fn login(portal: SocketAddr, target: &str, name: &str) -> Result<Self, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::login_once(portal, target, name) {
                // Told once per new nexus: nothing is wrong.
                Err(Failure::Connection(why))
                    if why.contains("UNIT_ATTENTION") && attempt < MAX_LOGINS => {}
                result => return result,
            }
        }
    }

    fn login_once(portal: SocketAddr, target: &str, name: &str) -> Result<Self, Failure> {
        let (name, target) = (c_string(name), c_string(target));
        let portal = c_string(&portal.to_string());
        // SAFETY: a NUL-terminated string that outlives the call, which copies it.
        let context = unsafe { sys::iscsi_create_context(name.as_ptr()) };
        let session = Initiator {
            context: NonNull::new(context).expect("libiscsi makes a context"),
        };
        let raw = session.context.as_ptr();
        // SAFETY: `raw` is a live context used by this thread alone, the strings outlive the calls, which copy them.
        let connected = unsafe {
            sys::iscsi_set_targetname(raw, target.as_ptr());
            sys::iscsi_set_session_type(raw, sys::iscsi_session_type_ISCSI_SESSION_NORMAL);
            sys::iscsi_set_timeout(raw, TIMEOUT_S);
            // A lost session must be an answer to the test, not a retry behind its back.
            sys::iscsi_set_noautoreconnect(raw, 1);
            sys::iscsi_full_connect_sync(raw, portal.as_ptr(), LUN)
        };
        if connected == 0 {
            Ok(session)
        } else {
            Err(session.connection_failure())
        }
    }

    /// Writes whole sectors from `lba` on.
    ///
    /// # Errors
    /// When it was not acknowledged; it may have been done all the same.
    pub fn write(
        &mut self,
        lba: u64,
        data: &mut [u8],
        durability: Durability,
    ) -> Result<(), Failure> {
        let fua = i32::from(durability == Durability::Now);
        let len = data_len(data.len());
        // SAFETY: the context is live and ours; `data` outlives the synchronous call.
        let task = unsafe {
            sys::iscsi_write16_sync(
                self.context.as_ptr(),
                LUN,
                lba,
                data.as_mut_ptr(),
                len,
                SECTOR as i32,
                0,
                0,
                fua,
                0,
                0,
            )
        };
        self.finish(task, |_| ())
    }

    /// Reads `sectors` sectors from `lba` on.
    ///
    /// # Errors
    /// When the target does not answer with all of them.
    pub fn read(&mut self, lba: u64, sectors: usize) -> Result<Vec<u8>, Failure> {
        let len = data_len(sectors * SECTOR);
        // SAFETY: the context is live and ours.
        let task = unsafe {
            sys::iscsi_read16_sync(
                self.context.as_ptr(),
                LUN,
                lba,
                len,
                SECTOR as i32,
                0,
                0,
                0,
                0,
                0,
            )
        };
        let data = self.finish(task, <[u8]>::to_vec)?;
        assert_eq!(
            data.len(),
            sectors * SECTOR,
            "a read with status GOOD that is short"
        );
        Ok(data)
    }

    /// SYNCHRONIZE CACHE of the whole LUN.
    ///
    /// # Errors
    /// When it was not acknowledged.
    pub fn flush(&mut self) -> Result<(), Failure> {
        // SAFETY: the context is live and ours.
        let task =
            unsafe { sys::iscsi_synchronizecache16_sync(self.context.as_ptr(), LUN, 0, 0, 0, 0) };
        self.finish(task, |_| ())
    }

    /// UNMAP of one range.
    ///
    /// # Errors
    /// When it was not acknowledged; it may have been done all the same.
    pub fn unmap(&mut self, lba: u64, sectors: usize) -> Result<(), Failure> {
        let mut list = sys::unmap_list {
            lba,
            num: data_len(sectors),
        };
        // SAFETY: the context is live and ours; `list` has the one entry that is said and outlives the call.
        let task =
            unsafe { sys::iscsi_unmap_sync(self.context.as_ptr(), LUN, 0, 0, &raw mut list, 1) };
        self.finish(task, |_| ())
    }

    /// Blocks of the LUN.
    ///
    /// # Errors
    /// When READ CAPACITY (16) fails.
    pub fn sectors(&mut self) -> Result<u64, Failure> {
        // SAFETY: the context is live and ours.
        let task = unsafe { sys::iscsi_readcapacity16_sync(self.context.as_ptr(), LUN) };
        // SBC-3 5.16.2: the last LBA, big-endian, in bytes 0-7.
        self.finish(task, |data| {
            u64::from_be_bytes(data[..8].try_into().expect("8 bytes")) + 1
        })
    }

    /// Ends the session in order.
    pub fn logout(self) {
        // SAFETY: the context is live and ours.
        unsafe { sys::iscsi_logout_sync(self.context.as_ptr()) };
    }

    fn finish<T>(
        &self,
        task: *mut sys::scsi_task,
        data: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        let Some(task) = NonNull::new(task) else {
            return Err(self.connection_failure());
        };
        // SAFETY: a task that a synchronous call returned is complete, ours alone, and live until freed below.
        let result = unsafe { outcome(task.as_ref(), data) };
        let result = result.unwrap_or_else(|| Err(self.connection_failure()));
        // SAFETY: allocated by libiscsi, freed once; nothing borrowed from it is left.
        unsafe { sys::scsi_free_scsi_task(task.as_ptr()) };
        result
    }

    pub(crate) fn connection_failure(&self) -> Failure {
        // SAFETY: the context is live; the string is its own and copied before anything else can change it.
        let why = unsafe {
            let text = sys::iscsi_get_error(self.context.as_ptr());
            if text.is_null() {
                "no reason given".into()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        };
        Failure::Connection(why)
    }
}

impl Drop for Initiator {
    fn drop(&mut self) {
        // SAFETY: live until here, and not used again.
        unsafe { sys::iscsi_destroy_context(self.context.as_ptr()) };
    }
}

/// How a task ended; `None` when the session did.
///
/// # Safety
/// It is complete.
pub(crate) unsafe fn outcome<T>(
    task: &sys::scsi_task,
    data: impl FnOnce(&[u8]) -> T,
) -> Option<Result<T, Failure>> {
    if task.status == sys::scsi_status_SCSI_STATUS_GOOD as i32 {
        // SAFETY: the caller's contract.
        Some(Ok(data(unsafe { data_in(&task.datain) })))
    } else if task.status >= sys::scsi_status_SCSI_STATUS_CANCELLED as i32 {
        None
    } else {
        Some(Err(Failure::Status {
            status: task.status,
            sense_key: task.sense.key,
            ascq: task.sense.ascq,
        }))
    }
}

/// What a completed task brought.
///
/// # Safety
/// `data` is of a completed task that outlives the slice.
unsafe fn data_in(data: &sys::scsi_data) -> &[u8] {
    match usize::try_from(data.size) {
        Ok(size) if size > 0 && !ptr::eq(data.data, ptr::null()) => {
            // SAFETY: libiscsi keeps `size` bytes there until the task is freed.
            unsafe { slice::from_raw_parts(data.data, size) }
        }
        _ => &[],
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL in names and addresses")
}

pub(crate) fn data_len(len: usize) -> u32 {
    u32::try_from(len).expect("commands of tests are small")
}
