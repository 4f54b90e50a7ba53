//! The rules for snapshots and clones: what was asked for before, and is there, is no error where
//! that is wanted.

use super::{Made, Service, differences, unless_different};
use crate::api::{
    CloneSnapshot, SnapshotOf, TakeGroup, TakeSnapshot, Volume, VolumeKind, check_volume_size,
};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;

impl Service {
    pub async fn take_snapshot(
        &self,
        volume: ResourceName,
        request: TakeSnapshot,
    ) -> Result<Made<Volume>> {
        let member = SnapshotOf {
            volume,
            name: request.snapshot,
        };
        let made = self.snapshots(vec![member], request.if_not_exists).await?;
        let only = |mut all: Vec<Volume>| {
            all.pop()
                .ok_or_else(|| Error::internal("no snapshot was made"))
        };
        Ok(match made {
            Made::New(all) => Made::New(only(all)?),
            Made::Unchanged(all) => Made::Unchanged(only(all)?),
        })
    }

    pub async fn take_group(&self, request: TakeGroup) -> Result<Made<Vec<Volume>>> {
        let members = request.members()?;
        self.snapshots(members, request.if_not_exists).await
    }

    async fn snapshots(
        &self,
        members: Vec<SnapshotOf>,
        if_not_exists: bool,
    ) -> Result<Made<Vec<Volume>>> {
        let taken = match self.control().take_snapshots(members.clone()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => error,
            other => return other.map(Made::New),
        };
        let mut there = Vec::new();
        let mut missing = None;
        for member in members {
            match self.control().volume(member.name.clone()).await {
                Ok(found) => {
                    if let Some(why) = self.is_no_snapshot_of(&member, &found).await? {
                        return Err(taken.hint(why));
                    }
                    there.push(found);
                }
                Err(error) if error.kind == ErrorKind::NotFound => missing = Some(member.name),
                Err(error) => return Err(error),
            }
        }
        let differences = match missing {
            None => None,
            Some(_) if there.is_empty() => {
                return Err(taken.hint("it has gone meanwhile: try again"));
            }
            Some(name) => Some(format!(
                "it differs: there is no {:?}, and snapshots of one instant are not made one by one; use another name",
                name.as_str()
            )),
        };
        unless_different(taken, if_not_exists, there, differences)
    }

    /// Why what is there is not what was asked for.
    async fn is_no_snapshot_of(
        &self,
        member: &SnapshotOf,
        there: &Volume,
    ) -> Result<Option<String>> {
        let SnapshotOf { volume, name } = member;
        if there.kind != VolumeKind::Snapshot {
            return Ok(Some(format!("{:?} is a volume", name.as_str())));
        }
        let of_it = self.control().comes_from(volume.clone(), name.clone());
        Ok((!of_it.await?).then(|| {
            format!(
                "volume {:?} does not come from snapshot {:?}",
                volume.as_str(),
                name.as_str()
            )
        }))
    }

    pub async fn clone_snapshot(
        &self,
        snapshot: ResourceName,
        request: CloneSnapshot,
    ) -> Result<Made<Volume>> {
        request.size.map_or(Ok(()), check_volume_size)?;
        let control = self.control();
        let taken = match control
            .clone_snapshot(snapshot.clone(), request.clone())
            .await
        {
            Err(error) if error.kind == ErrorKind::AlreadyExists => error,
            other => return other.map(Made::New),
        };
        let there = control.volume(request.to.clone()).await?;
        let from = control.comes_from(request.to.clone(), snapshot.clone());
        let origin = match from.await? {
            true => snapshot.to_string(),
            false => match &there.origin {
                Some(origin) => origin.to_string(),
                None => "nothing".to_owned(),
            },
        };
        let size = request.size.unwrap_or(there.size);
        let differences = differences(&[
            (
                "kind",
                there.kind.to_string(),
                VolumeKind::Volume.to_string(),
            ),
            ("origin", origin, snapshot.to_string()),
            ("size", there.size.exact(), size.exact()),
        ]);
        unless_different(taken, request.if_not_exists, there, differences)
    }
}
