//! Table 32: what each node's map names, counted again, and what nodes hold that nobody can ask for.

use super::catalogue::Catalogue;
use super::keys::{Key, table};
use super::report::{FindingKind, Log};
use super::rows::{self, Node, State};
use super::scan::{Rows, get, key_of, open};
use super::{Step, Ticker};
use crate::error::Result;
use crate::meta::MetaReader;
use std::collections::BTreeMap;

/// Entries that name an object or a ref, by node; nodes without any are not there.
pub(super) type Counts = BTreeMap<u64, u64>;

pub(super) struct UsageCheck<'a, 't> {
    pub(super) meta: &'a dyn MetaReader,
    pub(super) catalogue: &'a Catalogue,
    pub(super) log: &'a mut Log,
    pub(super) ticker: &'a mut Ticker<'t>,
    pub(super) counts: &'a Counts,
}

impl UsageCheck<'_, '_> {
    pub(super) async fn run(&mut self) -> Result<()> {
        let mut rows = Rows::tables(table::USAGE, table::USAGE);
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.log.row(table::USAGE);
            self.ticker.tick(Step::Maps);
            let Some(Key::Usage(node)) = key_of(self.log, &key) else {
                continue;
            };
            if let Some(said) = open(self.log, &key, &value, rows::count) {
                self.row(node, said);
            }
        }
        for number in self.catalogue.nodes.keys() {
            let key = Key::usage_row(*number);
            if let Ok(None) = get(self.meta, &key, |_| Ok(())).await? {
                self.log
                    .find(FindingKind::UsageMissing, Key::Usage(*number), || {
                        "the node was made before there was such a row: the next start counts its entries".into()
                    });
            }
        }
        self.nameless();
        Ok(())
    }

    fn row(&mut self, node: u64, said: i64) {
        let counted = self.counts.get(&node).copied().unwrap_or(0);
        if !self.catalogue.nodes.contains_key(&node) {
            if !self.catalogue.is_damaged(&Key::node_row(node)) {
                self.log
                    .find(FindingKind::NodeMissing, Key::Usage(node), || {
                        "its node does not exist: the row should have gone with it".into()
                    });
            }
        // Entries that cannot be read may be those that are missing.
        } else if i128::from(said) != i128::from(counted) && !self.log.names_lost {
            self.log.find(FindingKind::UsageWrong, Key::Usage(node), || {
                format!("it is {said}, and {counted} entries of the node name an object or a ref: what is said about the use of space is wrong")
            });
        }
    }

    /// Sums up the nodes that are no resource's.
    fn nameless(&mut self) {
        let totals = &mut self.log.report.totals;
        // Of each pool: objects of dying nodes, of frozen ones, and bytes at most of both.
        let mut pools: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
        let has_name =
            |number| self.catalogue.owners.contains_key(number) || self.catalogue.any_damaged();
        for (number, Node { pool, state, .. }) in &self.catalogue.nodes {
            let count = self.counts.get(number).copied().unwrap_or(0);
            let bytes = count.saturating_mul(self.catalogue.object_size(*pool).unwrap_or(0));
            let (objects, sum) = match state {
                State::Dying => (&mut totals.dying_objects, &mut totals.dying_bytes),
                State::Frozen if !has_name(number) => {
                    (&mut totals.unnamed_objects, &mut totals.unnamed_bytes)
                }
                State::Frozen | State::Head => continue,
            };
            *objects = objects.saturating_add(count);
            *sum = sum.saturating_add(bytes);
            let of = pools.entry(*pool).or_default();
            match state {
                State::Dying => of.0 += count,
                State::Frozen | State::Head => of.1 += count,
            }
            of.2 = of.2.saturating_add(bytes);
        }
        for (pool, (dying, unnamed, bytes)) in pools {
            self.log.find(FindingKind::Collecting, Key::Pool(pool), || {
                format!("deleted resources have left {dying} objects, and {unnamed} more in nodes that others still inherit from, of at most {bytes} bytes: the collector goes on with them")
            });
        }
    }
}
