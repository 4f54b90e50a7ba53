//! Listing a file pool: leaf by leaf, by name inside; foreign files are skipped.

use super::place::{Leaf, Places, parse_directory};
use crate::{Error, ErrorKind, Generation, ListCursor, ListPage, ObjectId, ObjectIndex, Result};
use atoll_reactor::fs::{DirEntry, read_dir};
use std::io;
use std::path::Path;

const CURSOR_LEN: usize = 2 + 16;

/// The last object that was listed.
struct After {
    leaf: Leaf,
    id: ObjectId,
}

impl After {
    fn encode(&self) -> ListCursor {
        let mut cursor = Vec::with_capacity(CURSOR_LEN);
        cursor.extend_from_slice(&self.leaf.0.to_be_bytes());
        cursor.extend_from_slice(&self.id.generation.get().to_be_bytes());
        cursor.extend_from_slice(&self.id.index.get().to_be_bytes());
        cursor
    }

    fn decode(cursor: &[u8]) -> Option<After> {
        if cursor.len() != CURSOR_LEN {
            return None;
        }
        let word = |at: usize| Some(u64::from_be_bytes(cursor[at..at + 8].try_into().ok()?));
        Some(After {
            leaf: Leaf(u16::from_be_bytes([cursor[0], cursor[1]])),
            id: ObjectId::new(Generation::new(word(2)?)?, ObjectIndex::new(word(10)?)?),
        })
    }
}

/// A directory's entries; one that is missing has none.
pub(super) async fn entries(path: &Path) -> Result<Vec<DirEntry>> {
    match read_dir(path).await {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::from_io(format!("listing {}", path.display()), error)),
    }
}

/// The numbers of the hashed directories in one, ascending.
pub(super) async fn directories(path: &Path) -> Result<Vec<u8>> {
    let found = entries(path).await?;
    let directories = found.iter().filter(|entry| entry.is_dir);
    let mut numbers: Vec<u8> = directories
        .filter_map(|entry| parse_directory(&entry.name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) async fn list(
    places: &Places,
    from: Option<ListCursor>,
    limit: usize,
) -> Result<ListPage> {
    let after = match &from {
        None => None,
        Some(cursor) => Some(
            After::decode(cursor)
                .ok_or_else(|| Error::new(ErrorKind::Invalid, "list: a cursor of another store"))?,
        ),
    };
    let limit = limit.max(1);
    let mut objects = Vec::new();
    for first in directories(places.objects()).await? {
        if after
            .as_ref()
            .is_some_and(|a| a.leaf.first() > usize::from(first))
        {
            continue;
        }
        for second in directories(&places.first(usize::from(first))).await? {
            let leaf = Leaf::at(first, second);
            if after.as_ref().is_some_and(|after| after.leaf > leaf) {
                continue;
            }
            let found = entries(&places.leaf(leaf)).await?;
            let mut ids: Vec<ObjectId> = found
                .iter()
                .filter(|entry| !entry.is_dir)
                .filter_map(|entry| places.parse(leaf, &entry.name))
                .filter(|id| {
                    !after
                        .as_ref()
                        .is_some_and(|a| a.leaf == leaf && *id <= a.id)
                })
                .collect();
            ids.sort_unstable();
            for id in ids {
                objects.push(id);
                if objects.len() == limit {
                    let next = Some(After { leaf, id }.encode());
                    return Ok(ListPage { objects, next });
                }
            }
        }
    }
    Ok(ListPage {
        objects,
        next: None,
    })
}
