use crate::harness::{BLOCK, Life, OBJECT, World, blocks, byte_at, name, with_seeds};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{NewClone, NewSnapshot};
use atoll_reactor::sleep;
use std::time::Duration;

async fn snapshot(life: &Life, number: u128, volume: &str, text: &str) {
    let new = NewSnapshot { id: ResourceId(number.to_be_bytes()), volume: name(volume), name: name(text) };
    life.mapper.create_snapshots(vec![new]).await.expect("a snapshot");
}
async fn clone(life: &Life, number: u128, snapshot: &str, text: &str) {
    let new = NewClone { id: ResourceId(number.to_be_bytes()), snapshot: name(snapshot), name: name(text), size: None };
    life.mapper.create_clone(new).await.expect("a clone");
}
async fn idle(life: &Life) {
    life.mapper.gc_run().await.expect("runs");
    for _ in 0..2000 {
        let s = life.mapper.gc_status().await.expect("told");
        if !s.running { return }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("gc does not end: {:?}", life.mapper.gc_status().await);
}

#[test]
fn smoke() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live_on(3, move |life| async move {
            let v = life.create(seed.into(), "v", 2 << 20).await;
            v.write(0, blocks(1, 4 * OBJECT), false).await.expect("ok");
            snapshot(&life, 1000, "v", "s1").await;
            v.write(BLOCK, blocks(2, BLOCK), false).await.expect("ok");
            v.write(OBJECT + 512, blocks(3, 512), false).await.expect("ok");
            snapshot(&life, 1001, "v", "s2").await;
            v.write(2 * BLOCK, blocks(4, BLOCK), false).await.expect("ok");
            v.unmap(2 * OBJECT, OBJECT).await.expect("ok");
            v.unmap(3 * OBJECT, BLOCK).await.expect("ok");
            clone(&life, 1002, "s1", "c").await;
            let c = life.open("c").await;
            c.write(3 * OBJECT, blocks(9, BLOCK), false).await.expect("ok");
            let s1 = life.open("s1").await;
            let check = async |life: &Life, s1: bool| {
                if s1 {
                    let s1 = life.open("s1").await;
                    assert_eq!(byte_at(&s1, 0, 4 * OBJECT).await, 1);
                    assert!(s1.write(0, blocks(1, BLOCK), false).await.is_err());
                }
                let v = life.open("v").await;
                assert_eq!(byte_at(&v, 0, BLOCK).await, 1);
                assert_eq!(byte_at(&v, BLOCK, BLOCK).await, 2);
                assert_eq!(byte_at(&v, 2 * BLOCK, BLOCK).await, 4);
                assert_eq!(byte_at(&v, OBJECT, 512).await, 1);
                assert_eq!(byte_at(&v, OBJECT + 512, 512).await, 3);
                assert_eq!(byte_at(&v, OBJECT + 1024, OBJECT - 1024).await, 1);
                assert_eq!(byte_at(&v, 2 * OBJECT, OBJECT + BLOCK).await, 0);
                assert_eq!(byte_at(&v, 3 * OBJECT + BLOCK, OBJECT - BLOCK).await, 1);
                let c = life.open("c").await;
                assert_eq!(byte_at(&c, 0, 3 * OBJECT).await, 1);
                assert_eq!(byte_at(&c, 3 * OBJECT, BLOCK).await, 9);
                assert_eq!(byte_at(&c, 3 * OBJECT + BLOCK, OBJECT - BLOCK).await, 1);
            };
            check(&life, true).await;
            drop(s1);
            life.mapper.delete_volume(name("s2")).await.expect("ok");
            idle(&life).await;
            check(&life, true).await;
            life.mapper.delete_volume(name("s1")).await.expect("ok");
            idle(&life).await;
            check(&life, false).await;
            let mut from = 0;
            loop {
                let p = life.mapper.flatten(name("c"), from).await.expect("ok");
                if p.ended { break }
                from = p.done;
            }
            idle(&life).await;
            check(&life, false).await;
            println!("{:?} {:?}", life.mapper.tree().await.unwrap().len(), life.mapper.gc_status().await);
            life.mapper.stop().await.expect("stops");
        });
        world.end_process();
        world.check();
    });
}
