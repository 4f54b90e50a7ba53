//! The command line as `clap` sees it: verbs, options, help. What the verbs do is beside this.

mod snapshots;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::api::{BlockSize, DEFAULT_POOL, PoolType};
use crate::config::{ADMIN_SOCKET, Advertise, DEFAULT_DATA};
use crate::error::EXIT_CODES;
use crate::name::ResourceName;
use crate::units::ByteSize;

use super::transfer::args as transfer;

pub use snapshots::*;

/// Poll-mode storage appliance: thin volumes over iSCSI.
///
/// `atoll serve` is the daemon. Every other verb asks it over its admin socket, except `fsck`,
/// which reads the data directory of a stopped one.
#[derive(Debug, Parser)]
#[command(name = "atoll", version, after_help = EXIT_CODES, arg_required_else_help = true, infer_subcommands = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Heading of the options that every verb takes.
const GLOBAL: &str = "Options of every verb";

#[derive(Args, Debug)]
pub struct Global {
    /// Admin socket of the daemon [default: admin.sock in the data directory]
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "SOCKET",
        env = "ATOLL_ADMIN",
        hide_env_values = true
    )]
    pub admin: Option<PathBuf>,
    /// Data directory of the daemon [default: ./data]
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "DIR",
        env = "ATOLL_DATA",
        hide_env_values = true
    )]
    pub data: Option<PathBuf>,
    /// Answer in JSON, errors too (those on stderr), but those of usage
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
}

impl Global {
    /// Where the daemon is to be found.
    pub fn admin_socket(&self) -> PathBuf {
        let data = || self.data.clone().unwrap_or_else(|| DEFAULT_DATA.into());
        self.admin
            .clone()
            .unwrap_or_else(|| data().join(ADMIN_SOCKET))
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon
    #[command(after_help = "\
Prints `ready iscsi=ADDR:PORT admin=SOCKET` on stdout when initiators may come; logs to stderr.
SIGTERM or SIGINT stops it cleanly: sessions are asked to log out and everything is flushed. A
second one stops it at once; what was acknowledged as flushed is kept even then.

The options come before those of the file; atoll.example.toml documents every option of the file.

Examples:
  atoll serve
  atoll serve --config /etc/atoll.toml --data /var/lib/atoll --cores 0,1")]
    Serve(Serve),
    /// Create, change, snapshot, clone and delete volumes
    #[command(subcommand, arg_required_else_help = true)]
    Volume(VolumeVerb),
    /// Take snapshots of several volumes at one instant
    #[command(subcommand, arg_required_else_help = true)]
    Snapshot(SnapshotVerb),
    /// Make volumes and snapshots visible to initiators
    #[command(subcommand, arg_required_else_help = true)]
    Export(ExportVerb),
    /// Add and remove the pools that hold the volumes' objects
    #[command(subcommand, arg_required_else_help = true)]
    Pool(PoolVerb),
    /// Look at the garbage collector, or let it begin
    #[command(subcommand, arg_required_else_help = true)]
    Gc(GcVerb),
    /// Show what differs between two snapshots
    #[command(after_help = transfer::DIFF_HELP)]
    Diff(transfer::Diff),
    /// Show what the daemon is doing: cores, listeners, sessions, metadata
    #[command(after_help = "Example:\n  atoll status")]
    Status,
    /// Show the counters of cores, volumes and exports since the daemon's start
    #[command(
        after_help = "Counters only grow: the difference of two answers is a rate.\n\nExample:\n  atoll stats --json"
    )]
    Stats,
    /// Check the data directory of a stopped daemon
    #[command(after_help = "\
Reads metadata and pools with a reader of its own and mends nothing. Refused while a daemon runs
on the directory. Exits with 0 when it is clean (notes and warnings aside), with 1 when errors were
found, and with another code when it could not be checked: 7 when a pool could not be opened.
Whether every object can be read is looked at with --deep only: that takes as long as reading all
the data. What the data should be is not known here: blocks have no checksums of their own.

A volume whose flush failed is faulted: it answers no I/O, also after a restart. With --clear-faults
such volumes are served again from the next start on, if no error was found in any volume and the
pools could be made durable as they were read. What was not flushed before the failure may be lost.
Without a faulted volume it changes nothing.

Examples:
  atoll fsck
  atoll fsck --data /var/lib/atoll --json
  atoll fsck --deep --clear-faults")]
    Fsck(Fsck),
}

#[derive(Args, Debug)]
pub struct Serve {
    /// Configuration file (TOML) [default: none, all options at their defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// CPUs to run on, one reactor pinned to each [default: 0]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    pub cores: Option<Vec<u32>>,
    /// Where to serve iSCSI; port 0 takes any free one [default: 127.0.0.1:3260]
    #[arg(long, value_name = "ADDR:PORT")]
    pub iscsi: Option<SocketAddr>,
    /// Address that discovery answers instead of the one connected to
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Listen beyond loopback although nobody is asked who they are
    #[arg(long)]
    pub insecure_no_auth: bool,
}

#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Create a thin volume
    #[command(after_help = "\
Sizes are bytes, or whole numbers with K, M, G, T or P (powers of 1024): 1 MiB to 1 PiB, a multiple
of 4 KiB. Nothing is allocated before it is written.

Example:
  atoll volume create demo --size 10G")]
    Create(VolumeCreate),
    /// List the volumes and snapshots
    #[command(
        after_help = "Examples:\n  atoll volume list --json\n  atoll volume list --kind snapshot",
        visible_alias = "ls"
    )]
    List(VolumeList),
    /// Show one volume or snapshot
    #[command(after_help = "Example:\n  atoll volume show demo")]
    Show { name: ResourceName },
    /// Grow or shrink a volume
    #[command(after_help = "\
What is gained reads as zeros. What a smaller size cuts off is lost at once: growing again does not
bring it back. The present size again changes nothing.

Example:
  atoll volume resize demo 20G")]
    Resize {
        name: ResourceName,
        /// The new size: 20G, 512M, 1T, or bytes
        size: ByteSize,
    },
    /// Rename a volume or snapshot
    #[command(after_help = "\
It keeps its identity and its data, and the old name is free again. Refused while it is exported.
Not repeatable: once renamed, the old name is not found.

Example:
  atoll volume rename demo archive")]
    Rename {
        #[arg(value_name = "OLD")]
        from: ResourceName,
        #[arg(value_name = "NEW")]
        to: ResourceName,
    },
    /// Delete a volume or snapshot and all its data
    #[command(
        after_help = "\
Refused while it is exported, open or protected. The name is free at once; the space comes back in
the background. Whatever was cloned from it, or of which it was taken, keeps its data: volumes and
snapshots can be deleted in any order.

Example:
  atoll volume delete demo",
        visible_alias = "rm"
    )]
    Delete {
        name: ResourceName,
        /// Succeed if there is no such volume
        #[arg(long)]
        if_exists: bool,
    },
    /// Take a snapshot of a volume: a read-only resource that never changes
    #[command(after_help = "\
It has every write that was answered before it was asked for, and none that was sent after it was
answered. It takes no space and a moment, whatever the volume's size; writes go on. A snapshot is
listed, shown, renamed, deleted and exported like a volume; its exports are read-only.
Of several volumes at one instant: `atoll snapshot group`.

Example:
  atoll volume snapshot demo demo-mon")]
    Snapshot(VolumeSnapshot),
    /// Make a volume that begins as a snapshot is
    #[command(after_help = "\
It takes no space and a moment: what is not written to the clone is read from the snapshot, in whose
pool it lives.

Example:
  atoll volume clone demo-mon test")]
    Clone(VolumeClone),
    /// Make a volume what a snapshot of it was, its size too
    #[command(after_help = "\
What was written since is lost, if no other snapshot has it; younger snapshots stay. The snapshot
may be any of the volume's tree. Refused while the volume is protected, or a session is logged in
to it. Doing it again has the same end.

Example:
  atoll volume rollback demo demo-mon")]
    Rollback {
        #[arg(value_name = "VOL")]
        volume: ResourceName,
        #[arg(value_name = "SNAP")]
        snapshot: ResourceName,
    },
    /// Copy into a volume what it inherits, so that it depends on no snapshot
    #[command(after_help = "\
The volume can be used meanwhile. Shows how far it is; where it was interrupted, doing it again
goes on quickly to the place and from there. In the end it has nothing to do with its snapshots
any more: it is not rolled back to them, and no difference is told from them.

Example:
  atoll volume flatten test")]
    Flatten {
        #[arg(value_name = "VOL")]
        volume: ResourceName,
    },
    /// Show which volumes and snapshots come from which
    #[command(after_help = "\
A line inherits what it has not itself from the nearest line above in its own column, the first line
of a branch from the one that the branch leaves; an empty line parts trees. OWN is what it has
itself. A deleted snapshot from which others still inherit is shown as (deleted).

Examples:
  atoll volume tree
  atoll volume tree demo --json")]
    Tree { name: Option<ResourceName> },
    /// Keep a volume or snapshot from being deleted or rolled back
    #[command(after_help = "\
A second time changes nothing.

Example:
  atoll volume protect demo-mon")]
    Protect { name: ResourceName },
    /// Let a volume or snapshot be deleted and rolled back again
    #[command(after_help = "\
A second time changes nothing.

Example:
  atoll volume unprotect demo-mon")]
    Unprotect { name: ResourceName },
    /// Make a new volume with the data of another, or of a snapshot
    #[command(after_help = "\
The copy has the size, pool and block size of the source, and belongs to no tree. Whole objects are
shared and take no space until one side writes to them; the rest is read and written. Says how much
of which, what was never written counted as shared. Of a volume that is written meanwhile, parts are
copied at different times: copy a snapshot of it instead.
Where it fails or is interrupted, DST is there and has a part: delete it, and copy again.

Example:
  atoll volume copy demo-mon archive")]
    Copy {
        #[arg(value_name = "SRC")]
        source: ResourceName,
        #[arg(value_name = "DST")]
        target: ResourceName,
    },
    /// Write a volume's or snapshot's content to a file
    #[command(after_help = transfer::EXPORT_HELP)]
    ExportFile(transfer::ExportFile),
    /// Make a volume of a file, or apply a difference to one
    #[command(after_help = transfer::IMPORT_HELP)]
    ImportFile(transfer::ImportFile),
}

#[derive(Args, Debug)]
pub struct VolumeCreate {
    /// 1 to 200 characters of a-z, 0-9, '.', '_' and '-'
    pub name: ResourceName,
    /// 10G, 512M, 1T, or bytes
    #[arg(long)]
    pub size: ByteSize,
    /// The pool to keep it in
    #[arg(long, default_value = DEFAULT_POOL)]
    pub pool: ResourceName,
    /// Logical block size that initiators see: 512 or 4096
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = parse_block_size)]
    pub block_size: BlockSize,
    /// Succeed if the volume is there with the same size, pool and block size
    #[arg(long)]
    pub if_not_exists: bool,
}

pub(super) fn parse_block_size(text: &str) -> Result<BlockSize, String> {
    let bytes: u32 = text
        .parse()
        .map_err(|_| "a block size is 512 or 4096 bytes".to_owned())?;
    BlockSize::try_from(bytes).map_err(|e| e.message)
}

#[derive(Debug, Subcommand)]
pub enum ExportVerb {
    /// Export a volume or snapshot: target iqn.2026-11.io.atoll:NAME, LUN 0
    #[command(after_help = "\
The same export again changes nothing. Prints the URL that QEMU and libiscsi take. That of a snapshot
is read-only, asked for or not.

Example:
  atoll export add demo --read-only")]
    Add {
        /// Name of the volume or snapshot
        name: ResourceName,
        /// Over iSCSI [default: over all that the daemon serves, which is iSCSI]
        #[arg(long)]
        iscsi: bool,
        /// Refuse writes
        #[arg(long)]
        read_only: bool,
    },
    /// List the exports
    #[command(after_help = "Example:\n  atoll export list", visible_alias = "ls")]
    List,
    /// Stop exporting a volume; its sessions are ended
    #[command(
        after_help = "The volume and its data stay.\n\nExample:\n  atoll export remove demo",
        visible_alias = "rm"
    )]
    Remove {
        /// The volume's name
        name: ResourceName,
        /// Succeed if there is no such export
        #[arg(long)]
        if_exists: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum PoolVerb {
    /// Add a pool
    #[command(after_help = "\
file    one file per object in a directory of any file system; the directory is created where it
        is missing (not those above it), and refused where it holds anything else: other files,
        another pool, the pool of a running daemon
memory  up to 1 GiB of the daemon's memory; its data is gone when the daemon stops
null    takes every write and keeps nothing; for measuring

Example:
  atoll pool add fast --type file --path /mnt/nvme/atoll")]
    Add(PoolAdd),
    /// List the pools
    #[command(after_help = "Example:\n  atoll pool list", visible_alias = "ls")]
    List,
    /// Show one pool
    #[command(after_help = "Example:\n  atoll pool show main")]
    Show { name: ResourceName },
    /// Forget a pool without volumes
    #[command(
        after_help = "Refused while any volume is in it.\n\nExample:\n  atoll pool remove fast",
        visible_alias = "rm"
    )]
    Remove {
        name: ResourceName,
        /// Succeed if there is no such pool
        #[arg(long)]
        if_exists: bool,
    },
}

#[derive(Args, Debug)]
pub struct PoolAdd {
    /// 1 to 200 characters of a-z, 0-9, '.', '_' and '-'
    pub name: ResourceName,
    /// What keeps the objects
    #[arg(long = "type", value_name = "TYPE")]
    pub pool_type: PoolType,
    /// Directory of a file pool; a relative one is meant from here
    #[arg(long, value_name = "DIR", required_if_eq("pool_type", "file"))]
    pub path: Option<PathBuf>,
    /// Size of its objects: 64K to 16M, a power of two
    #[arg(long, value_name = "SIZE", default_value = "4M")]
    pub object_size: ByteSize,
    /// Succeed if the pool is there with the same type, directory and object size
    #[arg(long)]
    pub if_not_exists: bool,
}

#[derive(Args, Debug)]
pub struct Fsck {
    /// The daemon's configuration file (TOML), if it has one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read every object, too
    #[arg(long)]
    pub deep: bool,
    /// Let faulted volumes answer again, if no error is found
    #[arg(long, requires = "deep")]
    pub clear_faults: bool,
}
