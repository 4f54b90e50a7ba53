//! Moments at which nothing runs: the garbage collector has done all that there is to do, and what is left is
//! what the maps need. And the separate reader of the formats, at the end of every life.

use crate::content::Content;
use crate::history::{Life, name};
use crate::oracle::{ResourceModel, SECTOR};
use atoll_backends::Pool;
use atoll_mapper::meta::SimMeta;
use atoll_mapper::types::PoolNumber;
use atoll_mapper::{ChangedExtent, clear_faults, faulted_pools, fsck};
use atoll_reactor::sim::Sim;
use atoll_reactor::sleep;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(20);
/// More than the slowest garbage collector needs where nothing fails.
const MAX_PAUSES: u32 = 100_000;
/// How long it is waited for where errors are injected, which it may wait out.
const PATIENCE: u32 = 50;

/// More objects than any history leaves.
const MAX_LISTED: usize = 100_000;

impl Life {
    pub async fn quiet(&self) {
        for resource in self.names(|_| true) {
            let opened = self.mapper.open_volume(name(&resource)).await;
            let handle = opened.expect("it opens");
            let begun = self.with(&resource, ResourceModel::flush_begins);
            match handle.flush().await {
                Ok(()) => self.with(&resource, |model| model.flush_ends(begun)),
                Err(error) => self.expect_fault(&error, &[&resource]).await,
            }
        }
        self.mapper.gc_run().await.expect("it begins");
        let faults = self.shared.borrow().faults;
        let mut pauses = 0;
        while self.mapper.gc_status().await.expect("it says").running {
            pauses += 1;
            if faults && pauses > PATIENCE {
                return;
            }
            assert!(pauses < MAX_PAUSES, "the collector does not come to an end");
            sleep(PAUSE).await;
        }
        self.count(|progress| progress.quiet += 1);
        if faults {
            return;
        }
        self.check_tree().await;
        self.check_garbage().await;
        if std::env::var("U").is_ok() {
            self.check_usage().await;
        }
        self.check_changes().await;
    }

    /// Every resource is there once; what no name needs any more is merged or gone.
    async fn check_tree(&self) {
        let tree = self.mapper.tree().await.expect("the tree is listed");
        for (place, node) in tree.iter().enumerate() {
            let children = tree.iter().filter(|child| child.parent == Some(node.node));
            match &node.resource {
                Some(_) => {}
                None => assert!(
                    children.count() > 1,
                    "{} should have been merged: {tree:#?}",
                    node.node
                ),
            }
            if let Some(parent) = node.parent {
                assert!(
                    tree[..place].iter().any(|above| above.node == parent),
                    "parents come first: {tree:#?}"
                );
            }
        }
        let mut listed: Vec<String> = tree
            .iter()
            .filter_map(|node| Some(node.resource.as_ref()?.row.name.to_string()))
            .collect();
        listed.sort();
        assert_eq!(listed, self.names(|_| true));
    }

    /// A mark and sweep finds nothing that the collector should have done, and all that it should have left.
    async fn check_garbage(&self) {
        let Some(chaos) = &self.chaos else { return };
        let store = chaos.inner().attach().await.expect("it is there");
        let listed = store.list(None, MAX_LISTED).await.expect("listed");
        assert!(listed.next.is_none(), "more objects than were thought of");
        let swept = fsck::garbage(&*self.meta, PoolNumber::FIRST).await;
        let left = swept
            .expect("the store is sound")
            .left_to_do(&listed.objects);
        assert!(left.is_empty(), "{left:#?}");
    }

    async fn check_usage(&self) {
        let usage = self.mapper.pool_usage(name("main")).await.expect("counted");
        let sizes = self.shared.borrow();
        let sizes = sizes.resources.values().map(ResourceModel::size);
        assert_eq!(usage.logical, sizes.sum::<u64>());
        assert_eq!(usage.shared + usage.unique, usage.mapped, "{usage:?}");
        assert_eq!(usage.garbage, 0, "{usage:?}");
    }
}

impl Life {
    /// Where two resources of one tree are known to differ, a change is told; zeros are where they are told.
    async fn check_changes(&self) {
        let Some(to) = self.pick(|_| true) else {
            return;
        };
        let tree = self.with(&to, |model| model.tree);
        let from = self.pick(|model| model.tree == tree && model.name != to);
        let extents = self.changes(from.as_deref(), &to).await;
        let is_told = |sector: u64| {
            let place = extents.partition_point(|extent| extent.offset <= sector * SECTOR);
            let before = place.checked_sub(1).map(|place| extents[place]);
            before.filter(|extent| sector * SECTOR < extent.offset + extent.len)
        };
        let theirs = self.with(&to, |model| model.known());
        let before = match &from {
            Some(from) => self.with(from, |model| model.known()),
            None => BTreeMap::new(),
        };
        let end = self.with(&to, |model| model.size()) / SECTOR;
        let known = |all: &BTreeMap<u64, Option<Content>>, sector: &u64| {
            all.get(sector).copied().unwrap_or(Some(Content::ZERO))
        };
        let sectors: BTreeSet<&u64> = theirs.keys().chain(before.keys()).collect();
        for sector in sectors.into_iter().filter(|sector| **sector < end) {
            let (Some(now), Some(then)) = (known(&theirs, sector), known(&before, sector)) else {
                continue;
            };
            let told = is_told(*sector);
            assert!(
                now == then || told.is_some(),
                "{from:?} to {to}: sector {sector} differs, {then:?}, {now:?}: {extents:?}"
            );
            assert!(
                now == Content::ZERO || told.is_none_or(|extent| !extent.zero),
                "{from:?} to {to}: sector {sector} is not zero: {extents:?}"
            );
        }
    }

    async fn changes(&self, from: Option<&str>, to: &str) -> Vec<ChangedExtent> {
        let most = self.random(1..50) as usize;
        let size = self.with(to, |model| model.size());
        let (mut all, mut next) = (Vec::<ChangedExtent>::new(), Some(0));
        while let Some(offset) = next {
            let changes = self
                .mapper
                .changes(from.map(name), name(to), offset, most)
                .await
                .expect("told");
            assert!(changes.extents.len() <= most);
            for extent in &changes.extents {
                let last = all.last().map_or(0, |last| last.offset + last.len);
                assert!(
                    extent.len > 0 && extent.offset >= last,
                    "{all:?} {extent:?}"
                );
                assert!(extent.offset + extent.len <= size, "{extent:?}");
                all.push(*extent);
            }
            assert!(
                changes.next.is_none_or(|next| next > offset),
                "it comes to an end"
            );
            next = changes.next;
        }
        all
    }
}

/// The separate reader of the formats finds nothing wrong; then volumes that a failed sync had faulted are
/// as good as their last flush that succeeded, which the next life verifies: they are let in again.
pub fn check_stores(sim: &mut Sim, meta: SimMeta, pool: Arc<dyn Pool>) {
    let report = sim.block_on(async move {
        let store = pool.attach().await.expect("the pool is there");
        let pools = [(PoolNumber::FIRST, store)];
        let report = fsck::check(&meta, &pools, fsck::Options::default(), &mut |_| {}).await;
        let faulted = faulted_pools(&meta).await.expect("readable");
        clear_faults(&meta, &faulted).await.expect("cleared");
        report
    });
    let report = report.expect("the metadata store is readable");
    let mut report = report;
    report
        .findings
        .retain(|f| f.kind != fsck::FindingKind::Depth && f.severity == fsck::Severity::Error);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
