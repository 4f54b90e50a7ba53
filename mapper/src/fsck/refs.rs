//! Tables 60 to 62 against the entries and records that name refs: counts are counted again.

use super::catalogue::Catalogue;
use super::keys::{Counter, Key, table};
use super::relations::{counter, missing_pool};
use super::report::{FindingKind, Log};
use super::rows::{self, Counted};
use super::scan::{Rows, get, key_of, open};
use super::{Step, Ticker};
use crate::error::Result;
use crate::meta::MetaReader;
use std::collections::BTreeMap;

/// Pool and ref.
pub(super) type RefKey = (u32, u64);

/// Memory that a ref is counted with, in bytes.
const REF_COST: u64 = 96;
const END: RefKey = (u32::MAX, u64::MAX);

/// How often entries and records name a ref.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Uses {
    all: u64,
    /// By entries that say that its object is partial.
    partial: u64,
    /// Table 60 has it.
    known: bool,
}

impl Uses {
    pub(super) fn complete(count: u64) -> Uses {
        Uses {
            all: count,
            ..Uses::default()
        }
    }

    pub(super) fn partial(count: u64) -> Uses {
        Uses {
            partial: count,
            ..Uses::complete(count)
        }
    }
}

/// The uses of the refs of a window, which shrinks when they become too many; the
/// others are left to another pass.
#[derive(Debug)]
pub(super) struct RefWindow {
    from: RefKey,
    to: RefKey,
    limit: u64,
    uses: BTreeMap<RefKey, Uses>,
}

impl RefWindow {
    /// From this ref on, with this much memory in bytes.
    pub(super) fn new(from: RefKey, limit: u64) -> RefWindow {
        RefWindow {
            from,
            to: END,
            limit,
            uses: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, pool: u32, id: u64, more: Uses) {
        let key = (pool, id);
        if key < self.from || key >= self.to {
            return;
        }
        let uses = self.uses.entry(key).or_default();
        uses.all = uses.all.saturating_add(more.all);
        uses.partial = uses.partial.saturating_add(more.partial);
        if self.uses.len() as u64 * REF_COST > self.limit && self.uses.len() > 1 {
            self.narrow();
        }
    }

    fn narrow(&mut self) {
        let middle = self.uses.keys().nth(self.uses.len() / 2).copied();
        if let Some(middle) = middle {
            self.uses.split_off(&middle);
            self.to = middle;
        }
    }

    /// Where the next pass begins, if one is needed.
    pub(super) fn next(&self) -> Option<RefKey> {
        (self.to != END).then_some(self.to)
    }
}

pub(super) struct RefCheck<'a, 't> {
    pub(super) meta: &'a dyn MetaReader,
    pub(super) catalogue: &'a Catalogue,
    pub(super) log: &'a mut Log,
    pub(super) ticker: &'a mut Ticker<'t>,
}

impl RefCheck<'_, '_> {
    /// Compares the refs of a window.
    pub(super) async fn window(&mut self, mut window: RefWindow) -> Result<()> {
        let key = |(pool, id): RefKey| Key::ref_row(table::OBJECT, pool, id);
        let mut rows = Rows::range(key(window.from), key(window.to));
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.ticker.tick(Step::Refs);
            // Rows that cannot be read were reported by the walk.
            let Ok(Key::Object { pool, id }) = Key::parse(&key) else {
                continue;
            };
            let uses = match window.uses.get_mut(&(pool, id)) {
                Some(uses) => {
                    uses.known = true;
                    *uses
                }
                None => Uses::default(),
            };
            counter(self.catalogue, Counter::Ref, id, self.log);
            self.count(pool, id, uses).await?;
            let row = super::bytes::unseal(&key, &value).and_then(|body| rows::counted(pool, body));
            if let Ok(row) = row {
                self.content(pool, id, row).await?;
                self.partial(pool, id, row, uses).await?;
            }
        }
        for ((pool, id), uses) in window.uses.iter().filter(|(_, uses)| !uses.known) {
            self.log.find(
                FindingKind::RefMissing,
                Key::Object {
                    pool: *pool,
                    id: *id,
                },
                || {
                    format!(
                        "{} entries and records name it, and it does not exist: their data cannot be found",
                        uses.all
                    )
                },
            );
        }
        Ok(())
    }

    async fn count(&mut self, pool: u32, id: u64, uses: Uses) -> Result<()> {
        let place = Key::Count { pool, id };
        let Ok(count) = get(
            self.meta,
            &Key::ref_row(table::COUNT, pool, id),
            rows::count,
        )
        .await?
        else {
            return Ok(());
        };
        let said = count.map_or("missing".into(), |count: i64| count.to_string());
        let text = |meaning| {
            format!(
                "it is {said}, and {} entries and records name the ref: {meaning}",
                uses.all
            )
        };
        match i128::from(count.unwrap_or(-1)) - i128::from(uses.all) {
            ..0 => self.log.find(FindingKind::CountWrong, place, || {
                text("its object would be deleted too early")
            }),
            // Others may name it that cannot be read.
            1.. if !self.log.names_lost => self.log.find(FindingKind::CountHigh, place, || {
                text("its object is never deleted, which costs space only")
            }),
            0 if uses.all == 0 => {
                self.log.report.totals.dead_refs += 1;
                self.log.find(FindingKind::RefUnused, place, || {
                    "nothing names the ref any more: the collector will delete its object".into()
                });
            }
            _ => {}
        }
        Ok(())
    }

    async fn content(&mut self, pool: u32, id: u64, row: Counted) -> Result<()> {
        let Some((sha256, length)) = row.content else {
            return Ok(());
        };
        let place = Key::Object { pool, id };
        if self
            .catalogue
            .object_size(pool)
            .is_some_and(|object| u64::from(length) > object)
        {
            self.log.find(FindingKind::ContentTable, &place, || {
                format!("its content has {length} bytes, more than an object holds")
            });
        }
        let found = get(self.meta, &Key::content_row(pool, &sha256), rows::content).await?;
        if let Ok(found) = found
            && found != Some(id)
        {
            self.log.find(FindingKind::ContentTable, &place, || {
                "its content is not found by its hash, or leads to another ref".into()
            });
        }
        Ok(())
    }

    async fn partial(&mut self, pool: u32, id: u64, row: Counted, uses: Uses) -> Result<()> {
        let key = Key::object_row(table::PARTIAL, row.name);
        let there = !matches!(get(self.meta, &key, |_| Ok(())).await?, Ok(None));
        let place = Key::Partial(row.name);
        if !there && uses.partial > 0 {
            self.log.find(FindingKind::PartialMissing, place, || {
                format!("entries say that ref {id} of pool {pool} is partial: it is unknown what is valid")
            });
        } else if there && uses.partial < uses.all {
            self.log.find(FindingKind::PartialFlag, place, || {
                format!("entries or records say that ref {id} of pool {pool} is complete: blocks that are not valid would be read")
            });
        }
        Ok(())
    }

    /// Rows of tables 61 and 62 against table 60.
    pub(super) async fn other_tables(&mut self) -> Result<()> {
        let mut rows = Rows::tables(table::COUNT, table::CONTENT);
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.log.row(key.first().copied().unwrap_or(0));
            self.ticker.tick(Step::Refs);
            match key_of(self.log, &key) {
                Some(Key::Count { pool, id }) => self.count_row(pool, id, &key, &value).await?,
                Some(Key::Content { pool, sha256 }) => {
                    self.content_row(pool, sha256, &key, &value).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn count_row(&mut self, pool: u32, id: u64, key: &[u8], value: &[u8]) -> Result<()> {
        missing_pool(self.catalogue, pool, Key::Count { pool, id }, self.log);
        if open(self.log, key, value, rows::count).is_none() {
            return Ok(());
        }
        let object = Key::ref_row(table::OBJECT, pool, id);
        if let Ok(None) = get(self.meta, &object, |_| Ok(())).await? {
            self.log
                .find(FindingKind::CountWrong, Key::Count { pool, id }, || {
                    "it counts a ref that does not exist".into()
                });
        }
        Ok(())
    }

    async fn content_row(
        &mut self,
        pool: u32,
        sha256: [u8; 32],
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        let place = Key::Content { pool, sha256 };
        missing_pool(self.catalogue, pool, place.clone(), self.log);
        let Some(id) = open(self.log, key, value, rows::content) else {
            return Ok(());
        };
        let object = Key::ref_row(table::OBJECT, pool, id);
        let found = get(self.meta, &object, |body| rows::counted(pool, body)).await?;
        // A ref of another hash is reported here; the same hash with another ref from table 60.
        let good = match found {
            Ok(Some(row)) => row.content.is_some_and(|(hash, _)| hash == sha256),
            Ok(None) => false,
            Err(()) => true,
        };
        if !good {
            self.log.find(FindingKind::ContentTable, place, || {
                format!("it leads to ref {id}, which does not exist or has other content")
            });
        }
        Ok(())
    }
}
