//! A store that hangs: what waits for it ends in bounded time, nothing lands over newer data, and nobody else is
//! disturbed.

use crate::common::{self, iqn};
use crate::initiator::{BLOCK, Initiator, Port, pattern, transfer};
use crate::world::{World, config, simulate};
use atoll_backends::ErrorKind;
use atoll_backends::chaos::{Fault, Op};
use atoll_reactor::{now, sleep, timeout};
use atoll_targets::iscsi::pdu::{
    TaskManagementFunction as Function, TaskManagementResponseCode as Code,
};
use atoll_targets::server::limits::{ABORT_PATIENCE, VOLUME_CHUNK_BYTES, VOLUME_CHUNKS};
use std::time::Duration;

/// Longest that anybody waits for the end of commands that hang: those of a session that is replaced while its
/// connection is closing.
const BOUND: Duration = Duration::from_secs(12);

async fn write(session: &mut Initiator, lba: u32, seed: u64, blocks: usize) {
    let data = pattern(seed, blocks * BLOCK);
    let done = session.write(lba, data).await;
    done.expect("connected").good();
}

async fn assert_content(session: &mut Initiator, lba: u32, seed: u64, blocks: usize) {
    let back = session.read(lba, blocks).await.expect("connected").good();
    assert!(back == pattern(seed, blocks * BLOCK), "at {lba}");
}

/// Begins a write that hangs at the store; what comes later does not.
async fn hang_write(world: &World, session: &mut Initiator, lba: u32, seed: u64) -> u32 {
    let before = world.chaos.hanging();
    world.chaos.fail_call(Op::Write, 1, Fault::Hang);
    let data = pattern(seed, 8 * BLOCK);
    let tag = session.submit(transfer(0x8a, lba, 8), data, 0).await;
    world.until_hanging(before + 1).await;
    tag.expect("connected")
}

#[test]
fn a_write_aborted_while_it_hangs_is_answered_in_time_and_lands_over_nothing_newer() {
    simulate(3, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        write(&mut session, 0, 1, 64).await;
        let begun = now();
        let tag = hang_write(&world, &mut session, 0, 2).await;
        let aborted = session.manage(Function::AbortTask, tag).await;
        assert_eq!(aborted, Ok(Code::FunctionComplete));
        let took = now() - begun;
        assert!(took >= ABORT_PATIENCE && took < BOUND, "{took:?}");
        // Its blocks are held, others are not.
        let newer = pattern(3, 8 * BLOCK);
        let newer = session.submit(transfer(0x8a, 0, 8), newer, 0).await;
        let newer = newer.expect("connected");
        write(&mut session, 16, 4, 8).await;
        assert!(session.is_pending(newer));
        world.chaos.release();
        session.finish(newer).await.expect("connected").good();
        sleep(Duration::from_secs(1)).await;
        assert_content(&mut session, 0, 3, 8).await;
        assert!(session.is_pending(tag), "an aborted command has no answer");
    });
}

#[test]
fn nothing_more_of_an_aborted_write_begins_at_the_store() {
    simulate(3, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let blocks = 16 * VOLUME_CHUNK_BYTES as usize / BLOCK;
        write(&mut session, 0, 1, blocks).await;
        let (old, new) = (pattern(1, blocks * BLOCK), pattern(2, blocks * BLOCK));
        world
            .chaos
            .fail_with_probability(Op::Write, 1.0, Fault::Hang);
        let cdb = transfer(0x8a, 0, blocks);
        let submitted = session.submit(cdb, new.clone(), 0).await;
        let tag = submitted.expect("connected");
        // Its parts run at once, as many as may.
        let waiting = timeout(Duration::from_secs(1), session.finish(tag)).await;
        assert!(waiting.is_err(), "it hangs");
        assert_eq!(world.chaos.hanging(), VOLUME_CHUNKS);
        world.chaos.heal();
        let aborted = session.manage(Function::AbortTask, tag).await;
        assert_eq!(aborted, Ok(Code::FunctionComplete));
        world.chaos.release();
        sleep(Duration::from_secs(1)).await;
        let back = session.read(0, blocks).await.expect("connected").good();
        let begun = VOLUME_CHUNKS * VOLUME_CHUNK_BYTES as usize;
        assert!(back[..begun] == new[..begun], "what had begun has ended");
        assert!(back[begun..] == old[begun..], "nothing else has begun");
        assert_eq!(world.held().await, 0);
    });
}

#[test]
fn a_session_is_replaced_although_its_store_hangs() {
    simulate(3, &config(), |world| async move {
        let mut old = world.session(Port("a", 1), "v0").await;
        write(&mut old, 0, 1, 64).await;
        hang_write(&world, &mut old, 0, 2).await;
        let begun = now();
        let mut new = world.session(Port("a", 1), "v0").await;
        let took = now() - begun;
        assert!(took < BOUND, "{took:?}");
        assert_eq!(world.session_count().await, 1);
        write(&mut new, 16, 4, 8).await;
        let data = pattern(3, 8 * BLOCK);
        let newer = new.submit(transfer(0x8a, 0, 8), data, 0).await;
        world.chaos.release();
        let newer = newer.expect("connected");
        new.finish(newer).await.expect("connected").good();
        sleep(Duration::from_secs(1)).await;
        assert_content(&mut new, 0, 3, 8).await;
    });
}

#[test]
fn a_write_of_an_initiator_that_vanished_lands_over_nothing_newer_of_another() {
    simulate(5, &config(), |world| async move {
        let mut old = world.session(Port("a", 1), "v0").await;
        write(&mut old, 0, 1, 64).await;
        hang_write(&world, &mut old, 0, 2).await;
        drop(old);
        // On another core, and long before the hung one ends.
        let mut new = world.session(Port("b", 1), "v0").await;
        write(&mut new, 16, 4, 8).await;
        let newer = pattern(3, 8 * BLOCK);
        let newer = new.submit(transfer(0x8a, 0, 8), newer, 0).await;
        world.chaos.release();
        let newer = newer.expect("connected");
        new.finish(newer).await.expect("connected").good();
        sleep(Duration::from_secs(1)).await;
        assert_content(&mut new, 0, 3, 8).await;
        assert_content(&mut new, 16, 4, 8).await;
    });
}

#[test]
fn logouts_removals_and_the_end_do_not_wait_for_ever_for_a_store_that_hangs() {
    simulate(2, &config(), |world| async move {
        let begun = now();
        let mut first = world.session(Port("a", 1), "v0").await;
        write(&mut first, 0, 1, 64).await;
        hang_write(&world, &mut first, 0, 2).await;
        first.logout().await.expect("an answer");
        let mut second = world.session(Port("b", 1), "v0").await;
        hang_write(&world, &mut second, 16, 2).await;
        let removed = world.server.remove_target(&iqn("v0")).await;
        removed.expect("served");
        let mut third = world.session(Port("c", 1), "v1").await;
        hang_write(&world, &mut third, 0, 2).await;
        let ended = world.server.shutdown(Duration::from_secs(1)).await;
        ended.expect("it runs");
        assert!(now() - begun < BOUND * 3);
    });
}

#[test]
fn a_pool_that_hangs_holds_up_nothing_that_does_not_need_it() {
    simulate(3, &config(), |world| async move {
        let mut other = world.session(Port("other", 1), "v1").await;
        write(&mut other, 0, 1, 64).await;
        // More of one volume than a core has memory for, all of it hanging.
        world
            .chaos
            .fail_with_probability(Op::Write, 1.0, Fault::Hang);
        let mut stuck = Vec::new();
        for number in 0..12 {
            let mut session = world.session(Port("stuck", number), "v0").await;
            for at in 0..4 {
                let lba = (u32::from(number) * 4 + at) * 128;
                let data = pattern(2, 64 << 10);
                let sent = session.submit(transfer(0x8a, lba, 128), data, 0).await;
                sent.expect("connected");
            }
            stuck.push(session);
        }
        while world.chaos.hanging() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        // What hangs goes on hanging.
        world.chaos.heal();
        let begun = now();
        write(&mut other, 64, 5, 16 << 10).await;
        assert_content(&mut other, 64, 5, 16 << 10).await;
        let mut late = world.session(Port("late", 1), "v1").await;
        write(&mut late, 40_000, 6, 8).await;
        let done = late.manage(Function::LogicalUnitReset, 0).await;
        assert_eq!(done, Ok(Code::FunctionComplete));
        for session in &mut stuck {
            let echo = session.ping(b"there?").await;
            assert_eq!(echo.expect("connected"), b"there?");
        }
        assert_eq!(world.session_count().await, 14);
        let mut again = world.session(Port("new", 1), "v0").await;
        again.logout().await.expect("an answer");
        let spec = common::spec("more", &world.volumes[1]);
        world.server.add_target(spec).await.expect("a new target");
        let removed = world.server.remove_target(&iqn("more")).await;
        removed.expect("served");
        let took = now() - begun;
        assert!(took < ABORT_PATIENCE, "{took:?}");
    });
}

#[test]
fn a_full_or_broken_pool_is_told_to_who_writes_and_disturbs_nobody_else() {
    simulate(2, &config(), |world| async move {
        let mut reader = world.session(Port("reader", 1), "v1").await;
        write(&mut reader, 0, 1, 64).await;
        for (fault, sense) in [
            (ErrorKind::NoSpace, (7, 0x27, 7)),
            (ErrorKind::Io, (3, 0x0c, 0)),
        ] {
            let mut writer = world.session(Port("writer", 1), "v0").await;
            world
                .chaos
                .fail_with_probability(Op::Write, 1.0, Fault::Error(fault));
            let mut tags = Vec::new();
            for number in 0..32 {
                let data = pattern(2, 64 << 10);
                let cdb = transfer(0x8a, number * 128, 128);
                tags.push(writer.submit(cdb, data, 0).await.expect("connected"));
            }
            for tag in tags {
                let (key, asc, ascq) = sense;
                let failed = writer.finish(tag).await.expect("connected");
                failed.check(key, asc, ascq);
                assert_content(&mut reader, 0, 1, 64).await;
            }
            world.chaos.heal();
            write(&mut writer, 0, 3, 128).await;
            writer.logout().await.expect("an answer");
        }
        assert_eq!(world.held().await, 0);
    });
}

#[test]
fn a_write_aborted_while_it_waits_for_blocks_that_another_holds_never_lands() {
    simulate(3, &config(), |world| async move {
        let mut holder = world.session(Port("holder", 1), "v0").await;
        let mut session = world.session(Port("a", 1), "v0").await;
        write(&mut session, 0, 1, 64).await;
        let held = hang_write(&world, &mut holder, 0, 2).await;
        let calls = world.chaos.calls(Op::Write);
        let data = pattern(3, 8 * BLOCK);
        let waiting = session.submit(transfer(0x8a, 0, 8), data, 0).await;
        let waiting = waiting.expect("connected");
        sleep(Duration::from_millis(10)).await;
        let aborted = session.manage(Function::AbortTask, waiting).await;
        assert_eq!(aborted, Ok(Code::FunctionComplete));
        world.chaos.release();
        holder.finish(held).await.expect("connected").good();
        sleep(Duration::from_secs(1)).await;
        assert_content(&mut session, 0, 2, 8).await;
        assert_eq!(world.chaos.calls(Op::Write), calls, "it reached the store");
        assert!(session.is_pending(waiting));
        assert_eq!(world.held().await, 0);
    });
}
