//! The part of the engine's face that moves content: for exports to files and imports from them.

use axum::body::Bytes;

use super::Answer;
use crate::api::{
    BeginImport, ChangePage, ChangesQuery, CheckpointImport, DataRange, FinishImport, ImportState,
    Imported,
};
use crate::name::ResourceName;

/// Content of resources, as admins read and write it. Requests have passed the checks of `api`.
///
/// Reading is one more user of a resource beside its initiators. Writing takes an import that was begun, and
/// while there is one the volume is not exported: nobody sees content that is not whole yet.
pub trait Transfer: Send + Sync {
    /// What of the resource may differ from another, or is stored. `NotFound` when a name has another id.
    fn changes(&self, name: ResourceName, query: ChangesQuery) -> Answer<'_, ChangePage>;
    fn read_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, Bytes>;
    /// `Refused` without an import. `data` is as long as `range`.
    fn write_data(&self, name: ResourceName, range: DataRange, data: Bytes) -> Answer<'_, ()>;
    /// The range reads as zeros. `Refused` without an import.
    fn zero_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, ()>;

    /// `InUse` while the volume is exported; `Refused` where it is not at the base, is not empty, or another
    /// import was begun.
    fn begin_import(&self, name: ResourceName, request: BeginImport) -> Answer<'_, ImportState>;
    fn checkpoint_import(
        &self,
        name: ResourceName,
        request: CheckpointImport,
    ) -> Answer<'_, ImportState>;
    /// Everything is durable, the snapshot is there, and the volume may be exported. `AlreadyExists` when the
    /// snapshot's name is taken: it can be asked again with another one.
    fn finish_import(&self, name: ResourceName, request: FinishImport) -> Answer<'_, Imported>;
}
