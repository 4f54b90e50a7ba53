//! The UNMAP parameter list (SBC-3 5.28.2): from bytes to the ranges to unmap, or the reason why not.
//! The whole list is checked before anything is unmapped.

use super::config::LuConfig;
use super::sense::Sense;
use super::units::{Blocks, ByteRange, Lba, be};

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;
/// UNMAP DATA LENGTH does not count itself.
const UNCOUNTED: usize = 2;

/// The byte ranges that a parameter list names, without empty ones.
///
/// Errors: PARAMETER LIST LENGTH ERROR for a list that ends inside its header or descriptors; INVALID FIELD IN
/// PARAMETER LIST for lengths that contradict each other and for more descriptors or blocks than VPD page B0h allows;
/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub(super) fn ranges(
    list: &[u8],
    config: &LuConfig,
    capacity: Blocks,
) -> Result<Vec<ByteRange>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.len() < HEADER {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let data_length = be(list, 0, 2) as usize;
    let descriptor_length = be(list, 2, 2) as usize;
    if data_length < HEADER - UNCOUNTED + descriptor_length {
        return Err(Sense::invalid_parameter_field(0, None));
    }
    let descriptors = list
        .get(HEADER..HEADER + descriptor_length)
        .ok_or(Sense::PARAMETER_LENGTH)?;
    let count = descriptor_length / DESCRIPTOR;
    if count as u64 > u64::from(config.max_unmap_descriptors) {
        return Err(Sense::invalid_parameter_field(2, None));
    }
    let mut ranges = Vec::with_capacity(count);
    let mut total = 0_u64;
    // A trailing part of a descriptor is ignored, as the clause says.
    for (index, descriptor) in descriptors.chunks_exact(DESCRIPTOR).enumerate() {
        let lba = Lba(be(descriptor, 0, 8));
        let blocks = Blocks(be(descriptor, 8, 4));
        let range = config.block_size.range(lba, blocks, capacity);
        let range = range.ok_or(Sense::LBA_OUT_OF_RANGE.with_lba(first_outside(lba, capacity)))?;
        total += blocks.0;
        if total > config.max_unmap.0 && config.max_unmap.0 < u64::from(u32::MAX) {
            let at = HEADER + index * DESCRIPTOR + 8;
            return Err(Sense::invalid_parameter_field(at as u16, None));
        }
        if blocks > Blocks(0) {
            ranges.push(range);
        }
    }
    Ok(ranges)
}

/// The first block of a range that lies outside the capacity, for INFORMATION.
pub(super) fn first_outside(lba: Lba, capacity: Blocks) -> Lba {
    lba.max(Lba(capacity.0))
}
