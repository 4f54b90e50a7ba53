//! More at once than the ring takes: everything ends, nothing is lost.
mod common;

use atoll_reactor::fs::{File, OpenOptions};
use atoll_reactor::{Buf, SharedBuf, spawn};
use common::run;

#[test]
fn more_operations_than_the_ring_has_room_for_all_end() {
    const BLOCKS: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    run(move || async move {
        let options = OpenOptions {
            create: true,
            ..OpenOptions::read_write()
        };
        let file = File::open(&path, options).await.unwrap();
        let writes: Vec<_> = (0..BLOCKS)
            .map(|number| {
                let file = file.clone();
                spawn(async move {
                    let data = SharedBuf::copy_of(&number.to_le_bytes());
                    file.write_all_at(data, number * 8).await.unwrap();
                })
            })
            .collect();
        for write in writes {
            write.await;
        }
        let reads: Vec<_> = (0..BLOCKS)
            .map(|number| {
                let file = file.clone();
                spawn(async move {
                    let (count, buf) = file.read_at(Buf::alloc(8), number * 8).await;
                    assert_eq!(count.unwrap(), 8);
                    assert_eq!(*buf, number.to_le_bytes());
                })
            })
            .collect();
        for read in reads {
            read.await;
        }
    });
}
