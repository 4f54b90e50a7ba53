//! Writers that remember what was acknowledged and what was flushed, and the check of what a crash left.

mod oracle;
mod stamp;
mod writers;

pub use oracle::{Flush, Oracle, Ticket, Wrong};
pub use stamp::Tag;
pub use writers::{Load, Writers, verify, verify_torn};

/// Number of a 512-byte sector of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Sectors of a block, the unit of validity of a volume.
pub const BLOCK_SECTORS: u64 = 8;
