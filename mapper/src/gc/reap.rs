//! Deleting a dying node: its objects at the store, then its rows, page by page, then the node. A crash repeats the
//! deletions of one page, which is harmless.

use super::quiesce_all;
use crate::core_state::core_state;
use crate::error::Result;
use crate::format::{
    Below, CountRow, Entry, EntryKind, Key, KeyRange, ParsedKey, PartialRow, Slots, decode_page,
    decode_whole, encode_delta, unseal,
};
use crate::meta::{Batch, Cursor, Durability, MetaStore, get_row};
use crate::pool::PoolContext;
use crate::types::{ENTRIES_PER_PAGE, NodeId, PageNo, PoolNumber, RefId};
use atoll_backends::ObjectId;
use std::rc::Rc;
use std::sync::Arc;

/// Rows read at a time.
const SCAN_ROWS: usize = 64;

/// Deletes a dying node, on the core that its tree is at home on.
pub(crate) async fn reap_node(pool: PoolNumber, node: NodeId) -> Result<()> {
    // Whoever began before it was dropped may still read it.
    quiesce_all().await?;
    let state = core_state()?;
    state.nodes.finished(node);
    let reaper = Reaper {
        meta: state.meta.clone(),
        pool: state.pool(pool)?,
        node,
    };
    reaper.run().await
}

struct Reaper {
    meta: Arc<dyn MetaStore>,
    pool: Rc<PoolContext>,
    node: NodeId,
}

/// What a page names.
#[derive(Default)]
struct Named {
    objects: Vec<ObjectId>,
    records: Vec<ObjectId>,
    references: Vec<RefId>,
    entries: i64,
}

impl Reaper {
    async fn run(&self) -> Result<()> {
        let mut rows = Cursor::new(KeyRange::groups_of(self.node));
        loop {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                break;
            }
            for (key, value) in pairs {
                let slots = decode_whole(unseal(&key, &value)?)?;
                if let Some(ParsedKey::Group(_, group)) = Key::parse(&key) {
                    for (place, entry) in slots.iter().enumerate() {
                        if *entry != Entry::ABSENT {
                            self.reap_page(group.page(place), *entry).await?;
                        }
                    }
                }
                let mut batch = self.batch();
                batch.delete(Key::from_bytes(&key));
                self.meta.commit(batch, Durability::Unsynced).await?;
            }
        }
        let mut batch = self.batch();
        batch.delete(Key::usage(self.node));
        batch.delete(Key::node(self.node));
        self.meta.commit(batch, Durability::Synced).await
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch
    }

    async fn reap_page(&self, page: PageNo, entry: Entry) -> Result<()> {
        let key = Key::page(self.node, page);
        let slots = match entry.kind() {
            EntryKind::Row => match self.meta.get(&key).await? {
                Some(value) => decode_page(unseal(&key, &value)?)?,
                // Deleted before a crash, its group's slot not yet.
                None => return Ok(()),
            },
            _ => Box::new([entry; ENTRIES_PER_PAGE]),
        };
        let named = self.named(page, &slots).await?;
        let records = self.pool.delete_objects(named.objects.into_iter()).await?;
        let mut batch = self.batch();
        for object in named.records {
            batch.delete(Key::partial(self.pool.number, object));
        }
        for reference in &named.references {
            let one_less = CountRow { count: -1 };
            batch.merge_row(Key::count(self.pool.number, *reference), &one_less);
        }
        batch.delete(key);
        let place = u16::try_from(page.group_slot()).expect("below 512");
        let gone = encode_delta(std::iter::once((place, Entry::ABSENT)));
        batch.merge(Key::group(self.node, page.group()), gone);
        let fewer = CountRow {
            count: -named.entries,
        };
        batch.merge_row(Key::usage(self.node), &fewer);
        self.pool
            .commit_deletions(&*self.meta, batch, &records)
            .await?;
        self.pool.refs.dropped(named.references);
        Ok(())
    }

    async fn named(&self, page: PageNo, slots: &Slots) -> Result<Named> {
        let mut named = Named::default();
        for (slot, entry) in slots.iter().enumerate() {
            named.entries += i64::from(entry.names_object());
            match entry.kind() {
                EntryKind::Ref(reference) => named.references.push(reference),
                EntryKind::Object(generation) => {
                    let id = ObjectId::new(generation, page.index(slot));
                    named.objects.push(id);
                    if entry.is_partial() {
                        self.below(id, &mut named).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(named)
    }

    /// What lies explicitly below a partial object.
    async fn below(&self, top: ObjectId, named: &mut Named) -> Result<()> {
        let mut id = top;
        loop {
            let key = Key::partial(self.pool.number, id);
            let record: Option<PartialRow> = get_row(&*self.meta, &key).await?;
            let Some(record) = record else {
                // Complete, or the record went with a batch before a crash.
                return Ok(());
            };
            named.records.push(id);
            match record.below {
                Below::Implicit | Below::Zeros => return Ok(()),
                Below::Ref(reference) => {
                    named.references.push(reference);
                    return Ok(());
                }
                Below::Object(below) => {
                    named.objects.push(below);
                    id = below;
                }
            }
        }
    }
}
