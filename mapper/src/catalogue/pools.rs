//! Pools: adding, opening, listing, removing, and reserving their generations.

use super::{Catalogue, ChunkSource, PoolEntry};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    CountRow, CounterKind, CounterRow, Key, KeyRange, MarkRow, PoolKind, PoolRow, Table,
};
use crate::gc::DeadQueue;
use crate::handle::on_core;
use crate::meta::{Batch, Cursor, Durability, get_row};
use crate::pool::{GENERATION_CHUNK, Generations, PoolContext};
use crate::refs::Refs;
use crate::types::{PoolNumber, ResourceName};
use atoll_backends::{Capacity, Generation, ObjectSize, Pool, PoolId};
use atoll_reactor::LocalFuture;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Rows deleted at a time.
const DELETE_ROWS: usize = 512;

/// Opens the stores of pools: the composition's part.
pub trait PoolFactory: Send + Sync {
    /// Opens a pool exclusively. `unused` says that no generation of it was ever reserved: it is created
    /// where it does not exist yet.
    fn open(&self, row: &PoolRow, unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>>;
}

/// What a new pool is made of.
#[derive(Clone, Debug)]
pub struct NewPool {
    pub name: ResourceName,
    pub id: PoolId,
    pub kind: PoolKind,
    pub object_size: ObjectSize,
    /// The factory's own, kept as it is.
    pub options: String,
}

/// A pool as admins see it.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    pub number: PoolNumber,
    pub row: PoolRow,
    pub volumes: usize,
    /// `None` where the pool did not tell.
    pub capacity: Option<Capacity>,
    /// Objects that wait for deletion.
    pub dead_objects: u64,
}

impl Catalogue {
    pub(crate) async fn add_pool(self: &Rc<Self>, new: NewPool) -> Result<PoolInfo> {
        let _verb = self.verb().await?;
        if self.pool_named(&new.name).is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a pool \"{}\" already", new.name),
            ));
        }
        let next = self.next_pool.get();
        let number = u32::try_from(next)
            .ok()
            .and_then(PoolNumber::new)
            .ok_or_else(|| Error::new(ErrorKind::NoSpace, "the numbers of pools are used up"))?;
        let row = PoolRow {
            id: new.id,
            kind: new.kind,
            object_size: new.object_size,
            name: new.name,
            options: new.options,
        };
        self.next_pool.set(next + 1);
        // The catalogue first: a pool directory that nobody knows could not be used again.
        let mut batch = Batch::new();
        batch.put_row(
            Key::counter(CounterKind::PoolNumber),
            &CounterRow { next: next + 1 },
        );
        batch.put_row(Key::pool(number), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        match self.open_pool(number, row).await {
            Ok(entry) => {
                self.pools.borrow_mut().insert(number, entry);
                // From now on it is in use: should its directory vanish, it is not made anew.
                self.reserve_chunk(number).await?;
                self.pool_info(number).await
            }
            Err(error) => {
                let mut batch = Batch::new();
                batch.delete(Key::pool(number));
                self.meta.commit(batch, Durability::Synced).await?;
                Err(error)
            }
        }
    }

    /// Opens a pool and gives every core its access.
    pub(super) async fn open_pool(&self, number: PoolNumber, row: PoolRow) -> Result<PoolEntry> {
        let kept: Option<MarkRow> = get_row(&*self.meta, &Key::mark(number)).await?;
        let kept = kept.map_or(Generation::ZERO, |mark| mark.reserved_below);
        let naming = |error: Error| error.during(format!("pool \"{}\"", row.name));
        let pool = self
            .factory
            .open(&row, kept == Generation::ZERO)
            .await
            .map_err(naming)?;
        if row.kind == PoolKind::Memory {
            self.forget_maps(number).await?;
        }
        for core in &self.cores {
            let (pool, object_size) = (pool.clone(), row.object_size);
            let catalogue = self.cores[0].clone();
            on_core(core, move || async move {
                let store = pool.attach().await?;
                let context = PoolContext {
                    number,
                    object_size,
                    store,
                    generations: Generations::new(ChunkSource {
                        catalogue,
                        pool: number,
                    }),
                    dead: DeadQueue::default(),
                    refs: Refs::new(number),
                };
                core_state()?
                    .pools
                    .borrow_mut()
                    .insert(number, Rc::new(context));
                Ok(())
            })
            .await
            .map_err(naming)?;
        }
        let store = core_state()?.pool(number)?.store.clone();
        let own = store.reserved_generations().await?;
        Ok(PoolEntry {
            row,
            _pool: pool,
            mark: Cell::new(own.max(kept)),
            kept: Cell::new(own.max(kept)),
            before: kept,
            resumable: RefCell::default(),
        })
    }

    /// A pool in memory is empty after a start: what the maps name of it is gone with it.
    async fn forget_maps(&self, pool: PoolNumber) -> Result<()> {
        let mut nodes = Vec::new();
        self.each_row(Table::Node, |key, row: crate::format::NodeRow| {
            if let crate::format::ParsedKey::Node(node) = key
                && row.pool == pool
            {
                nodes.push(node);
            }
        })
        .await?;
        let mut ranges = vec![
            KeyRange::partials_of(pool),
            KeyRange::dead_of(pool),
            KeyRange::objects_of(pool),
            KeyRange::counts_of(pool),
            KeyRange::contents_of(pool),
        ];
        let mut batch = Batch::new();
        for node in nodes {
            batch.put_row(Key::usage(node), &CountRow { count: 0 });
            ranges.push(KeyRange::groups_of(node));
            ranges.push(KeyRange::pages_of(node, crate::types::PageNo::ZERO));
        }
        for range in ranges {
            self.delete_range(range).await?;
        }
        self.meta.commit(batch, Durability::Unsynced).await
    }

    async fn delete_range(&self, range: KeyRange) -> Result<()> {
        let mut rows = Cursor::new(range);
        loop {
            let pairs = rows.next(&*self.meta, DELETE_ROWS).await?;
            if pairs.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.set_frees(true);
            pairs
                .iter()
                .for_each(|(key, _)| batch.delete(Key::from_bytes(key)));
            self.meta.commit(batch, Durability::Unsynced).await?;
        }
    }

    /// Reserves a chunk of generations, durably in the catalogue and in the pool, and returns its start.
    pub(super) async fn reserve_chunk(self: &Rc<Self>, number: PoolNumber) -> Result<Generation> {
        let exhausted = || {
            Error::new(
                ErrorKind::NoSpace,
                "the pool's 2^52 generations are used up",
            )
        };
        let (start, end) = {
            let pools = self.pools.borrow();
            let entry = pools.get(&number).ok_or_else(|| no_pool(number))?;
            // Generation 0 is no object's.
            let start = entry
                .mark
                .get()
                .max(Generation::new(1).ok_or_else(exhausted)?);
            let end = start.plus(GENERATION_CHUNK).ok_or_else(exhausted)?;
            // Taken in this turn, so that no two chunks overlap; one that fails below is left out.
            entry.mark.set(end);
            (start, end)
        };
        core_state()?
            .pool(number)?
            .store
            .reserve_generations(end)
            .await?;
        // A later chunk may have come to here before this one. The highest is taken in the turn of the
        // commit's call, so that no commit lowers the mark of one before it.
        let reserved_below = {
            let pools = self.pools.borrow();
            let entry = pools.get(&number).ok_or_else(|| no_pool(number))?;
            entry.kept.set(entry.kept.get().max(end));
            entry.kept.get()
        };
        let mut batch = Batch::new();
        batch.put_row(Key::mark(number), &MarkRow { reserved_below });
        self.meta.commit(batch, Durability::Synced).await?;
        Ok(start)
    }

    pub(super) fn pool_named(&self, name: &ResourceName) -> Option<PoolNumber> {
        let pools = self.pools.borrow();
        pools
            .iter()
            .find(|(_, entry)| entry.row.name == *name)
            .map(|(number, _)| *number)
    }

    pub(crate) async fn pool_by_name(&self, name: &ResourceName) -> Result<PoolInfo> {
        let number = self
            .pool_named(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no pool \"{name}\"")))?;
        self.pool_info(number).await
    }

    pub(crate) async fn list_pools(&self) -> Result<Vec<PoolInfo>> {
        let mut numbers: Vec<(ResourceName, PoolNumber)> = {
            let pools = self.pools.borrow();
            pools
                .iter()
                .map(|(number, entry)| (entry.row.name.clone(), *number))
                .collect()
        };
        numbers.sort();
        let mut infos = Vec::new();
        for (_, number) in numbers {
            infos.push(self.pool_info(number).await?);
        }
        Ok(infos)
    }

    async fn pool_info(&self, number: PoolNumber) -> Result<PoolInfo> {
        let row = {
            let pools = self.pools.borrow();
            pools
                .get(&number)
                .ok_or_else(|| no_pool(number))?
                .row
                .clone()
        };
        let volumes = self
            .resources
            .borrow()
            .values()
            .filter(|entry| entry.row.pool == number)
            .count();
        let context = core_state()?.pool(number)?;
        let capacity = context.store.capacity().await.ok();
        let mut dead_objects = 0;
        for core in &self.cores {
            dead_objects += on_core(core, move || async move {
                Ok(core_state()?.pool(number)?.dead.len())
            })
            .await?;
        }
        Ok(PoolInfo {
            number,
            row,
            volumes,
            capacity,
            dead_objects,
        })
    }

    pub(crate) async fn remove_pool(self: &Rc<Self>, name: &ResourceName) -> Result<()> {
        let _verb = self.verb().await?;
        let number = self.pool_by_name(name).await?.number;
        // The leak scan adds dead objects before this, or sees that the pool is gone.
        let _tree = self.lock_tree(number).await?;
        let info = self.pool_info(number).await?;
        if info.volumes > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("it holds {} volume(s); delete them first", info.volumes),
            ));
        }
        let mut dying = 0;
        self.each_row(Table::Node, |_, row: crate::format::NodeRow| {
            dying += usize::from(row.pool == info.number);
        })
        .await?;
        if dying > 0 || info.dead_objects > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                "objects of deleted volumes are still being removed; try again later",
            ));
        }
        let mut batch = Batch::new();
        batch.delete(Key::pool(info.number));
        batch.delete(Key::mark(info.number));
        self.meta.commit(batch, Durability::Synced).await?;
        self.pools.borrow_mut().remove(&info.number);
        for core in &self.cores {
            let number = info.number;
            on_core(core, move || async move {
                core_state()?.pools.borrow_mut().remove(&number);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn no_pool(number: PoolNumber) -> Error {
    Error::new(ErrorKind::NotFound, format!("no pool {number}"))
}
