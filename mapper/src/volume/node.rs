//! A node of the tree of maps in memory, and the nodes that a core has loaded. All nodes of a tree are at home on one
//! core. What volumes do with them is not their business.

use super::merge::Left;
use super::partials::Partials;
use super::table::PageTable;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Key, NodeRow};
use crate::local::Gate;
use crate::meta::{MetaStore, get_row};
use crate::pool::PoolContext;
use crate::types::NodeId;
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

pub(crate) struct Node {
    id: NodeId,
    row: RefCell<NodeRow>,
    /// Loaded when it is needed first.
    parent: RefCell<Option<Rc<Node>>>,
    pub(super) table: Rc<PageTable>,
    pub(super) partials: Rc<Partials>,
    /// Frozen, and operations that began before have not ended: they still change it.
    pub(super) draining: Cell<bool>,
    /// A commit of it is under way.
    pub(super) committing: Cell<bool>,
    /// A volume's next flush commits it, or its row.
    pub(super) pledged: Cell<bool>,
    /// Indexes below this one show nothing of an ancestor: a flattening has come so far.
    pub(super) flattened: Cell<u64>,
    /// Closed by who moves entries of it, or commits changes of it while no volume does.
    pub(super) changes: Rc<Gate>,
    /// Of its merge into a frozen child, and not durable yet.
    pub(super) left: RefCell<Left>,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn row(&self) -> NodeRow {
        *self.row.borrow()
    }

    pub(super) fn set_row(&self, row: NodeRow) {
        self.row.replace(row);
    }

    /// The row that is durable now. The head may have taken a generation, or given one up, while it was written: what was
    /// given up never comes back (M3).
    pub(super) fn row_written(&self, row: NodeRow) {
        let current = self.row.borrow().current;
        self.row.replace(NodeRow { current, ..row });
    }

    pub(super) fn has_parent(&self) -> bool {
        self.row.borrow().parent.is_some()
    }

    /// Bytes; what lies beyond is not asked of the parent.
    pub(super) fn inherit_end(&self) -> u64 {
        let row = self.row.borrow();
        match row.parent {
            Some(_) => row.inherit_end,
            None => 0,
        }
    }

    pub(super) async fn parent(&self, nodes: &Nodes) -> Result<Option<Rc<Node>>> {
        loop {
            let Some(id) = self.row.borrow().parent else {
                return Ok(None);
            };
            if let Some(parent) = &*self.parent.borrow()
                && parent.id == id
            {
                return Ok(Some(parent.clone()));
            }
            match nodes.get(id).await {
                Ok(parent) => {
                    self.parent.replace(Some(parent));
                }
                // It was merged away while its row was read.
                Err(_) if self.row.borrow().parent != Some(id) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Somebody changes it, or commits what was changed.
    pub(super) fn is_busy(&self) -> bool {
        self.draining.get() || self.committing.get() || self.pledged.get() || self.is_dirty()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.table.dirty_pages() > 0 || self.partials.is_dirty()
    }
}

impl Drop for Node {
    /// One after the other: chains may be long, and the stack is not.
    fn drop(&mut self) {
        let mut next = self.parent.get_mut().take();
        while let Some(mut node) = next.and_then(Rc::into_inner) {
            next = node.parent.get_mut().take();
        }
    }
}

/// The nodes that a core has in memory.
pub(crate) struct Nodes {
    meta: Arc<dyn MetaStore>,
    budget: Rc<Budget>,
    pools: Pools,
    by_id: RefCell<HashMap<NodeId, Weak<Node>>>,
    /// Raised in every turn in which entries move between nodes.
    moves: Cell<u64>,
    /// Parents and children of merges that are not durable, by the parent: what one has lost is in the other.
    unfinished: RefCell<HashMap<NodeId, [Rc<Node>; 2]>>,
}

type Pools = Box<dyn Fn(crate::types::PoolNumber) -> Result<Rc<PoolContext>>>;

/// Loaded nodes above which those that nobody holds are looked for.
const MIN_SWEEP: usize = 256;

impl Nodes {
    pub(crate) fn new(meta: Arc<dyn MetaStore>, budget: Rc<Budget>, pools: Pools) -> Rc<Nodes> {
        Rc::new(Nodes {
            meta,
            budget,
            pools,
            by_id: RefCell::default(),
            moves: Cell::new(0),
            unfinished: RefCell::default(),
        })
    }

    /// A look-up over more than one node is true if this is at its end what it was at its beginning.
    pub(super) fn moves(&self) -> u64 {
        self.moves.get()
    }

    /// Entries move between nodes, or the tree changes, in this turn.
    pub(crate) fn moved(&self) {
        self.moves.set(self.moves.get() + 1);
    }

    /// Both stay in memory until what was moved between them is durable.
    pub(super) fn keep(&self, parent: &Rc<Node>, child: &Rc<Node>) {
        let both = [parent.clone(), child.clone()];
        self.unfinished.borrow_mut().insert(parent.id, both);
    }

    /// What was moved out of a node is durable, or the node goes as it is in the metadata store.
    pub(crate) fn finished(&self, parent: NodeId) {
        let both = self.unfinished.borrow_mut().remove(&parent);
        drop(both);
    }

    pub(crate) fn loaded(&self, id: NodeId) -> Option<Rc<Node>> {
        self.by_id.borrow().get(&id)?.upgrade()
    }

    pub(crate) async fn get(&self, id: NodeId) -> Result<Rc<Node>> {
        if let Some(node) = self.loaded(id) {
            return Ok(node);
        }
        let row: Option<NodeRow> = get_row(&*self.meta, &Key::node(id)).await?;
        if let Some(node) = self.loaded(id) {
            return Ok(node);
        }
        let row = row.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the row of {id} is missing; run `atoll fsck`"),
            )
        })?;
        self.add(id, row)
    }

    /// A node that is new, or was read just now.
    pub(super) fn add(&self, id: NodeId, row: NodeRow) -> Result<Rc<Node>> {
        let pool = (self.pools)(row.pool)?;
        let (meta, budget) = (&self.meta, &self.budget);
        let node = Rc::new(Node {
            id,
            row: RefCell::new(row),
            parent: RefCell::default(),
            table: PageTable::new(id, meta.clone(), budget.clone()),
            partials: Partials::new(pool.number, pool.object_size, meta.clone(), budget.clone()),
            draining: Cell::new(false),
            committing: Cell::new(false),
            pledged: Cell::new(false),
            flattened: Cell::new(0),
            changes: Rc::default(),
            left: RefCell::default(),
        });
        let mut by_id = self.by_id.borrow_mut();
        if by_id.len() >= MIN_SWEEP && by_id.len() == by_id.capacity() {
            by_id.retain(|_, node| node.strong_count() > 0);
        }
        by_id.insert(id, Rc::downgrade(&node));
        Ok(node)
    }
}
