//! Starting and stopping: what is read and written before the first verb and after the last I/O.

use super::pools::PoolFactory;
use super::tree::TreeEntry;
use super::{Catalogue, MapperConfig, PoolEntry, ResourceEntry, unix_seconds};
use crate::background::Background;
use crate::budget::Budget;
use crate::core_state::CoreState;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    CountRow, CounterKind, CounterRow, ExportRow, Key, KeyRange, NodeRow, ParsedKey, PoolRow,
    ResourceRow, Row, RunState, Slots, Superblock, Table, decode_page, decode_whole, open_row,
    unseal,
};
use crate::gc::resume_deletions;
use crate::handle::on_core;
use crate::meta::{Batch, Cursor, Durability, MetaStore, get_row};
use crate::types::{ENTRIES_PER_PAGE, InstanceId, NodeId, PageNo, PoolNumber, ResourceId};
use crate::volume::Nodes;
use crate::volume::outpost::Outposts;
use atoll_reactor::{CoreHandle, set_local, spawn_detached, take_local};
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Rows read at a time.
const SCAN_ROWS: usize = 512;

/// What the metadata store says of the runs before.
struct Runs {
    start: u64,
    unclean: u64,
}

/// Opens the catalogue on core 0 and the mapper's part of every core. Runs on core 0.
pub(crate) async fn start(
    meta: Arc<dyn MetaStore>,
    factory: Arc<dyn PoolFactory>,
    instance: InstanceId,
    cores: Vec<CoreHandle>,
    config: MapperConfig,
) -> Result<()> {
    let runs = begin_run(&*meta, instance).await?;
    let cores_count = u32::try_from(cores.len()).expect("a few");
    for core in &cores {
        let meta = meta.clone();
        on_core(core, move || async move {
            let budget = Rc::new(Budget::new(config.page_memory));
            let pools = Box::new(|number| crate::core_state::core_state()?.pool(number));
            let share = config.gc.max_iops.div_ceil(cores_count);
            set_local(Rc::new(CoreState {
                nodes: Nodes::new(meta.clone(), budget.clone(), pools),
                background: Rc::new(Background::new(share, config.gc.fill)),
                meta,
                budget,
                io_timeout: config.io_timeout,
                pools: RefCell::default(),
                volumes: RefCell::default(),
                outposts: Outposts::default(),
            }));
            Ok(())
        })
        .await?;
    }
    let counter = async |kind| -> Result<u64> {
        let row: Option<CounterRow> = get_row(&*meta, &Key::counter(kind)).await?;
        Ok(row.map_or(1, |row| row.next))
    };
    let catalogue = Rc::new(Catalogue {
        next_node: Cell::new(counter(CounterKind::Node).await?),
        next_pool: Cell::new(counter(CounterKind::PoolNumber).await?),
        next_ref: Cell::new(counter(CounterKind::Ref).await?),
        meta: meta.clone(),
        factory,
        cores,
        start: runs.start,
        unclean: runs.unclean,
        pools: RefCell::default(),
        resources: RefCell::default(),
        tree: RefCell::default(),
        collector: Default::default(),
        opening: Default::default(),
        io_timeout: config.io_timeout,
        page_memory: config.page_memory,
        names: RefCell::default(),
        exports: RefCell::default(),
        faulted: RefCell::default(),
        verb_runs: Cell::new(false),
        verbs: Default::default(),
        stopping: Cell::new(false),
    });
    set_local(catalogue.clone());
    catalogue.load().await
}

/// Reads the superblock (writes it where the store is new) and marks the run as unclean until it
/// has ended.
async fn begin_run(meta: &dyn MetaStore, instance: InstanceId) -> Result<Runs> {
    let superblock: Option<Superblock> = get_row(meta, &Key::superblock()).await?;
    let state: Option<RunState> = get_row(meta, &Key::run_state()).await?;
    let mut batch = Batch::new();
    if superblock.is_none() {
        batch.put_row(
            Key::superblock(),
            &Superblock::new(instance, unix_seconds()),
        );
    }
    let runs = match state {
        None => Runs {
            start: 1,
            unclean: 0,
        },
        Some(state) => {
            let start = state.starts + 1;
            Runs {
                start,
                unclean: if state.clean { state.unclean } else { start },
            }
        }
    };
    let state = RunState {
        clean: false,
        starts: runs.start,
        unclean: runs.unclean,
    };
    batch.put_row(Key::run_state(), &state);
    meta.commit(batch, Durability::Synced).await?;
    Ok(runs)
}

impl Catalogue {
    async fn load(self: &Rc<Self>) -> Result<()> {
        self.load_pools().await?;
        self.each_row(Table::Resource, |key, row: ResourceRow| {
            if let ParsedKey::Resource(id) = key {
                self.names.borrow_mut().insert(row.name.clone(), id);
                let entry = ResourceEntry::new(row);
                self.resources.borrow_mut().insert(id, entry);
            }
        })
        .await?;
        self.each_row(Table::Export, |key, row: ExportRow| {
            if let ParsedKey::Export(id, protocol) = key {
                self.exports.borrow_mut().insert((id, protocol), row);
            }
        })
        .await?;
        self.resume_nodes().await
    }

    async fn load_pools(self: &Rc<Self>) -> Result<()> {
        let mut found = Vec::new();
        self.each_row(Table::Pool, |key, row: PoolRow| {
            if let ParsedKey::Pool(number) = key {
                found.push((number, row));
            }
        })
        .await?;
        for (number, row) in found {
            let entry: PoolEntry = self.open_pool(number, row).await?;
            self.settle_pool(number, &entry).await?;
            self.pools.borrow_mut().insert(number, entry);
            let home = self.cores[number.get() as usize % self.cores.len()].clone();
            on_core(&home, move || async move {
                let state = crate::core_state::core_state()?;
                resume_deletions(&state, &state.pool(number)?).await
            })
            .await?;
        }
        Ok(())
    }

    /// After an unclean stop the killed daemon's writes are there and may be read, but no flush of
    /// this run knows of them: they are made durable before one is answered (M4).
    async fn settle_pool(&self, number: PoolNumber, entry: &PoolEntry) -> Result<()> {
        if self.unclean != self.start {
            return Ok(());
        }
        let store = crate::core_state::core_state()?.pool(number)?.store.clone();
        store.sync_all().await.map_err(|error| {
            let name = &entry.row.name;
            let what = format!("pool \"{name}\": what was written before an unclean stop");
            Error::from(error).during(what)
        })
    }

    /// Reads the tree, and takes up what was being done when the last run ended.
    async fn resume_nodes(self: &Rc<Self>) -> Result<()> {
        let mut rows: Vec<(NodeId, NodeRow)> = Vec::new();
        self.each_row(Table::Node, |key, row: NodeRow| {
            if let ParsedKey::Node(node) = key {
                rows.push((node, row));
            }
        })
        .await?;
        let named: HashMap<NodeId, ResourceId> = {
            let resources = self.resources.borrow();
            resources.iter().map(|(id, e)| (e.row.node, *id)).collect()
        };
        self.count_old_nodes(&rows).await?;
        let mut trims = Vec::new();
        // A parent's number is lower than its children's.
        for (node, row) in rows {
            if let Some(generation) = row.current
                && row.run >= self.unclean
                && let Some(entry) = self.pools.borrow().get(&row.pool)
            {
                entry.resumable.borrow_mut().insert(generation);
            }
            if row.faulted {
                self.faulted.borrow_mut().insert(node);
            }
            let resource = named.get(&node).copied();
            let home = {
                let tree = self.tree.borrow();
                match row.parent {
                    Some(parent) => tree.get(parent)?.home,
                    None => self.home_of_root(node, resource),
                }
            };
            let entry = TreeEntry {
                pool: row.pool,
                state: row.state,
                parent: row.parent,
                children: Default::default(),
                resource,
                home,
            };
            self.tree.borrow_mut().insert(node, entry);
            if let Some(id) = resource.filter(|_| row.trim.is_some()) {
                trims.push(id);
            }
        }
        for id in trims {
            // Opening takes the trim up.
            self.open_resource(id).await?;
        }
        let pools: Vec<PoolNumber> = self.pools.borrow().keys().copied().collect();
        for pool in pools {
            self.collector.unswept.borrow_mut().insert(pool);
            if self.unclean == self.start && self.knows_all_of(pool) {
                self.collector.leaks_wanted.borrow_mut().insert(pool);
            }
            self.collect(pool);
        }
        Ok(())
    }

    /// False if the pool says that generations were reserved of which the catalogue does not know: mostly because the
    /// daemon died meanwhile, but it may be an old copy. Then nothing is taken for leaked unless somebody asks for it.
    fn knows_all_of(&self, pool: PoolNumber) -> bool {
        let pools = self.pools.borrow();
        let Some(entry) = pools.get(&pool) else {
            return false;
        };
        let knows = entry.mark.get() <= entry.before;
        if !knows {
            let name = &entry.row.name;
            tracing::warn!(pool = %name, "the pool's mark is ahead of the catalogue's: leaked objects are not looked for, except by `atoll gc run`");
        }
        knows
    }

    /// Where a tree is at home: a plain volume as it was when it was made.
    fn home_of_root(&self, root: NodeId, resource: Option<ResourceId>) -> u16 {
        let cores = self.cores.len() as u64;
        match resource {
            Some(id) => self.home_of_new(id),
            None => u16::try_from(root.get() % cores).expect("below the number of cores"),
        }
    }

    /// Nodes that were made before their objects were counted get their count.
    async fn count_old_nodes(&self, nodes: &[(NodeId, NodeRow)]) -> Result<()> {
        let mut counted: HashSet<NodeId> = HashSet::new();
        self.each_row(Table::Usage, |key, _: CountRow| {
            if let ParsedKey::Usage(node) = key {
                counted.insert(node);
            }
        })
        .await?;
        for (node, _) in nodes.iter().filter(|(node, _)| !counted.contains(node)) {
            let count = mapped_objects(&*self.meta, *node).await?;
            let mut batch = Batch::new();
            batch.put_row(Key::usage(*node), &CountRow { count });
            self.meta.commit(batch, Durability::Unsynced).await?;
        }
        Ok(())
    }

    /// Calls `each` with every row of a table.
    pub(super) async fn each_row<R: Row>(
        &self,
        table: Table,
        mut each: impl FnMut(ParsedKey, R),
    ) -> Result<()> {
        let mut rows = Cursor::new(KeyRange::prefix(table));
        loop {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                return Ok(());
            }
            for (key, value) in pairs {
                let row = open_row(&key, &value)?;
                let parsed = Key::parse(&key).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Corrupt,
                        "a row of the catalogue has a malformed key",
                    )
                })?;
                each(parsed, row);
            }
        }
    }

    /// Makes everything durable and marks the run as ended cleanly. Nothing is served any more.
    pub(crate) async fn stop(self: &Rc<Self>) -> Result<()> {
        let _verb = self.verb().await?;
        self.stopping.set(true);
        let mut clean = true;
        let pools: Vec<PoolNumber> = self.pools.borrow().keys().copied().collect();
        let mut trees = Vec::new();
        for pool in pools {
            // A step of the collector that has begun ends first.
            match self.lock_tree(pool).await {
                Ok(tree) => trees.push(tree),
                Err(error) => {
                    tracing::error!(%pool, %error, "its collector could not be stopped");
                    clean = false;
                }
            }
        }
        let open: Vec<_> = {
            let resources = self.resources.borrow();
            let opened = |(id, e): (&_, &ResourceEntry)| {
                e.open
                    .borrow()
                    .as_ref()
                    .map(|(home, _)| (*id, home.clone()))
            };
            resources.iter().filter_map(opened).collect()
        };
        let run = self.start;
        for (id, home) in open {
            let ended = on_core(&home, move || async move {
                let state = crate::core_state::core_state()?;
                let volume = state.volume(id)?;
                if volume.is_untouched() || volume.is_read_only() {
                    // An earlier run left it faulted, or it is a snapshot: nothing of it is to be written.
                    volume.dismiss_peers();
                    state.volumes.borrow_mut().remove(&id);
                    return Ok(());
                }
                let row = volume.retire(run).await?;
                let mut batch = Batch::new();
                batch.set_frees(true);
                batch.put_row(Key::node(volume.node()), &row);
                state.meta.commit(batch, Durability::Unsynced).await?;
                volume.dismiss_peers();
                state.volumes.borrow_mut().remove(&id);
                Ok(())
            })
            .await;
            if let Err(error) = ended {
                tracing::error!(volume = %id, %error, "the volume could not be closed cleanly");
                clean = false;
            }
        }
        if clean {
            let mut batch = Batch::new();
            batch.set_frees(true);
            let state = RunState {
                clean: true,
                starts: self.start,
                unclean: self.unclean,
            };
            batch.put_row(Key::run_state(), &state);
            self.meta.commit(batch, Durability::Synced).await?;
        }
        for core in &self.cores {
            on_core(core, || async {
                take_local::<CoreState>();
                Ok(())
            })
            .await?;
        }
        self.meta.close().await?;
        spawn_detached(async {
            take_local::<Catalogue>();
        });
        match clean {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Io,
                "not every volume could be closed cleanly; the next start treats this one as a crash",
            )),
        }
    }
}

/// Entries of a node's committed map that name an object.
async fn mapped_objects(meta: &dyn MetaStore, node: NodeId) -> Result<i64> {
    let named = |slots: &Slots| slots.iter().filter(|entry| entry.names_object()).count();
    let mut count = 0;
    let mut groups = Cursor::new(KeyRange::groups_of(node));
    loop {
        let pairs = groups.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            break;
        }
        for (key, value) in pairs {
            count += named(&*decode_whole(unseal(&key, &value)?)?) * ENTRIES_PER_PAGE;
        }
    }
    let mut pages = Cursor::new(KeyRange::pages_of(node, PageNo::ZERO));
    loop {
        let pairs = pages.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            return Ok(i64::try_from(count).expect("fewer than 2^40"));
        }
        for (key, value) in pairs {
            count += named(&*decode_page(unseal(&key, &value)?)?);
        }
    }
}
