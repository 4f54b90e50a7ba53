//! Commands that compare, merge or ask about the map, over sessions; and a pool that fills up.

use crate::initiator::{BLOCK, Done, Initiator, Port, pattern, transfer};
use crate::world::{World, config, simulate, simulate_on};
use atoll_backends::chaos::{Fault, Op};
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

/// Blocks of an object of the pool.
const OBJECT_BLOCKS: u32 = 2048;

fn compare_and_write(lba: u32, blocks: u8) -> [u8; 16] {
    let mut cdb = transfer(0x89, lba, 0);
    cdb[13] = blocks;
    cdb
}

async fn run(session: &mut Initiator, cdb: [u8; 16], data: Vec<u8>, take: usize) -> Done {
    session.run(cdb, data, take).await.expect("connected")
}

/// BYTCHK.
fn checking(mut cdb: [u8; 16], check: u8) -> [u8; 16] {
    cdb[1] |= check << 1;
    cdb
}

#[test]
fn every_compare_and_write_of_two_sessions_counts_once() {
    const ROUNDS: u32 = 20;
    async fn count(world_session: Initiator) -> Initiator {
        let mut session = world_session;
        // The last block of an object and the first of the next.
        let lba = OBJECT_BLOCKS - 1;
        let mut done = 0;
        while done < ROUNDS {
            let now = session.read(lba, 2).await.expect("connected").good();
            let number = u32::from_be_bytes([now[0], now[1], now[2], now[3]]);
            let next = (number + 1).to_be_bytes().repeat(2 * BLOCK / 4);
            let data = [now, next].concat();
            let cdb = compare_and_write(lba, 2);
            let end = session.run(cdb, data, 0).await.expect("connected");
            match end.sense {
                None => done += 1,
                Some(sense) => assert_eq!(sense, (0xE, 0x1D, 0x00)),
            }
        }
        session
    }
    simulate(10, &config(), |world: World| async move {
        let first = spawn(count(world.session(Port("a", 1), "v1").await));
        let second = spawn(count(world.session(Port("b", 1), "v1").await));
        let mut session = first.await;
        second.await;
        let end = session.read(OBJECT_BLOCKS - 1, 2).await.expect("connected");
        assert!(end.good() == (2 * ROUNDS).to_be_bytes().repeat(2 * BLOCK / 4));
    });
}

#[test]
fn a_miscompare_tells_the_offset_of_the_first_byte_that_differs() {
    simulate(2, &config(), |world: World| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let blocks = 255;
        let lba = OBJECT_BLOCKS - 100;
        let data = pattern(4, blocks * BLOCK);
        let written = session.write(lba, data.clone()).await;
        written.expect("connected").good();
        for place in [
            0,
            1,
            511,
            512,
            99 * BLOCK + 511,
            100 * BLOCK,
            255 * BLOCK - 1,
        ] {
            let mut wrong = data.clone();
            wrong[place..].fill(!data[place]);
            let both = [wrong.clone(), pattern(5, blocks * BLOCK)].concat();
            let ends = [
                run(&mut session, compare_and_write(lba, 255), both, 0).await,
                run(
                    &mut session,
                    checking(transfer(0x8f, lba, blocks), 1),
                    wrong,
                    0,
                )
                .await,
            ];
            for end in ends {
                assert_eq!(end.information, Some(place as u32));
                end.check(0xE, 0x1D, 0x00);
            }
        }
        let back = session.read(lba, blocks).await.expect("connected").good();
        assert!(back == data, "nothing was written");
        let new = pattern(6, blocks * BLOCK);
        let both = [data, new.clone()].concat();
        run(&mut session, compare_and_write(lba, 255), both, 0)
            .await
            .good();
        let back = session.read(lba, blocks).await.expect("connected").good();
        assert!(back == new);
    });
}

#[test]
fn verify_compares_what_was_written_in_all_three_ways() {
    simulate(2, &config(), |world: World| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        session.immediate = false;
        // More than one part, not aligned to them.
        let (lba, blocks) = (5, 3 * 2048 + 7);
        let data = pattern(8, blocks * BLOCK);
        let cdb = checking(transfer(0x8e, lba, blocks), 1);
        run(&mut session, cdb, data.clone(), 0).await.good();
        let verify = transfer(0x8f, lba, blocks);
        run(&mut session, verify, Vec::new(), 0).await.good();
        run(&mut session, checking(verify, 1), data.clone(), 0)
            .await
            .good();
        let mut wrong = data;
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        let end = run(&mut session, checking(verify, 1), wrong, 0).await;
        assert_eq!(end.information, Some(last as u32));
        end.check(0xE, 0x1D, 0x00);
        // One block compared with all, of which one differs in its byte 3.
        let block = pattern(9, BLOCK);
        let fill = transfer(0x93, lba, blocks);
        run(&mut session, fill, block.clone(), 0).await.good();
        run(&mut session, checking(verify, 3), block.clone(), 0)
            .await
            .good();
        let mut other = block.clone();
        other[3] ^= 0x40;
        let written = session.write(lba + 4000, other).await;
        written.expect("connected").good();
        let end = run(&mut session, checking(verify, 3), block, 0).await;
        assert_eq!(end.information, Some(3));
        end.check(0xE, 0x1D, 0x00);
    });
}

#[test]
fn verifying_finds_what_the_pool_garbled_and_what_it_cannot_read() {
    simulate(2, &config(), |world: World| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let write = checking(transfer(0x8e, 8, 8), 1);
        world.chaos.fail_call(Op::Write, 1, Fault::Corrupt);
        let end = run(&mut session, write, pattern(1, 8 * BLOCK), 0).await;
        end.check(0xE, 0x1D, 0x00);
        run(&mut session, write, pattern(1, 8 * BLOCK), 0)
            .await
            .good();
        let verify = transfer(0x8f, 8, 8);
        world
            .chaos
            .fail_call(Op::Read, 1, Fault::Error(atoll_backends::ErrorKind::Io));
        run(&mut session, verify, Vec::new(), 0)
            .await
            .check(3, 0x11, 0x00);
        run(&mut session, verify, Vec::new(), 0).await.good();
    });
}

#[test]
fn or_write_merges_the_largest_transfer() {
    simulate(1, &config(), |world: World| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        session.immediate = false;
        let (lba, blocks) = (2045, 32768);
        let (old, new) = (pattern(1, blocks * BLOCK), pattern(2, blocks * BLOCK));
        let written = session.write(lba, old.clone()).await;
        written.expect("connected").good();
        let cdb = transfer(0x8b, lba, blocks);
        run(&mut session, cdb, new.clone(), 0).await.good();
        let back = session.read(lba, blocks).await.expect("connected").good();
        let merged: Vec<u8> = old.iter().zip(&new).map(|(old, new)| old | new).collect();
        assert!(back == merged);
    });
}

#[test]
fn lba_status_and_the_log_tell_what_is_stored() {
    simulate(1, &config(), |world: World| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let mut status = transfer(0x9e, 100, 0);
        status[1] = 0x12;
        status[10..14].copy_from_slice(&256_u32.to_be_bytes());
        let whole = (64 << 20) / BLOCK as u32;
        let extents = |data: Vec<u8>| {
            let extents = data[8..].chunks(16).map(|extent| {
                let count = u32::from_be_bytes(extent[8..12].try_into().expect("four"));
                (count, extent[12])
            });
            extents.collect::<Vec<_>>()
        };
        let before = run(&mut session, status, Vec::new(), 256).await.good();
        assert_eq!(extents(before), [(whole - 100, 1)]);
        let written = session.write(OBJECT_BLOCKS, pattern(1, BLOCK)).await;
        written.expect("connected").good();
        let after = run(&mut session, status, Vec::new(), 256).await.good();
        let expected = [
            (OBJECT_BLOCKS - 100, 1),
            (OBJECT_BLOCKS, 0),
            (whole - 2 * OBJECT_BLOCKS, 1),
        ];
        assert_eq!(extents(after), expected);
        let mut log = [0; 16];
        log[..3].copy_from_slice(&[0x4d, 0, 0x4c]);
        log[8] = 64;
        let page = run(&mut session, log, Vec::new(), 64).await.good();
        assert_eq!((page[0], page.len()), (0x8c, 28));
        let count = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().expect("four"));
        let (available, used) = (count(8), count(20));
        // A set is two blocks: a pool of 1 GiB has 2^20 of them.
        assert!(used > 0 && available < 1 << 20);
        assert!((1 << 20) - available - used <= 1);
    });
}

#[test]
fn a_pool_that_fills_up_is_told_before_and_is_full_then_and_takes_writes_again_after_an_unmap() {
    simulate_on(24 << 20, 3, &config(), |world: World| async move {
        let mut writer = world.session(Port("writer", 1), "v0").await;
        let mut other = world.session(Port("other", 1), "v0").await;
        let (mut written, mut told, mut others) = (0, None, 0);
        let full = loop {
            let data = pattern(u64::from(written), OBJECT_BLOCKS as usize * BLOCK);
            let end = writer.write(written * OBJECT_BLOCKS, data).await;
            let end = end.expect("connected");
            match end.sense {
                None => written += 1,
                Some((6, 0x38, 0x07)) => {
                    assert_eq!((told, end.information), (None, Some(16)));
                    told = Some(written);
                }
                Some(_) => break end,
            }
            assert!(written < 40, "a pool of 24 MiB takes no more");
            sleep(Duration::from_secs(2)).await;
            // It answers its pings, too.
            match other.test_unit_ready().await.sense {
                None => {}
                sense => {
                    assert_eq!(sense, Some((6, 0x38, 0x07)));
                    others += 1;
                }
            }
        };
        full.check(7, 0x27, 0x07);
        let told = told.expect("the threshold comes first");
        assert!(told < written, "{told} of {written}");
        assert_eq!(others, 1, "the other session is told once");
        // What is there is read; and room that is given back is used.
        let back = other.read(0, OBJECT_BLOCKS as usize).await;
        assert!(back.expect("connected").good() == pattern(0, OBJECT_BLOCKS as usize * BLOCK));
        let zeros = transfer(0x93, 0, 4 * OBJECT_BLOCKS as usize);
        let mut unmap = zeros;
        unmap[1] = 0x08;
        run(&mut other, unmap, vec![0; BLOCK], 0).await.good();
        run(&mut other, transfer(0x91, 0, 0), Vec::new(), 0)
            .await
            .good();
        for _ in 0..5 {
            sleep(Duration::from_secs(2)).await;
            writer.test_unit_ready().await.good();
        }
        let again = writer
            .write(written * OBJECT_BLOCKS, pattern(1, BLOCK))
            .await;
        again.expect("connected").good();
    });
}
