//! What moving content in and out takes: changes between resources, and imports, which have a
//! beginning and an end. Content itself is bytes, not JSON.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Volume;
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// Most bytes of content in one request. A connection holds one request's in memory.
pub const MAX_DATA: u64 = 1 << 20;
/// Offsets and lengths of content are multiples of this.
pub const DATA_UNIT: u64 = 4096;
/// Most ranges in one answer.
pub const MAX_CHANGES: u32 = 4096;
/// Most bytes made zero by one request.
pub const MAX_ZEROED: u64 = 16 << 30;

/// `?id=...&from=...&offset=...`: which changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangesQuery {
    /// The resource must have this id: a name may be given to another one meanwhile.
    pub id: Uuid,
    /// A resource of the same tree; without one, all that is stored counts as changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub from: Option<ResourceName>,
    /// The id that `from` must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_id: Option<Uuid>,
    /// Where to begin, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// Most ranges that are answered, 1 to 4096.
    #[serde(default = "max_changes")]
    pub most: u32,
}

const fn max_changes() -> u32 {
    MAX_CHANGES
}

impl ChangesQuery {
    /// Refuses what cannot be asked.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_CHANGES).contains(&self.most) {
            return Err(Error::invalid(format!(
                "`most` is 1 to {MAX_CHANGES}, not {}",
                self.most
            )));
        }
        if self.from.is_some() != self.from_id.is_some() {
            return Err(Error::invalid("`from` and `from_id` go together"));
        }
        Ok(())
    }
}

/// A range that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedRange {
    /// In bytes.
    pub offset: u64,
    pub length: u64,
    /// The later of both reads as zeros there.
    pub zero: bool,
}

/// A part of the changes, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePage {
    pub ranges: Vec<ChangedRange>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `?id=...&offset=...&length=...`: a range of a resource's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DataRange {
    /// The resource must have this id.
    pub id: Uuid,
    /// In bytes, a multiple of 4096.
    pub offset: u64,
    /// In bytes, a multiple of 4096: at most 1 MiB of content, 16 GiB of zeros.
    pub length: u64,
    /// Of the import that writes; not to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Uuid>,
}

impl DataRange {
    /// Refuses what is no range of at most `most` bytes.
    pub fn check(&self, most: u64) -> Result<()> {
        let Self { offset, length, .. } = *self;
        let aligned = offset.is_multiple_of(DATA_UNIT) && length.is_multiple_of(DATA_UNIT);
        if aligned && (1..=most).contains(&length) && offset.checked_add(length).is_some() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{length} bytes at {offset}: both are multiples of {DATA_UNIT}, and a request has 1 to {most} bytes"
        )))
    }
}

/// Begins an import into a volume, or goes on with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginImport {
    /// The volume must have this id.
    pub id: Uuid,
    /// The snapshot whose content comes; the nil UUID for an image, which has none.
    pub source: Uuid,
    /// The snapshot whose content the volume must have; absent if all of it comes: then the volume must be
    /// empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Uuid>,
    /// The volume is given this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Go on with an import that was interrupted.
    #[serde(default)]
    pub resume: bool,
    /// Whatever the volume's content is.
    #[serde(default)]
    pub force: bool,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportState {
    pub source: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Uuid>,
    /// Everything before this offset is there, durably.
    pub done: ByteSize,
    /// It was begun before.
    pub resumed: bool,
    /// Goes with everything that is written; who began or resumed last is the only one who may.
    pub session: Uuid,
}

/// Makes what came durable, and remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointImport {
    pub id: Uuid,
    pub session: Uuid,
    pub done: ByteSize,
}

/// Ends an import: everything has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishImport {
    pub id: Uuid,
    pub session: Uuid,
    /// Name of the snapshot that keeps what was imported, for the next difference to build on. Images have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ResourceName>,
}

/// What an import has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    pub volume: Volume,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ResourceName>,
}

/// Id of the snapshot that keeps, in the tree of `volume`, what was imported from `source`: it tells later that
/// the volume is at that state.
pub fn imported_id(volume: Uuid, source: Uuid) -> Uuid {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(b"atoll imported snapshot\0");
    hash.update(volume.as_bytes());
    hash.update(source.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // RFC 9562 §5.8: a UUID of a form of our own.
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
