//! The verbs that move content, as `clap` sees them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::api::BlockSize;
use crate::cli::args::parse_block_size;
use crate::name::ResourceName;
use crate::units::ByteSize;

pub const DIFF_HELP: &str = "\
Both are snapshots or volumes of one tree: of the same volume, its clones, or the snapshots of these.
A range is listed if its content may differ; what both share is never listed. `zeros` says that the
later one reads as zeros there. Of a volume that is written to meanwhile, what is listed may be
overtaken: take a snapshot.

--json prints an array with one range per line, offset and length in bytes. --binary prints the
compact list of src/transfer/FORMAT.md.

Examples:
  atoll diff vm1-mon vm1-tue
  atoll diff vm1-mon vm1-tue --json
  atoll diff vm1-mon vm1-tue --binary";

pub const EXPORT_HELP: &str = "\
Writes a stream that `atoll volume import-file` takes: only what is stored, every record with its
checksum, all of it with SHA-256 (src/transfer/FORMAT.md). With --from only what changed since that
snapshot. `-` is stdout. A file that exists is never overwritten.

A snapshot is exported as it is. Of a volume a temporary snapshot is taken, exported, and deleted
again, also after an error or Ctrl-C; only after a kill -9, or without the daemon, it is left behind,
as NAME.export-...: --resume goes on with it and then deletes it, or delete it yourself.

--resume goes on with FILE where an export of the same snapshot was interrupted, after checking all
that is there. --raw writes a plain image instead, with holes where nothing is stored; it is named
FILE.partial until it is whole, and cannot be resumed.

Examples:
  atoll volume export-file vm1-mon vm1-mon.atoll
  atoll volume export-file vm1-tue vm1-tue.atoll --from vm1-mon
  atoll volume export-file vm1-mon vm1-mon.atoll --resume
  atoll volume export-file vm1 vm1.img --raw
  atoll volume export-file vm1 -";

pub const IMPORT_HELP: &str = "\
A whole export, or an image, makes the volume NAME. An incremental export is applied to the volume
NAME, which must be as the snapshot was that it builds on: import the whole export first, then each
difference in order. What was imported is kept as a snapshot, NAME.SOURCE unless --snapshot names it
otherwise: by it the next difference finds its base. It may be deleted once that is imported.

Images: raw; and qcow2, vmdk, vhdx, vdi and vhd by means of qemu-img (Debian: package qemu-utils),
through a temporary raw image in $TMPDIR. Images that refer to other files are refused. What a file
is is seen by its first bytes unless --format says it: say raw for images that others could write.
`-` is stdin, for exports and raw images; without --size the volume grows as a raw image comes.

Blocks of zeros are not written. Until everything has come the volume is incomplete: it cannot be
exported. An import that was interrupted goes on with --resume and the same file, or delete the volume.

Examples:
  atoll volume import-file vm1-copy vm1-mon.atoll
  atoll volume import-file vm1-copy vm1-tue.atoll
  atoll volume import-file vm1-copy vm1-tue.atoll --resume
  atoll volume import-file vm2 debian.qcow2 --size 20G --pool main
  atoll volume import-file vm3 - --format raw --size 10G";

#[derive(Args, Debug)]
pub struct Diff {
    /// The earlier one
    #[arg(value_name = "SNAP1")]
    pub from: ResourceName,
    /// The later one
    #[arg(value_name = "SNAP2")]
    pub to: ResourceName,
    /// The compact list, in bytes
    #[arg(long, conflicts_with = "json")]
    pub binary: bool,
}

#[derive(Args, Debug)]
pub struct ExportFile {
    /// The volume or snapshot
    pub name: ResourceName,
    /// Where to; `-` is stdout
    pub file: PathBuf,
    /// Only what changed since this snapshot
    #[arg(long, value_name = "SNAP")]
    pub from: Option<ResourceName>,
    /// A plain image with holes instead of a stream
    #[arg(long, conflicts_with_all = ["from", "resume"])]
    pub raw: bool,
    /// Go on with FILE
    #[arg(long)]
    pub resume: bool,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An export of Atoll
    Atoll,
    Raw,
    Qcow2,
    Vmdk,
    Vhdx,
    Vdi,
    Vhd,
}

#[derive(Args, Debug)]
pub struct ImportFile {
    /// The volume
    pub name: ResourceName,
    /// Where from; `-` is stdin
    pub file: PathBuf,
    /// What the file is [default: what its first bytes say]
    #[arg(long)]
    pub format: Option<Format>,
    /// Size of the volume, of images only [default: the image's]
    #[arg(long)]
    pub size: Option<ByteSize>,
    /// The pool to keep a new volume in [default: main]
    #[arg(long)]
    pub pool: Option<ResourceName>,
    /// Logical block size, of images only: 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = parse_block_size)]
    pub block_size: Option<BlockSize>,
    /// Name of the snapshot that keeps what was imported, of exports only [default: NAME.SOURCE]
    #[arg(long, value_name = "SNAP")]
    pub snapshot: Option<ResourceName>,
    /// Go on with an import that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// Apply a difference whatever the volume's content is
    #[arg(long)]
    pub force: bool,
}
