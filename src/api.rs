//! What the admin API says: requests and answers as JSON, and the limits on them. Types only;
//! the routes are in `admin`, the meaning is behind `Control`.
//!
//! Requests refuse unknown fields. Answers may gain fields; none changes its meaning.

mod snapshots;
mod transfer;

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::{ByteSize, UnixSeconds};

pub use snapshots::*;
pub use transfer::*;

/// Smallest volume.
pub const MIN_VOLUME_SIZE: ByteSize = ByteSize::mib(1);
/// Largest volume.
pub const MAX_VOLUME_SIZE: ByteSize = ByteSize::pib(1);
/// Volume sizes are multiples of this.
pub const VOLUME_SIZE_UNIT: ByteSize = ByteSize::kib(4);
/// Smallest object of a pool.
pub const MIN_OBJECT_SIZE: ByteSize = ByteSize::kib(64);
/// Largest object of a pool.
pub const MAX_OBJECT_SIZE: ByteSize = ByteSize::mib(16);
/// Size of a pool's objects unless asked otherwise.
pub const DEFAULT_OBJECT_SIZE: ByteSize = ByteSize::mib(4);
/// Name of the pool that exists from the first start, in the data directory.
pub const DEFAULT_POOL: &str = "main";

/// Logical block size of a volume, in bytes: what one LBA counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    #[default]
    B512,
    B4096,
}

impl TryFrom<u32> for BlockSize {
    type Error = Error;

    fn try_from(bytes: u32) -> Result<Self> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            other => Err(Error::invalid(format!(
                "a block size is 512 or 4096 bytes, not {other}"
            ))),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        match size {
            BlockSize::B512 => 512,
            BlockSize::B4096 => 4096,
        }
    }
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// Writable.
    Volume,
    /// What a volume was at an instant; never changes.
    Snapshot,
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    Ok,
    /// A sync failed or damage was found: nothing more is acknowledged until it is checked.
    Faulted,
}

/// A volume or a snapshot as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    pub name: ResourceName,
    /// Stays when the volume is renamed.
    pub id: Uuid,
    pub kind: VolumeKind,
    /// What initiators see, in bytes.
    pub size: ByteSize,
    #[schema(value_type = u32, example = 512)]
    pub block_size: BlockSize,
    pub pool: ResourceName,
    /// The nearest snapshot that it comes from: of which it was cloned, or which was taken of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ResourceName>,
    /// It can be neither deleted nor rolled back.
    #[serde(default)]
    pub protected: bool,
    /// Bytes of the objects that its own map and those that it inherits from name, the latter also
    /// where it has newer ones itself. Only where one volume is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<ByteSize>,
    pub state: VolumeState,
    /// Why the state is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// When it was created, in seconds since 1970 (UTC).
    pub created: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    pub name: ResourceName,
    /// In bytes: 1 MiB to 1 PiB, a multiple of 4 KiB.
    pub size: ByteSize,
    /// The pool `main` unless given.
    #[serde(default = "default_pool")]
    #[schema(value_type = String)]
    pub pool: ResourceName,
    #[serde(default)]
    #[schema(value_type = u32, example = 512)]
    pub block_size: BlockSize,
    /// A volume of that name with the same size, pool and block size is an answer, no error.
    #[serde(default)]
    pub if_not_exists: bool,
}

/// The pool that volumes go to unless another one is named.
pub fn default_pool() -> ResourceName {
    DEFAULT_POOL
        .parse()
        .unwrap_or_else(|_| unreachable!("the default pool's name obeys the rule"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// In bytes: 1 MiB to 1 PiB, a multiple of 4 KiB. What a smaller size cuts off is lost.
    pub size: ByteSize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameVolume {
    pub to: ResourceName,
}

/// Refuses what no volume can be.
pub fn check_volume_size(size: ByteSize) -> Result<()> {
    let rule = format!("a volume has {MIN_VOLUME_SIZE} to {MAX_VOLUME_SIZE}");
    if size < MIN_VOLUME_SIZE || size > MAX_VOLUME_SIZE {
        // Rounded it may read like the limit itself.
        let shown = match [MIN_VOLUME_SIZE, MAX_VOLUME_SIZE].map(|limit| limit.to_string()) {
            limits if limits.contains(&size.to_string()) => format!("{} bytes", size.get()),
            _ => size.to_string(),
        };
        return Err(Error::invalid(format!("{rule}, not {shown}")));
    }
    let unit = VOLUME_SIZE_UNIT.get();
    let rest = size.get() % unit;
    if rest != 0 {
        let above = size.get() - rest + unit;
        return Err(
            Error::invalid(format!("{} bytes is no multiple of 4 KiB", size.get()))
                .hint(format!("the next one is {above}")),
        );
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PoolType {
    /// One file per object in a directory of any file system.
    File,
    /// Memory of the daemon; gone when it stops.
    Memory,
    /// Takes every write and keeps nothing; for measuring.
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolState {
    Ok,
    /// Its store does not answer; volumes on it answer with errors.
    Faulted,
}

/// A pool as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    pub name: ResourceName,
    pub id: Uuid,
    #[serde(rename = "type")]
    pub pool_type: PoolType,
    /// Directory of a `file` pool, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub object_size: ByteSize,
    /// Bytes that the store can hold in all (of a `file` pool: its whole file system); absent where it
    /// has no bound, or does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ByteSize>,
    /// Bytes of these that are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<ByteSize>,
    /// Volumes and snapshots that live in it.
    pub volumes: u64,
    /// How much it stores. Only where one pool is shown, and its store answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<PoolUsage>,
    pub state: PoolState,
    /// Why the state is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// When it was added, in seconds since 1970 (UTC).
    pub created: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPool {
    pub name: ResourceName,
    #[serde(rename = "type")]
    pub pool_type: PoolType,
    /// Directory of a `file` pool, absolute; no other type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In bytes: 64 KiB to 16 MiB, a power of two.
    #[serde(default = "default_object_size")]
    pub object_size: ByteSize,
    /// A pool of that name with the same type, path and object size is an answer, no error.
    #[serde(default)]
    pub if_not_exists: bool,
}

const fn default_object_size() -> ByteSize {
    DEFAULT_OBJECT_SIZE
}

impl AddPool {
    /// Refuses what no pool can be.
    pub fn check(&self) -> Result<()> {
        let size = self.object_size;
        let legal =
            MIN_OBJECT_SIZE <= size && size <= MAX_OBJECT_SIZE && size.get().is_power_of_two();
        if !legal {
            return Err(Error::invalid(format!(
                "an object has {MIN_OBJECT_SIZE} to {MAX_OBJECT_SIZE}, a power of two, not {size} ({} bytes)",
                size.get()
            )));
        }
        match (self.pool_type, self.path.as_deref()) {
            (PoolType::File, None) => Err(Error::invalid("a file pool needs a directory")
                .hint("name an absolute path; `atoll pool add` takes it from --path")),
            (PoolType::File, Some(path)) if !path.starts_with('/') => Err(Error::invalid(format!(
                "the pool's directory {path:?} is not an absolute path"
            ))),
            (PoolType::Memory | PoolType::Null, Some(_)) => {
                Err(Error::invalid("only a file pool has a directory").hint("leave the path out"))
            }
            _ => Ok(()),
        }
    }
}

/// How an export is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Iscsi,
}

/// An export as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// The name of the volume or snapshot; each has at most one export.
    pub name: ResourceName,
    /// What is exported. A snapshot always is read-only.
    #[serde(default = "volume_kind")]
    pub kind: VolumeKind,
    /// iSCSI name of the target.
    pub target: String,
    pub lun: u16,
    pub read_only: bool,
    pub protocols: Vec<Protocol>,
    /// `HOST:PORT` where initiators reach it.
    pub portals: Vec<String>,
    /// Sessions logged in now.
    pub sessions: u64,
    /// Why it cannot be reached now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

fn volume_kind() -> VolumeKind {
    VolumeKind::Volume
}

impl Export {
    /// What libiscsi and QEMU take to attach it, one for each portal.
    pub fn urls(&self) -> impl Iterator<Item = String> + '_ {
        self.portals
            .iter()
            .map(|portal| format!("iscsi://{portal}/{}/{}", self.target, self.lun))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddExport {
    /// The name of a volume or snapshot.
    pub name: ResourceName,
    /// All that the daemon serves unless given; not empty.
    #[serde(default = "default_protocols")]
    pub protocols: Vec<Protocol>,
    /// An export of a snapshot is read-only in any case.
    #[serde(default)]
    pub read_only: bool,
}

fn default_protocols() -> Vec<Protocol> {
    vec![Protocol::Iscsi]
}

impl AddExport {
    /// Refuses what no export can be.
    pub fn check(&self) -> Result<()> {
        if self.protocols.is_empty() {
            return Err(Error::invalid("an export needs at least one protocol").hint("\"iscsi\""));
        }
        Ok(())
    }
}

/// What became of a request to take something away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    pub name: ResourceName,
    /// What it was: of a volume or snapshot that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<VolumeKind>,
    /// False where there was nothing of that name, and that was allowed.
    pub removed: bool,
}

/// The daemon as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    /// The data directory, absolute.
    pub data: String,
    pub cores: Vec<CoreStatus>,
    pub listeners: Vec<Listener>,
    pub pools: u64,
    pub volumes: u64,
    #[serde(default)]
    pub snapshots: u64,
    pub exports: u64,
    pub sessions: u64,
    pub metadata: MetadataStatus,
}

/// One reactor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CoreStatus {
    /// Number of the reactor, from 0.
    pub id: u32,
    /// The CPU it is pinned to.
    pub cpu: u32,
    /// `adaptive`, `always` or `never`.
    pub poll: String,
    /// Part of the time since the daemon's start that was spent on work, 0 to 1.
    pub busy_share: f64,
    /// Bytes of its I/O buffers.
    pub buffers: ByteSize,
    /// Sessions that it serves now.
    pub sessions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    pub protocol: Protocol,
    /// Where the daemon listens, `HOST:PORT`.
    pub address: String,
    /// What discovery answers instead, if configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataStatus {
    /// Kind of store, such as `rocksdb`.
    pub store: String,
    pub path: String,
    /// Bytes on disk.
    pub used: ByteSize,
    /// Bytes free on the file system below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<ByteSize>,
    /// Most bytes of map pages and bitmaps in memory, over all cores.
    pub page_memory: ByteSize,
    /// Why it does not take changes any more, or no growing ones, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Counters since the daemon's start. They only grow; a difference of two answers is a rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    pub uptime_seconds: u64,
    pub cores: Vec<CoreStats>,
    /// In order of their names; those that were used since the start.
    pub volumes: Vec<VolumeStats>,
    /// In order of their names; those that are served.
    pub exports: Vec<ExportStats>,
}

/// What a reactor did, and where its time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreStats {
    /// Number of the reactor, from 0.
    pub id: u32,
    /// Rounds of its loop.
    pub turns: u64,
    /// Times that a task was run.
    pub tasks: u64,
    /// Operations handed to the kernel, and those that came back.
    pub submissions: u64,
    pub completions: u64,
    /// System calls that it took.
    pub enters: u64,
    /// Nanoseconds in turns that found work, in those that found none, and asleep.
    pub busy_ns: u64,
    pub polling_ns: u64,
    pub asleep_ns: u64,
}

/// What was done to a volume, through whichever export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeStats {
    pub name: ResourceName,
    #[serde(flatten)]
    pub io: IoStats,
}

/// Operations that were asked for, and bytes of those that ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IoStats {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub flushes: u64,
    /// Unmaps and writes of zeros.
    pub unmaps: u64,
    pub unmap_bytes: u64,
    /// Operations that ended with an error of the daemon or of a store.
    pub errors: u64,
}

/// What initiators asked of an export, since it was added or since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportStats {
    pub name: ResourceName,
    #[serde(flatten)]
    pub commands: CommandStats,
}

/// Commands that were answered, their bytes, and sums of the times from arrival to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandStats {
    pub reads: u64,
    pub read_bytes: u64,
    /// Nanoseconds, of all reads together.
    pub read_ns: u64,
    pub writes: u64,
    pub write_bytes: u64,
    /// Nanoseconds, of all writes together.
    pub write_ns: u64,
    /// Commands of other kinds.
    pub others: u64,
    /// Commands of all kinds that did not end well.
    pub errors: u64,
    /// Commands that were ended by their initiator, or with their session.
    pub aborted: u64,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Expected after a crash, mended by the daemon itself: leaked objects, for one.
    Note,
    /// Something no crash explains, and no data is at stake.
    Warning,
    /// Data or metadata is damaged.
    Error,
}

/// One thing that `fsck` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    pub severity: Severity,
    /// Stable identifier of the check, such as `object_missing`.
    pub kind: String,
    /// What it is about: a pool, a volume, a key, an object.
    #[serde(rename = "where")]
    pub place: String,
    pub text: String,
}

/// Findings of one kind that there was no room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Omitted {
    pub severity: Severity,
    pub kind: String,
    pub count: u64,
}

/// What `fsck` looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FsckReport {
    pub pools: u64,
    pub volumes: u64,
    pub nodes: u64,
    /// Pages of maps, as far as they are kept one by one.
    pub pages: u64,
    /// Objects that the pools hold.
    pub objects: u64,
    /// Objects whose data was read: all that a map names, in a deep check.
    pub read: u64,
    /// The first of each kind.
    pub findings: Vec<Finding>,
    /// How many more there are of each kind.
    pub omitted: Vec<Omitted>,
    /// Volumes that were faulted, and are not any more.
    pub cleared: Vec<String>,
}

/// Kind of the finding that a pool could not be looked at.
pub const POOL_UNOPENED: &str = "pool_unopened";

impl FsckReport {
    /// Findings of this severity, the omitted ones too.
    pub fn count(&self, severity: Severity) -> u64 {
        let found = self
            .findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count();
        let omitted = self.omitted.iter();
        let omitted = omitted.filter(|omitted| omitted.severity == severity);
        found as u64 + omitted.map(|omitted| omitted.count).sum::<u64>()
    }

    /// No error was found. Notes and warnings do not count.
    pub fn is_clean(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    /// No error was found in what was looked at, and a pool could not be.
    pub fn is_incomplete(&self) -> bool {
        let unopened = self.findings.iter().filter(|f| f.kind == POOL_UNOPENED);
        let unopened = unopened.count() as u64;
        unopened > 0 && self.count(Severity::Error) == unopened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_sizes_are_bounded_and_aligned() {
        for ok in [
            MIN_VOLUME_SIZE,
            ByteSize::bytes((1 << 20) + 4096),
            MAX_VOLUME_SIZE,
        ] {
            check_volume_size(ok).unwrap();
        }
        for (bytes, part) in [
            (0, "1 MiB to 1 PiB"),
            ((1 << 20) - 4096, "1 MiB to 1 PiB"),
            (
                (1 << 50) + 4096,
                "1 MiB to 1 PiB, not 1125899906846720 bytes",
            ),
            (u64::MAX, "1 MiB to 1 PiB"),
            ((1 << 20) + 512, "multiple of 4 KiB"),
        ] {
            let why = check_volume_size(ByteSize::bytes(bytes)).unwrap_err();
            assert!(why.message.contains(part), "{bytes}: {why}");
        }
        let why = check_volume_size(ByteSize::bytes(10_000_000)).unwrap_err();
        assert_eq!(why.hint.as_deref(), Some("the next one is 10002432"));
    }

    #[test]
    fn a_request_with_an_unknown_field_is_refused_by_name() {
        let text = r#"{"name":"a","size":1048576,"sise":1}"#;
        let why = serde_json::from_str::<CreateVolume>(text)
            .unwrap_err()
            .to_string();
        assert!(why.contains("unknown field `sise`"), "{why}");
    }

    #[test]
    fn requests_have_the_documented_defaults() {
        let create: CreateVolume = serde_json::from_str(r#"{"name":"a","size":1048576}"#).unwrap();
        assert_eq!(
            (create.pool.as_str(), create.block_size),
            ("main", BlockSize::B512)
        );
        let add: AddPool = serde_json::from_str(r#"{"name":"a","type":"null"}"#).unwrap();
        assert_eq!((add.object_size, add.path), (ByteSize::mib(4), None));
        let export: AddExport = serde_json::from_str(r#"{"name":"a"}"#).unwrap();
        assert_eq!(export.protocols, [Protocol::Iscsi]);
    }

    #[test]
    fn a_pool_has_a_directory_if_and_only_if_it_is_a_file_pool() {
        let pool = |pool_type, path: Option<&str>| AddPool {
            name: default_pool(),
            pool_type,
            path: path.map(str::to_owned),
            object_size: DEFAULT_OBJECT_SIZE,
            if_not_exists: false,
        };
        pool(PoolType::File, Some("/p")).check().unwrap();
        pool(PoolType::Null, None).check().unwrap();
        for wrong in [
            pool(PoolType::File, None),
            pool(PoolType::File, Some("relative")),
            pool(PoolType::Memory, Some("/p")),
            pool(PoolType::Null, Some("/p")),
        ] {
            wrong.check().unwrap_err();
        }
        for bytes in [0, 1 << 15, 3 << 20, 1 << 25] {
            let mut wrong = pool(PoolType::Null, None);
            wrong.object_size = ByteSize::bytes(bytes);
            assert!(
                wrong.check().unwrap_err().message.contains("power of two"),
                "{bytes}"
            );
        }
    }
}
