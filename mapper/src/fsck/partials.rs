//! The part of a walk that reads partial records: what they say by themselves, what lies below, and
//! which of it is being dropped with the object at the top. Records against entries: `objects`.

use super::Step;
use super::keys::{Key, table};
use super::maps::Walk;
use super::names::{Name, Role};
use super::refs::Uses;
use super::relations::missing_pool;
use super::report::FindingKind;
use super::rows::{self, Below, Partial};
use super::scan::{Rows, get, key_of, open};
use crate::error::Result;

/// Objects that may lie below one another, named by records.
const MAX_CHAIN: u32 = 256;
/// Bytes of a block.
const BLOCK: u64 = 4096;

/// Names in ranges, from and below.
#[derive(Default)]
pub(super) struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    pub(super) fn push(&mut self, first: Name, count: u64) {
        let (start, end) = (first.raw(), first.raw() + u128::from(count));
        match self.0.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.0.push((start, end)),
        }
    }

    /// To be done before anything is looked for.
    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    fn hold(&self, name: Name) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= name.raw());
        self.0[..after]
            .last()
            .is_some_and(|(_, end)| name.raw() < *end)
    }
}

impl Walk<'_, '_> {
    pub(super) async fn partials(&mut self) -> Result<()> {
        let mut rows = Rows::tables(table::PARTIAL, table::PARTIAL);
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.log.row(table::PARTIAL);
            self.ticker.tick(Step::Partials);
            let Some(Key::Partial(name)) = key_of(self.log, &key) else {
                continue;
            };
            let Some(record) = open(self.log, &key, &value, |body| {
                rows::partial(name.pool(), body)
            }) else {
                self.log.names_lost = true;
                continue;
            };
            self.partial(name, record);
            self.below(name, record.below).await?;
        }
        Ok(())
    }

    fn partial(&mut self, name: Name, record: Partial<'_>) {
        let place = Key::Partial(name);
        missing_pool(self.catalogue, name.pool(), place.clone(), self.log);
        let mark = self.catalogue.mark(name.pool());
        for named in [Some(name), record.object()].into_iter().flatten() {
            self.check_mark(mark, named.generation(), &place);
        }
        let Some(object) = self.catalogue.object_size(name.pool()) else {
            return;
        };
        let (len, needed) = (record.bitmap.len() as u64, object / BLOCK / 8);
        if len != needed {
            self.log.find(FindingKind::BitmapLength, place, || {
                format!("its bitmap has {len} bytes and not {needed}: it is unknown what is valid")
            });
        } else if record.is_full() {
            self.log.find(FindingKind::BitmapFull, place, || {
                "all its blocks are valid: the record should be gone".into()
            });
        }
    }

    async fn below(&mut self, name: Name, below: Below) -> Result<()> {
        match below {
            Below::Implicit | Below::Zeros => {}
            Below::Ref(id) => {
                if let Some(refs) = &mut self.sink.refs {
                    refs.add(name.pool(), id, Uses::complete(1));
                }
            }
            Below::Object(below) => {
                self.add_single(below, 0, Role::Below);
                let dropped = self.dropped.hold(name) && self.sink.objects.is_some();
                if dropped || !self.log.repeats {
                    self.chain(name, below, dropped).await?;
                }
            }
        }
        Ok(())
    }

    /// Follows the records from the object on that lies below `name`. All of them are `dropped` with
    /// the one at the top.
    async fn chain(&mut self, name: Name, below: Name, dropped: bool) -> Result<()> {
        let mut at = below;
        // The last turn sees that the last of them is complete or has no explicit below.
        for _ in 0..MAX_CHAIN {
            if dropped {
                self.add_single(at, 0, Role::DyingBelow);
            }
            let key = Key::object_row(table::PARTIAL, at);
            let next = |body: &[u8]| rows::partial(at.pool(), body).map(|record| record.object());
            match get(self.meta, &key, next).await? {
                Ok(Some(Some(next))) => at = next,
                // Its end, or a record that its own check reports.
                _ => return Ok(()),
            }
        }
        self.log
            .find(FindingKind::BelowChain, Key::Partial(name), || {
                format!(
                    "more than {MAX_CHAIN} objects lie below one another: a read would never end"
                )
            });
        Ok(())
    }
}
