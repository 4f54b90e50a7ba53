//! Marks of faulted volumes, of a stopped store: which pools have them, and clearing them after a
//! check. That the volumes are whole is for the caller to know.

use crate::error::Result;
use crate::format::{Key, KeyRange, NodeRow, ParsedKey, ResourceRow, Table, open_row};
use crate::meta::{Batch, Cursor, Durability, MetaReader, MetaStore};
use crate::types::{NodeId, PoolNumber, ResourceName};
use std::collections::{BTreeMap, BTreeSet};

/// Rows read at a time.
const SCAN_ROWS: usize = 512;

/// The pools of volumes that are marked as faulted.
pub async fn faulted_pools(meta: &dyn MetaReader) -> Result<BTreeSet<PoolNumber>> {
    Ok(marked(meta).await?.values().map(|row| row.pool).collect())
}

/// Takes the mark from every faulted volume in these pools, in one durable batch, and names them.
///
/// The caller has read all their objects without finding an error, and then made the pools durable.
pub async fn clear_faults(
    meta: &dyn MetaStore,
    pools: &BTreeSet<PoolNumber>,
) -> Result<Vec<ResourceName>> {
    let mut nodes = marked(meta).await?;
    nodes.retain(|_, row| pools.contains(&row.pool));
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let mut batch = Batch::new();
    batch.set_frees(true);
    for (node, row) in &nodes {
        let row = NodeRow {
            faulted: false,
            ..*row
        };
        batch.put_row(Key::node(*node), &row);
    }
    let mut names = Vec::new();
    let mut rows = Cursor::new(KeyRange::prefix(Table::Resource));
    loop {
        let pairs = rows.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            break;
        }
        for (key, value) in pairs {
            let row: ResourceRow = open_row(&key, &value)?;
            if nodes.contains_key(&row.node) {
                names.push(row.name);
            }
        }
    }
    meta.commit(batch, Durability::Synced).await?;
    names.sort_unstable();
    Ok(names)
}

async fn marked(meta: &dyn MetaReader) -> Result<BTreeMap<NodeId, NodeRow>> {
    let mut nodes = BTreeMap::new();
    let mut rows = Cursor::new(KeyRange::prefix(Table::Node));
    loop {
        let pairs = rows.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            return Ok(nodes);
        }
        for (key, value) in pairs {
            let row: NodeRow = open_row(&key, &value)?;
            if let Some(ParsedKey::Node(node)) = Key::parse(&key)
                && row.faulted
            {
                nodes.insert(node, row);
            }
        }
    }
}
