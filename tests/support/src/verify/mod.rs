//! Writers that remember what was acknowledged and what was flushed, and the check of what a crash left; sessions that
//! share a volume, and the check of what each of them reads.

mod image;
mod oracle;
mod sharers;
mod stamp;
mod tree;
mod versions;
mod writers;

pub use image::{Cut, Image};
pub use oracle::{Flush, Oracle, Reading, Ticket, Wrong};
pub use sharers::Sharers;
pub use stamp::Tag;
pub use tree::{Fork, look, verify_image, verify_one_of};
pub use writers::{Load, Writers, verify, verify_torn};

/// Number of a 512-byte sector of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Sectors of a block, the unit of validity of a volume.
pub const BLOCK_SECTORS: u64 = 8;
