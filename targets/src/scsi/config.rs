//! What the server supplies for each logical unit: identity, geometry, limits; and their validation.
//! Immutable while the unit exists; the capacity alone may change later.

use super::units::{BlockSize, Blocks, ByteCount, saturate32};

/// The 128-bit id of the resource behind a logical unit; all names of the unit derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceId(pub u128);

impl ResourceId {
    /// The id with its bits spread evenly, reversibly: shorter names are cut from this, so that ids that differ
    /// only in what would be cut off get different names all the same. Names are kept by initiators: never change it.
    pub(super) const fn mixed(self) -> u128 {
        const ODD: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
        let mut bits = self.0;
        let mut round = 0;
        while round < 2 {
            bits = (bits ^ (bits >> 64)).wrapping_mul(ODD);
            round += 1;
        }
        bits ^ (bits >> 64)
    }
}

/// Largest MAXIMUM TRANSFER LENGTH by default, in bytes.
pub const DEFAULT_MAX_TRANSFER: ByteCount = ByteCount(16 << 20);
/// OPTIMAL TRANSFER LENGTH by default, in bytes.
pub const DEFAULT_OPTIMAL_TRANSFER: ByteCount = ByteCount(1 << 20);
/// MAXIMUM UNMAP LBA COUNT by default, in blocks.
pub const DEFAULT_MAX_UNMAP: Blocks = Blocks(1 << 20);
/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT by default.
pub const DEFAULT_MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// MAXIMUM WRITE SAME LENGTH by default, in bytes: a pattern costs as much to write as a transfer of that size.
pub const DEFAULT_MAX_WRITE_SAME: ByteCount = DEFAULT_MAX_TRANSFER;
/// MAXIMUM COMPARE AND WRITE LENGTH: all that the command's 8 bits can ask for.
pub(super) const MAX_COMPARE_AND_WRITE: u8 = u8::MAX;
/// A threshold set has at least 2^this blocks: an exponent of 0 would say that there are no thresholds.
const MIN_THRESHOLD_EXPONENT: u8 = 1;
/// Largest THRESHOLD EXPONENT: every capacity in blocks is then less than 2^32 sets.
const MAX_THRESHOLD_EXPONENT: u8 = 32;
/// It is left again where one part in so many of the threshold's own count is available on top of it.
const THRESHOLD_MARGIN: u64 = 8;
/// Blocks of 512 bytes lie in physical blocks of 2^3 of them: objects are kept in 4 KiB units.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;
/// Largest value of LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT (4 bits).
const MAX_PHYSICAL_EXPONENT: u8 = 15;
/// Longest iSCSI name (RFC 7143 4.2.7.1), which leaves room for the extension in SCSI name strings.
pub const MAX_NAME_LENGTH: usize = 223;
/// Fixed widths of the standard INQUIRY data.
pub(super) const VENDOR_LENGTH: usize = 8;
pub(super) const PRODUCT_LENGTH: usize = 16;
pub(super) const REVISION_LENGTH: usize = 4;

/// The target port that the logical unit is reached through, for the designators of VPD page 83h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// RELATIVE TARGET PORT IDENTIFIER, not 0.
    pub relative_id: u16,
    /// Target portal group tag (RFC 7143 4.4.1), part of the port's name.
    pub portal_group_tag: u16,
}

/// A soft threshold of the LBA mapping resources (SBC-3 4.7.3.7): the space of the pool that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// THRESHOLD EXPONENT: log2 of the blocks of a threshold set, 1..=32.
    pub exponent: u8,
    /// THRESHOLD COUNT in threshold sets: reached where fewer are available.
    pub count: u32,
}

impl Threshold {
    /// So many percent of a pool that has this many bytes.
    pub fn of_pool(block_size: BlockSize, total: ByteCount, percent: u32) -> Threshold {
        let blocks = block_size.whole_blocks(total).0;
        let bits = (u64::BITS - blocks.leading_zeros()) as u8;
        let exponent = bits
            .saturating_sub(u32::BITS as u8)
            .max(MIN_THRESHOLD_EXPONENT);
        let percent = u64::from(percent);
        let part = blocks / 100 * percent + blocks % 100 * percent / 100;
        Threshold {
            exponent,
            count: saturate32(part >> exponent),
        }
    }

    /// How many whole threshold sets the bytes are.
    pub(super) fn sets(&self, block_size: BlockSize, bytes: ByteCount) -> u64 {
        block_size.whole_blocks(bytes).0 >> self.exponent
    }

    pub(super) fn is_reached(&self, block_size: BlockSize, available: ByteCount) -> bool {
        self.sets(block_size, available) < u64::from(self.count)
    }

    pub(super) fn is_left(&self, block_size: BlockSize, available: ByteCount) -> bool {
        let count = u64::from(self.count);
        self.sets(block_size, available) >= count + count / THRESHOLD_MARGIN
    }
}

/// Everything that a logical unit is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuConfig {
    /// Source of the NAA, T10 and SCSI name designators and the serial number.
    pub resource: ResourceId,
    /// Name of the SCSI target device: `iqn.`, `eui.` or `naa.`, at most [`MAX_NAME_LENGTH`] bytes.
    pub target_name: String,
    /// The iSCSI target port, if the unit is reached through one.
    pub port: Option<TargetPort>,
    /// T10 VENDOR IDENTIFICATION, at most 8 printable ASCII characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, at most 16 printable ASCII characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, at most 4 printable ASCII characters.
    pub revision: String,
    /// Logical block size.
    pub block_size: BlockSize,
    /// Capacity in logical blocks, at least 1.
    pub blocks: Blocks,
    /// Whether all writes are refused (WP, WRITE PROTECTED).
    pub read_only: bool,
    /// log2 of the logical blocks in a physical block, 0..=15.
    pub physical_block_exponent: u8,
    /// OPTIMAL UNMAP GRANULARITY: the blocks of a pool object; 0 reports none.
    pub unmap_granularity: Blocks,
    /// MAXIMUM UNMAP LBA COUNT: most blocks of one UNMAP; `u32::MAX` for no limit.
    pub max_unmap: Blocks,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub max_unmap_descriptors: u32,
    /// MAXIMUM WRITE SAME LENGTH: most blocks of one WRITE SAME.
    pub max_write_same: Blocks,
    /// OPTIMAL TRANSFER LENGTH in blocks, 0 for none.
    pub optimal_transfer: Blocks,
    /// MAXIMUM TRANSFER LENGTH: most blocks of one READ, WRITE, VERIFY or ORWRITE.
    pub max_transfer: Blocks,
    /// Where it is told that the pool gets full; `None` if its space is not known.
    pub threshold: Option<Threshold>,
}

/// Why a configuration is not one of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{field} must be at most {max} printable ASCII characters")]
    Text { field: &'static str, max: usize },
    #[error(
        "target name must begin with iqn., eui. or naa. and have at most {MAX_NAME_LENGTH} bytes"
    )]
    TargetName,
    #[error("relative target port identifier must not be 0")]
    PortId,
    #[error("capacity must be at least one block and less than 2^64 bytes")]
    Capacity,
    #[error("{field} must be from {min} to {max}")]
    Limit {
        field: &'static str,
        min: u64,
        max: u64,
    },
}

impl LuConfig {
    /// A writable unit with the default limits; `object_size` is the pool's.
    pub fn new(
        resource: ResourceId,
        target_name: impl Into<String>,
        block_size: BlockSize,
        blocks: Blocks,
        object_size: ByteCount,
    ) -> Self {
        let per_physical = PHYSICAL_BLOCK_BYTES / block_size.bytes();
        LuConfig {
            resource,
            target_name: target_name.into(),
            port: Some(TargetPort {
                relative_id: 1,
                portal_group_tag: 1,
            }),
            vendor: "ATOLL".into(),
            product: "VOLUME".into(),
            revision: "1".into(),
            block_size,
            blocks,
            read_only: false,
            physical_block_exponent: per_physical.trailing_zeros() as u8,
            unmap_granularity: match block_size {
                BlockSize::B512 => block_size.whole_blocks(object_size),
                // QEMU's iSCSI driver aborts on reads from a unit of 4096-byte blocks whose
                // granularity it knows: it then asks itself for the state of a part of a block.
                BlockSize::B4096 => Blocks(0),
            },
            max_unmap: DEFAULT_MAX_UNMAP,
            max_unmap_descriptors: DEFAULT_MAX_UNMAP_DESCRIPTORS,
            max_write_same: block_size.whole_blocks(DEFAULT_MAX_WRITE_SAME),
            optimal_transfer: block_size.whole_blocks(DEFAULT_OPTIMAL_TRANSFER),
            max_transfer: block_size.whole_blocks(DEFAULT_MAX_TRANSFER),
            threshold: None,
        }
    }

    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        text("vendor", &self.vendor, VENDOR_LENGTH)?;
        text("product", &self.product, PRODUCT_LENGTH)?;
        text("revision", &self.revision, REVISION_LENGTH)?;
        let known_prefix = ["iqn.", "eui.", "naa."]
            .iter()
            .any(|p| self.target_name.starts_with(p));
        if !known_prefix
            || self.target_name.len() > MAX_NAME_LENGTH
            || self.target_name.contains('\0')
        {
            return Err(ConfigError::TargetName);
        }
        if self.port.as_ref().is_some_and(|port| port.relative_id == 0) {
            return Err(ConfigError::PortId);
        }
        check_capacity(self.block_size, self.blocks)?;
        limit(
            "physical block exponent",
            u64::from(self.physical_block_exponent),
            0,
            u64::from(MAX_PHYSICAL_EXPONENT),
        )?;
        let max = u64::from(u32::MAX);
        limit("unmap granularity", self.unmap_granularity.0, 0, max)?;
        limit("maximum unmap count", self.max_unmap.0, 1, max)?;
        limit(
            "maximum unmap descriptor count",
            u64::from(self.max_unmap_descriptors),
            1,
            max,
        )?;
        limit("maximum write same length", self.max_write_same.0, 1, max)?;
        limit("maximum transfer length", self.max_transfer.0, 1, max)?;
        if let Some(threshold) = &self.threshold {
            limit(
                "threshold exponent",
                u64::from(threshold.exponent),
                u64::from(MIN_THRESHOLD_EXPONENT),
                u64::from(MAX_THRESHOLD_EXPONENT),
            )?;
        }
        limit(
            "optimal transfer length",
            self.optimal_transfer.0,
            0,
            self.max_transfer.0,
        )
    }

    /// UNIT SERIAL NUMBER: the resource id in 32 hexadecimal digits.
    pub(super) fn serial(&self) -> String {
        format!("{:032x}", self.resource.0)
    }

    pub(super) fn max_transfer_field(&self) -> u32 {
        saturate32(self.max_transfer.0)
    }
}

/// Whether `blocks` is a capacity: not 0, and its bytes fit 64 bits.
pub(super) fn check_capacity(size: BlockSize, blocks: Blocks) -> Result<(), ConfigError> {
    match blocks.0.checked_mul(u64::from(size.bytes())) {
        Some(bytes) if bytes > 0 => Ok(()),
        _ => Err(ConfigError::Capacity),
    }
}

fn text(field: &'static str, value: &str, max: usize) -> Result<(), ConfigError> {
    // SPC-4 4.4.1: ASCII data fields hold graphic characters and spaces.
    let printable = value.bytes().all(|byte| (0x20..=0x7E).contains(&byte));
    if value.len() <= max && printable {
        Ok(())
    } else {
        Err(ConfigError::Text { field, max })
    }
}

fn limit(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Limit { field, min, max })
    }
}
