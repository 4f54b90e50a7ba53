//! Reading, writing and the other commands over a session.

use crate::common;
use crate::initiator::{BLOCK, Ended, Initiator, Port, pattern, transfer};
use crate::world::{VOLUME_BYTES, config, simulate};
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

#[test]
fn what_is_written_is_read_on_every_core_in_every_size() {
    simulate(2, &config(), |world| async move {
        // Home of v0 and v1 differ with two cores, so one session each is away from home.
        for (number, label) in ["v0", "v1"].into_iter().enumerate() {
            for immediate in [true, false] {
                let mut session = world.session(Port("a", number as u8), label).await;
                session.immediate = immediate;
                let mut lba = 3;
                for (seed, blocks) in [1, 7, 8, 128, 129, 513, 2049, 8192, 32768]
                    .into_iter()
                    .enumerate()
                {
                    let data = pattern(seed as u64 + u64::from(immediate), blocks * BLOCK);
                    session
                        .write(lba, data.clone())
                        .await
                        .expect("connected")
                        .good();
                    let back = session.read(lba, blocks).await.expect("connected").good();
                    assert!(back == data, "{blocks} blocks at {lba}");
                    lba += blocks as u32 + 1;
                }
                let gap = session.read(2, 1).await.expect("connected").good();
                assert!(gap.iter().all(|byte| *byte == 0), "what was not written");
                session.logout().await.expect("an answer");
            }
        }
        let stats = world
            .server
            .target_stats(&common::iqn("v0"))
            .await
            .expect("served");
        let bytes = 2 * BLOCK as u64 * (1 + 7 + 8 + 128 + 129 + 513 + 2049 + 8192 + 32768);
        assert_eq!(stats.counters.written_bytes, bytes);
        assert_eq!(stats.counters.read_bytes, bytes + 2 * BLOCK as u64);
        assert_eq!((stats.counters.reads, stats.counters.writes), (20, 18));
        assert_eq!(stats.counters.errors, 2, "the unit attentions");
    });
}

#[test]
fn unmap_write_same_and_flush_reach_the_volume() {
    simulate(2, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let data = pattern(9, 4096 * BLOCK);
        session
            .write(0, data.clone())
            .await
            .expect("connected")
            .good();
        // WRITE SAME(16) of a pattern over more than one part, not aligned.
        let block = pattern(5, BLOCK);
        let same = transfer(0x93, 5, 3000);
        session
            .run(same, block.clone(), 0)
            .await
            .expect("connected")
            .good();
        // UNMAP of two ranges.
        let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
        for (lba, blocks) in [(3100_u64, 8_u32), (3500, 100)] {
            list.extend_from_slice(&lba.to_be_bytes());
            list.extend_from_slice(&blocks.to_be_bytes());
            list.extend_from_slice(&[0; 4]);
        }
        let mut unmap = [0; 16];
        unmap[0] = 0x42;
        unmap[7..9].copy_from_slice(&(list.len() as u16).to_be_bytes());
        session.run(unmap, list, 0).await.expect("connected").good();
        let flush = transfer(0x91, 0, 0);
        session
            .run(flush, Vec::new(), 0)
            .await
            .expect("connected")
            .good();
        let mut expected = data;
        for lba in 5..3005 {
            expected[lba * BLOCK..(lba + 1) * BLOCK].copy_from_slice(&block);
        }
        expected[3100 * BLOCK..3108 * BLOCK].fill(0);
        expected[3500 * BLOCK..3600 * BLOCK].fill(0);
        let back = session.read(0, 4096).await.expect("connected").good();
        assert!(back == expected);
    });
}

#[test]
fn a_hundred_commands_outstanding_are_all_answered_and_right() {
    simulate(3, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v1").await;
        let mut tags = Vec::new();
        for number in 0..50_u32 {
            let data = pattern(u64::from(number), 16 * BLOCK);
            let cdb = transfer(0x8a, number * 16, 16);
            tags.push(session.submit(cdb, data, 0).await.expect("connected"));
        }
        for tag in tags.drain(..) {
            session.finish(tag).await.expect("connected").good();
        }
        for number in 0..100_u32 {
            let cdb = transfer(0x88, number % 50 * 16, 16);
            let tag = session.submit(cdb, Vec::new(), 16 * BLOCK).await;
            tags.push(tag.expect("connected"));
        }
        for (number, tag) in tags.into_iter().enumerate() {
            let data = session.finish(tag).await.expect("connected").good();
            assert!(data == pattern(number as u64 % 50, 16 * BLOCK));
        }
    });
}

#[test]
fn more_large_writes_than_there_is_memory_for_wait_or_are_told_to_come_again() {
    for immediate in [true, false] {
        simulate(2, &config(), move |world| async move {
            let mut session = world.session(Port("a", 1), "v0").await;
            session.immediate = immediate;
            let blocks = 8 << 20 >> 9;
            let data = pattern(3, blocks * BLOCK);
            let mut tags = Vec::new();
            for number in 0..20 {
                let cdb = transfer(0x8a, number % 4 * blocks as u32, blocks);
                tags.push(
                    session
                        .submit(cdb, data.clone(), 0)
                        .await
                        .expect("connected"),
                );
            }
            let mut good = 0;
            for tag in tags {
                match session.finish(tag).await.expect("connected").status {
                    0 => good += 1,
                    // TASK SET FULL, only where the data came unasked.
                    status => assert!(immediate && status == 0x28, "status {status:x}"),
                }
            }
            assert!(good >= 4, "at least what fits is done");
            let back = session.read(0, blocks).await.expect("connected").good();
            assert!(back == data);
        });
    }
}

#[test]
fn one_who_does_not_read_hinders_nobody_and_gets_all_at_last() {
    simulate(2, &config(), |world| async move {
        let mut slow = world.session(Port("slow", 1), "v0").await;
        let data = pattern(1, 2048 * BLOCK);
        slow.write(0, data.clone()).await.expect("connected").good();
        let mut tags = Vec::new();
        for _ in 0..100 {
            let cdb = transfer(0x88, 0, 2048);
            tags.push(
                slow.submit(cdb, Vec::new(), 2048 * BLOCK)
                    .await
                    .expect("connected"),
            );
        }
        // 100 MiB are asked for and not taken: others go on.
        let mut quick = world.session(Port("quick", 1), "v0").await;
        for lba in 0..50 {
            quick
                .write(10_000 + lba, pattern(7, BLOCK))
                .await
                .expect("connected")
                .good();
        }
        for tag in tags {
            let back = slow.finish(tag).await.expect("connected").good();
            assert!(back == data);
        }
    });
}

#[test]
fn an_export_for_reading_refuses_writes_and_nothing_else() {
    simulate(1, &config(), |world| async move {
        let mut spec = common::spec("ro", &world.volumes[0]);
        spec.read_only = true;
        world.server.add_target(spec).await.expect("another target");
        let mut session = world.session(Port("a", 1), "ro").await;
        let refused = session.write(0, pattern(1, 8 * BLOCK)).await;
        refused.expect("connected").check(7, 0x27, 0);
        session.read(0, 8).await.expect("connected").good();
    });
}

#[test]
fn initiators_are_told_of_another_capacity() {
    simulate(1, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let last = (VOLUME_BYTES / BLOCK as u64) as u32;
        session
            .read(last, 1)
            .await
            .expect("connected")
            .check(5, 0x21, 0);
        common::resize(&world.mapper, "v0", VOLUME_BYTES * 2).await;
        let changed = world.server.capacity_changed(&common::iqn("v0")).await;
        changed.expect("served");
        session.test_unit_ready().await.check(6, 0x2a, 0x09);
        session.read(last, 1).await.expect("connected").good();
    });
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_writes_leaves_whole_blocks_and_no_session() {
    simulate(8, &config(), |world| async move {
        let (old, new) = (pattern(1, 256 * BLOCK), pattern(2, 256 * BLOCK));
        let mut session = world.session(Port("a", 1), "v0").await;
        for lba in 0..16 {
            session
                .write(lba * 256, old.clone())
                .await
                .expect("connected")
                .good();
        }
        let local = session.stream.local_addr();
        let fresh = new.clone();
        let writer = spawn(async move {
            for lba in (0..16).cycle() {
                let written = session.write(lba * 256, fresh.clone()).await;
                if matches!(written, Err(Ended)) {
                    return;
                }
            }
        });
        sleep(Duration::from_millis(2)).await;
        assert_eq!(world.net.reset(local), 1);
        writer.await;
        world.until_sessions(0).await;
        let mut again = world.session(Port("a", 1), "v0").await;
        for lba in 0..16 {
            let back = again.read(lba * 256, 256).await.expect("connected").good();
            for (at, block) in back.chunks(BLOCK).enumerate() {
                let place = at * BLOCK..(at + 1) * BLOCK;
                assert!(block == &old[place.clone()] || block == &new[place]);
            }
        }
    });
}

#[test]
fn what_breaks_the_protocol_ends_its_connection_only() {
    simulate(2, &config(), |world| async move {
        let mut good = world.session(Port("good", 1), "v0").await;
        let mut bad = world.session(Port("bad", 1), "v0").await;
        let noise = pattern(77, 4096);
        bad.send(noise).await.expect("connected");
        bad.until_end().await;
        let stranger = Initiator::connect(world.at).await;
        stranger.send(pattern(78, 4096)).await.expect("connected");
        world.until_sessions(1).await;
        good.write(0, pattern(1, BLOCK))
            .await
            .expect("connected")
            .good();
    });
}
