//! Verbs on the tree of snapshots and clones, and on the garbage collector, as `clap` sees them.

use clap::{Args, Subcommand};

use crate::api::VolumeKind;
use crate::name::ResourceName;
use crate::units::ByteSize;

#[derive(Args, Debug)]
pub struct VolumeList {
    /// Only volumes, or only snapshots
    #[arg(long)]
    pub kind: Option<VolumeKind>,
}

#[derive(Args, Debug)]
pub struct VolumeSnapshot {
    /// The volume
    #[arg(value_name = "VOL")]
    pub volume: ResourceName,
    /// The snapshot's name
    #[arg(value_name = "SNAP")]
    pub snapshot: ResourceName,
    /// Succeed if there is a snapshot of that name which the volume comes from
    #[arg(long)]
    pub if_not_exists: bool,
}

#[derive(Args, Debug)]
pub struct VolumeClone {
    /// The snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: ResourceName,
    /// The new volume's name
    #[arg(value_name = "VOL")]
    pub volume: ResourceName,
    /// Another size than the snapshot's: what is gained reads as zeros, what is cut off is not there
    #[arg(long)]
    pub size: Option<ByteSize>,
    /// Succeed if there is a volume of that name which comes from the snapshot, with the size if one is given
    #[arg(long)]
    pub if_not_exists: bool,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Take snapshots of several volumes at one instant
    #[command(after_help = "\
The snapshot of the volume VOL is named VOL-SNAP: `atoll snapshot group mon db log` makes db-mon and
log-mon. Each has every write that was answered before the verb was asked for, and for writes in
between: if one is in its snapshot, so is, in all of them, every write that had been answered before
that one was sent. All are made or none: if one of the names is taken, nothing is. At most 256.

Example:
  atoll snapshot group mon db log")]
    Group(SnapshotGroup),
}

#[derive(Args, Debug)]
pub struct SnapshotGroup {
    /// What follows the volumes' names, and a hyphen, in the names of the snapshots
    #[arg(value_name = "SNAP")]
    pub name: ResourceName,
    /// The volumes
    #[arg(value_name = "VOL", required = true)]
    pub volumes: Vec<ResourceName>,
    /// Succeed if all of these snapshots are there, and the volumes come from them
    #[arg(long)]
    pub if_not_exists: bool,
}

#[derive(Debug, Subcommand)]
pub enum GcVerb {
    /// Show what the garbage collector has to do, and has done since the daemon's start
    #[command(after_help = "\
It works by itself, as fast as `[gc] max_iops` of the configuration allows: objects of deleted
volumes and snapshots, maps that only one other map inherits from, and what a crash left.

Example:
  atoll gc status")]
    Status,
    /// Let the garbage collector begin at once, the search for what a crash left too
    #[command(after_help = "\
Without --wait it answers when it has begun. While it runs already, nothing changes. Interrupting
the verb does not stop it.

Examples:
  atoll gc run
  atoll gc run --wait")]
    Run {
        /// Answer when nothing is left to do
        #[arg(long)]
        wait: bool,
    },
}
