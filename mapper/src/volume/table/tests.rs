//! The page table beside a metadata store, without a volume: pages go while their groups stay.

use super::*;
use crate::meta::{Durability, SimMeta};
use atoll_backends::Generation;
use atoll_reactor::sim::Sim;

fn object(generation: u64) -> Entry {
    Entry::object(Generation::new(generation).expect("52 bits"))
}

/// Sets slots of page 0, commits, and evicts the page; its group stays.
async fn change(table: &PageTable, meta: &SimMeta, changes: &[(u16, Entry)]) {
    let page_no = PageNo::ZERO;
    let page = table.page(page_no).await.expect("readable");
    for (slot, entry) in changes {
        table.set(page_no, &page, *slot, *entry);
    }
    drop(page);
    let copy = table.take_dirty();
    let mut batch = Batch::new();
    table.encode(&copy, &mut batch);
    let committed = meta.commit(batch, Durability::Synced).await;
    committed.expect("committed");
    table.committed(copy);
    assert!(matches!(
        table.evict(u64::from(page_no.get())),
        Eviction::Done
    ));
    assert!(table.holds(GROUP_TOKEN), "the group is resident");
}

#[test]
fn after_a_commit_and_the_eviction_of_its_page_a_resident_group_shows_what_was_committed() {
    Sim::new(1, 1).block_on(async {
        let meta = SimMeta::new(1);
        let budget = Rc::new(Budget::new(1 << 20));
        let node = NodeId::new(1).expect("not 0");
        let table = PageTable::new(node, Arc::new(meta.clone()), budget);
        let all = |entry| (0..SLOTS as u16).map(move |slot| (slot, entry));
        let steps: [Vec<(u16, Entry)>; 5] = [
            // Absent to a row of its own, the row changed, to uniform, to another uniform, to a row.
            vec![(3, object(1))],
            vec![(3, object(2)), (4, object(1))],
            all(object(3)).collect(),
            all(Entry::HOLE).collect(),
            vec![(9, object(4))],
        ];
        let mut expected = [Entry::ABSENT; SLOTS];
        for changes in steps {
            change(&table, &meta, &changes).await;
            for (slot, entry) in changes {
                expected[usize::from(slot)] = entry;
            }
            for (slot, entry) in expected.iter().enumerate() {
                let index = PageNo::ZERO.index(slot);
                let found = table.lookup(index).await.expect("readable");
                assert_eq!(found, *entry, "slot {slot}");
            }
            // What was looked up is evicted again, where there was a row to read.
            table.evict(u64::from(PageNo::ZERO.get()));
        }
    });
}
