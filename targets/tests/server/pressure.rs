//! Many connections that want more memory than there is: little is held, nobody starves, all of it comes back.

use crate::common::iqn;
use crate::initiator::{BLOCK, Initiator, Port, pattern, transfer};
use crate::world::{World, config, simulate};
use atoll_reactor::{now, sleep};
use atoll_targets::iscsi::pdu::{
    TaskManagementFunction as Function, TaskManagementResponseCode as Code,
};
use atoll_targets::server::IscsiServerConfig;
use atoll_targets::server::limits::{
    DEFAULT_COMMAND_MEMORY, GUARANTEED_BYTES, MIN_COMMAND_MEMORY, SEND_TIMEOUT, STEP_BYTES,
};
use std::time::Duration;

const LARGE: usize = (8 << 20) / BLOCK;

fn scarce() -> IscsiServerConfig {
    IscsiServerConfig {
        command_memory: MIN_COMMAND_MEMORY,
        ..config()
    }
}

/// Writes and reads back.
async fn check(session: &mut Initiator, lba: u32, seed: u64, blocks: usize) {
    let data = pattern(seed, blocks * BLOCK);
    let written = session.write(lba, data.clone()).await;
    written.expect("connected").good();
    let back = session.read(lba, blocks).await.expect("connected").good();
    assert!(back == data, "{blocks} blocks at {lba}");
}

async fn until_nothing_is_held(world: &World) {
    while world.held().await != 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Sessions that announce a large write each and never send its data.
async fn stalled(world: &World, count: u8) -> Vec<Initiator> {
    let mut all = Vec::new();
    for number in 0..count {
        let mut session = world.session(Port("stalled", number), "v0").await;
        session.immediate = false;
        let cdb = transfer(0x8a, 0, LARGE);
        let data = vec![1; LARGE * BLOCK];
        session.submit(cdb, data, 0).await.expect("connected");
        all.push(session);
    }
    all
}

#[test]
fn two_hundred_stalled_large_writes_hold_little_and_stop_nobody() {
    simulate(1, &config(), |world| async move {
        let kept = stalled(&world, 200).await;
        let mut same = world.session(Port("honest", 1), "v0").await;
        let mut other = world.session(Port("honest", 1), "v1").await;
        for (number, session) in [&mut same, &mut other].into_iter().enumerate() {
            for immediate in [true, false] {
                session.immediate = immediate;
                check(session, 20_000 + number as u32, 3, 8).await;
                check(session, 20_003, 4, LARGE).await;
            }
        }
        let cores = world.server.command_memory().await.expect("it runs").len();
        let most = cores * DEFAULT_COMMAND_MEMORY as usize + 200 * GUARANTEED_BYTES;
        let held = world.held().await;
        assert!(held > 10 << 20 && held < most, "{held} bytes");
        drop(kept);
        until_nothing_is_held(&world).await;
    });
}

#[test]
fn what_has_no_memory_goes_on_in_steps_and_comes_out_whole() {
    simulate(3, &scarce(), |world| async move {
        let step = STEP_BYTES as usize / BLOCK;
        let mut session = world.session(Port("a", 1), "v0").await;
        for immediate in [true, false] {
            session.immediate = immediate;
            for (seed, (lba, blocks)) in [
                (0, 5 * step),
                (1, 4 * step + 1),
                (7, LARGE),
                (8, 2 * LARGE),
                (3, 9 * step - 1),
            ]
            .into_iter()
            .enumerate()
            {
                check(&mut session, lba, seed as u64, blocks).await;
                assert!(world.held().await <= GUARANTEED_BYTES);
            }
        }
        let stats = world.server.target_stats(&iqn("v0")).await.expect("served");
        let bytes = 2 * BLOCK * (18 * step + 3 * LARGE);
        assert_eq!(stats.counters.written_bytes as usize, bytes);
        assert_eq!(stats.counters.read_bytes as usize, bytes);
        // With FUA.
        let mut cdb = transfer(0x8a, 0, LARGE);
        cdb[1] = 8;
        let data = pattern(9, LARGE * BLOCK);
        session
            .run(cdb, data.clone(), 0)
            .await
            .expect("connected")
            .good();
        let mut cdb = transfer(0x88, 0, LARGE);
        cdb[1] = 8;
        let back = session.run(cdb, Vec::new(), LARGE * BLOCK).await;
        assert!(back.expect("connected").good() == data);
        until_nothing_is_held(&world).await;
    });
}

#[test]
fn short_commands_pass_beside_long_ones_that_wait_for_memory() {
    for immediate in [true, false] {
        simulate(3, &scarce(), move |world| async move {
            let mut session = world.session(Port("a", 1), "v0").await;
            session.immediate = immediate;
            let long = pattern(1, LARGE * BLOCK);
            let short = pattern(2, 8 * BLOCK);
            let mut tags = Vec::new();
            for number in 0..24_u32 {
                let (cdb, data) = match number % 4 {
                    0 => (transfer(0x8a, 0, LARGE), long.clone()),
                    _ => (transfer(0x8a, 50_000 + number * 8, 8), short.clone()),
                };
                let tag = session.submit(cdb, data, 0).await.expect("connected");
                tags.push(tag);
            }
            let mut good = 0;
            for tag in tags {
                match session.finish(tag).await.expect("connected").status {
                    0 => good += 1,
                    // TASK SET FULL, only where data came unasked.
                    status => assert!(immediate && status == 0x28, "status {status:x}"),
                }
            }
            assert!(good >= 4, "{good} done");
            let back = session.read(0, LARGE).await.expect("connected").good();
            assert!(back == long);
            until_nothing_is_held(&world).await;
        });
    }
}

#[test]
fn a_write_in_steps_is_aborted_at_once_while_it_waits_for_data() {
    simulate(2, &scarce(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        session.immediate = false;
        let data = pattern(1, LARGE * BLOCK);
        let cdb = transfer(0x8a, 0, LARGE);
        let tag = session.submit(cdb, data, 0).await.expect("connected");
        let (r2t, _) = session.receive().await.expect("a request for data");
        assert_eq!(r2t.data_segment_length(), 0);
        assert!(world.held().await > 0);
        let aborted = session.manage(Function::AbortTask, tag).await;
        assert_eq!(aborted, Ok(Code::FunctionComplete));
        until_nothing_is_held(&world).await;
        check(&mut session, 0, 2, LARGE).await;
    });
}

#[test]
fn connections_that_break_in_the_middle_of_steps_leave_no_memory_and_no_session() {
    simulate(4, &scarce(), |world| async move {
        for write in [true, false] {
            for number in 0..6 {
                let mut session = world.session(Port("a", number), "v0").await;
                session.immediate = number % 2 == 0;
                let (cdb, data, take) = match write {
                    true => (transfer(0x8a, 0, LARGE), vec![1; LARGE * BLOCK], 0),
                    false => (transfer(0x88, 0, LARGE), Vec::new(), LARGE * BLOCK),
                };
                session.submit(cdb, data, take).await.expect("connected");
                for _ in 0..number {
                    session.step().await.expect("connected");
                }
            }
            world.until_sessions(0).await;
            until_nothing_is_held(&world).await;
        }
    });
}

#[test]
fn one_who_takes_no_output_is_dropped_and_its_memory_comes_back() {
    simulate(1, &config(), |world| async move {
        let begun = now();
        let mut kept = Vec::new();
        for number in 0..20 {
            let mut session = world.session(Port("deaf", number), "v0").await;
            for _ in 0..4 {
                let cdb = transfer(0x88, 0, LARGE);
                let sent = session.submit(cdb, Vec::new(), LARGE * BLOCK).await;
                sent.expect("connected");
            }
            kept.push(session);
        }
        let mut honest = world.session(Port("honest", 1), "v0").await;
        check(&mut honest, 0, 3, LARGE).await;
        while world.session_count().await > 1 {
            honest.test_unit_ready().await.good();
            sleep(Duration::from_millis(100)).await;
        }
        let took = now() - begun;
        assert!(took >= SEND_TIMEOUT && took < SEND_TIMEOUT * 2, "{took:?}");
        until_nothing_is_held(&world).await;
    });
}

#[test]
fn many_parameter_lists_that_never_come_hold_no_more_than_is_allowed() {
    simulate(1, &scarce(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        session.immediate = false;
        // UNMAP lists of 60 KiB, announced and not sent.
        let mut unmap = [0; 16];
        unmap[0] = 0x42;
        unmap[7..9].copy_from_slice(&(60_u16 << 10).to_be_bytes());
        let mut tags = Vec::new();
        for _ in 0..100 {
            let sent = session.submit(unmap, vec![0; 60 << 10], 0).await;
            tags.push(sent.expect("connected"));
        }
        session.ping(b"").await.expect("connected");
        let most = GUARANTEED_BYTES + MIN_COMMAND_MEMORY as usize;
        assert!(world.held().await <= most);
        let refused = tags.iter().filter(|tag| !session.is_pending(**tag)).count();
        assert!(refused > 50, "{refused} refused");
    });
}

#[test]
fn a_command_that_has_no_steps_waits_for_its_memory_and_is_done() {
    simulate(2, &scarce(), |world| async move {
        // WRITE SAME of a pattern holds 1 MiB, more than a fair share of so little.
        let mut sessions = Vec::new();
        for number in 0..4 {
            let mut session = world.session(Port("same", number), "v0").await;
            let lba = u32::from(number) * 8192;
            let block = pattern(u64::from(number), BLOCK);
            let cdb = transfer(0x93, lba, 8192);
            let tag = session.submit(cdb, block, 0).await.expect("connected");
            sessions.push((session, tag));
        }
        for (number, (session, tag)) in sessions.iter_mut().enumerate() {
            session.finish(*tag).await.expect("connected").good();
            let lba = number as u32 * 8192;
            let back = session.read(lba, 8192).await.expect("connected").good();
            let block = pattern(number as u64, BLOCK);
            assert!(back.chunks(BLOCK).all(|copy| copy == block));
        }
        until_nothing_is_held(&world).await;
    });
}
