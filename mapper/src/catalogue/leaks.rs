//! When leaked objects are looked for in a pool, and their deletion. Which objects are leaked is `gc::leaks`' business.
//!
//! The scan is a task of its own beside the collector's, because it may take long and holds nothing up.

use super::Catalogue;
use super::collect::{BUSY_PAUSE, RETRY_PAUSE};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::gc::leaks::{LeakSearch, Scope};
use crate::gc::{UsedBy, put_dead, runs};
use crate::meta::{Batch, Durability};
use crate::pool::PoolContext;
use crate::types::PoolNumber;
use atoll_backends::ObjectId;
use atoll_reactor::{sleep, spawn_detached};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Leaked objects that become dead ones in one batch.
const DEAD_AT_ONCE: usize = 1024;
/// Dead objects that wait for their deletion above which no more are added.
const MAX_WAITING: u64 = 16_384;

impl Catalogue {
    /// Looks for leaked objects, if that is wanted in a pool and not under way there.
    pub(super) fn look_for_leaks(self: &Rc<Self>, pool: PoolNumber) {
        let collector = &self.collector;
        let wanted = collector.leaks_wanted.borrow().contains(&pool);
        if !wanted || !collector.scanning.borrow_mut().insert(pool) {
            return;
        }
        let catalogue = self.clone();
        spawn_detached(async move {
            catalogue.scan_while_wanted(pool).await;
            catalogue.collector.scanning.borrow_mut().remove(&pool);
        });
    }

    async fn scan_while_wanted(self: &Rc<Self>, pool: PoolNumber) {
        let collector = &self.collector;
        while collector.leaks_wanted.borrow_mut().remove(&pool) {
            match self.scan_leaks(pool).await {
                Ok(()) => {
                    let mut leaks = collector.leaks.get();
                    leaks.ended += 1;
                    collector.leaks.set(leaks);
                }
                Err(_) if self.check_scanned(pool).is_err() => return,
                Err(error) => {
                    let text = format!("{pool}: looking for leaked objects: {error}");
                    collector.last_error.replace(Some(text));
                    if error.kind() == ErrorKind::Corrupt {
                        tracing::error!(%pool, %error, "leaked objects are not looked for");
                        return;
                    }
                    tracing::warn!(%pool, %error, "looking for leaked objects failed; trying again");
                    collector.leaks_wanted.borrow_mut().insert(pool);
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn scan_leaks(self: &Rc<Self>, pool: PoolNumber) -> Result<()> {
        let context = core_state()?.pool(pool)?;
        let scope = {
            let pools = self.pools.borrow();
            let entry = pools.get(&pool);
            let entry = entry.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such pool"))?;
            Scope {
                before: entry.before,
                resumable: entry.resumable.borrow().clone(),
            }
        };
        let catalogue = self.clone();
        let halted = move || catalogue.check_scanned(pool);
        let (meta, memory) = (self.meta.clone(), self.page_memory);
        let mut search = LeakSearch::new(meta, context.clone(), scope, memory, halted);
        while let Some(leaked) = search.next().await? {
            self.delete_leaked(&context, leaked).await?;
        }
        Ok(())
    }

    /// The daemon goes on, and the pool is there.
    fn check_scanned(&self, pool: PoolNumber) -> Result<()> {
        match self.stopping.get() || !self.pools.borrow().contains_key(&pool) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Closed,
                "the daemon is stopping, or the pool was removed",
            )),
        }
    }

    async fn delete_leaked(
        &self,
        context: &Rc<PoolContext>,
        mut leaked: BTreeSet<ObjectId>,
    ) -> Result<()> {
        let pool = context.number;
        while !leaked.is_empty() {
            while context.dead.len() > MAX_WAITING {
                self.check_scanned(pool)?;
                sleep(BUSY_PAUSE).await;
            }
            // A pool is removed, and the daemon stops, before this or after it.
            let _tree = self.lock_tree(pool).await?;
            self.check_scanned(pool)?;
            let some = std::iter::from_fn(|| leaked.pop_first()).take(DEAD_AT_ONCE);
            let some: Vec<ObjectId> = some.collect();
            let dead = runs(&some);
            let mut batch = Batch::new();
            batch.set_frees(true);
            put_dead(pool, &dead, &mut batch);
            // What a crash keeps from being done is found again.
            self.meta.commit(batch, Durability::Synced).await?;
            context.delete_later(&self.meta, dead, UsedBy::Anybody);
            tracing::info!(%pool, first = %some[0], count = some.len(), "leaked objects are deleted");
            let mut leaks = self.collector.leaks.get();
            leaks.found += some.len() as u64;
            self.collector.leaks.set(leaks);
        }
        Ok(())
    }
}
