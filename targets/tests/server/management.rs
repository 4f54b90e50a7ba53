//! Task management while the volume is slow: who is answered, who is not, and when.

use crate::common::iqn;
use crate::initiator::{BLOCK, Initiator, Port, pattern, transfer};
use crate::world::{World, config, simulate};
use atoll_backends::ErrorKind;
use atoll_backends::chaos::{Fault, Op};
use atoll_reactor::{now, sleep, spawn};
use atoll_targets::iscsi::pdu::{
    TaskManagementFunction as Function, TaskManagementResponseCode as Code,
};
use std::time::Duration;

/// How long every call of the store takes.
const SLOW: Duration = Duration::from_secs(2);

/// A session on v0 whose block 0 is written, in a world whose store is slow from then on.
async fn slow_world(world: &World) -> Initiator {
    let mut session = world.session(Port("a", 1), "v0").await;
    let written = session.write(0, pattern(1, 8 * BLOCK)).await;
    written.expect("connected").good();
    world.chaos.delay(Op::Write, SLOW..SLOW * 2);
    session
}

/// Submits a write and waits until it has reached the store: an abortion finds it there.
async fn begin_write(world: &World, session: &mut Initiator, lba: u32, seed: u64) -> u32 {
    let before = world.chaos.calls(Op::Write);
    let tag = submit_write(session, lba, seed).await;
    while world.chaos.calls(Op::Write) == before {
        sleep(Duration::from_millis(1)).await;
    }
    tag
}

async fn submit_write(session: &mut Initiator, lba: u32, seed: u64) -> u32 {
    let data = pattern(seed, 8 * BLOCK);
    let tag = session.submit(transfer(0x8a, lba, 8), data, 0).await;
    tag.expect("connected")
}

#[test]
fn an_aborted_write_has_no_answer_and_the_abortion_is_answered_after_its_end() {
    simulate(3, &config(), |world| async move {
        let mut session = slow_world(&world).await;
        let begun = now();
        let tag = begin_write(&world, &mut session, 0, 2).await;
        let aborted = session.manage(Function::AbortTask, tag).await;
        assert_eq!(aborted, Ok(Code::FunctionComplete));
        assert!(now() - begun >= SLOW, "it was still to take effect");
        assert!(session.is_pending(tag));
        // It has taken effect, and nothing comes later.
        let back = session.read(0, 8).await.expect("connected").good();
        assert!(back == pattern(2, 8 * BLOCK));
        world.chaos.heal();
        session
            .write(0, pattern(3, 8 * BLOCK))
            .await
            .expect("connected")
            .good();
        let back = session.read(0, 8).await.expect("connected").good();
        assert!(back == pattern(3, 8 * BLOCK));
        assert!(session.is_pending(tag));
        let again = session.manage(Function::AbortTask, tag).await;
        assert_eq!(again, Ok(Code::TaskDoesNotExist));
        let stats = world.server.target_stats(&iqn("v0")).await.expect("served");
        assert_eq!(stats.counters.aborted, 1);
    });
}

#[test]
fn abort_task_set_ends_all_of_the_session_and_nothing_of_others() {
    simulate(2, &config(), |world| async move {
        let mut session = slow_world(&world).await;
        let mut other = world.session(Port("b", 1), "v0").await;
        let kept = submit_write(&mut other, 1000, 5).await;
        let mut tags = Vec::new();
        for number in 0..10 {
            tags.push(submit_write(&mut session, number * 8, 2).await);
        }
        let done = session.manage(Function::AbortTaskSet, 0).await;
        assert_eq!(done, Ok(Code::FunctionComplete));
        session.test_unit_ready().await.good();
        assert!(tags.iter().all(|tag| session.is_pending(*tag)));
        other.finish(kept).await.expect("connected").good();
        other.test_unit_ready().await.good();
    });
}

#[test]
fn clear_task_set_tells_the_others_whose_commands_it_ended() {
    simulate(2, &config(), |world| async move {
        let mut session = slow_world(&world).await;
        let mut loser = world.session(Port("b", 1), "v0").await;
        let mut idle = world.session(Port("c", 1), "v0").await;
        let tag = submit_write(&mut loser, 1000, 5).await;
        // It has arrived when a later command is answered.
        loser.test_unit_ready().await.good();
        let done = session.manage(Function::ClearTaskSet, 0).await;
        assert_eq!(done, Ok(Code::FunctionComplete));
        loser.test_unit_ready().await.check(6, 0x2f, 0);
        assert!(loser.is_pending(tag));
        idle.test_unit_ready().await.good();
        session.test_unit_ready().await.good();
    });
}

#[test]
fn a_reset_ends_all_commands_and_every_session_is_told() {
    for function in [Function::LogicalUnitReset, Function::TargetWarmReset] {
        simulate(2, &config(), move |world| async move {
            let mut session = slow_world(&world).await;
            let mut other = world.session(Port("b", 1), "v0").await;
            let begun = now();
            let own = begin_write(&world, &mut session, 0, 2).await;
            let theirs = submit_write(&mut other, 1000, 5).await;
            other.test_unit_ready().await.good();
            let done = session.manage(function, 0).await;
            assert_eq!(done, Ok(Code::FunctionComplete));
            assert!(now() - begun >= SLOW);
            for (who, tag) in [(&mut session, own), (&mut other, theirs)] {
                who.test_unit_ready().await.check(6, 0x29, 0x03);
                who.test_unit_ready().await.good();
                assert!(who.is_pending(tag));
            }
        });
    }
}

#[test]
fn a_cold_reset_disconnects_all() {
    simulate(2, &config(), |world| async move {
        let mut session = slow_world(&world).await;
        let mut other = world.session(Port("b", 1), "v0").await;
        let mut neighbour = world.session(Port("c", 1), "v1").await;
        let watched = spawn(async move { other.until_end().await });
        let done = session.manage(Function::TargetColdReset, 0).await;
        assert_eq!(done, Ok(Code::FunctionComplete));
        session.until_end().await;
        watched.await;
        world.until_sessions(1).await;
        neighbour.test_unit_ready().await.good();
    });
}

#[test]
fn a_logout_is_answered_after_what_was_begun_has_ended() {
    simulate(2, &config(), |world| async move {
        let mut session = slow_world(&world).await;
        let begun = now();
        begin_write(&world, &mut session, 0, 2).await;
        session.logout().await.expect("an answer");
        assert!(now() - begun >= SLOW);
    });
}

#[test]
fn failures_of_the_store_are_told_as_what_they_are() {
    simulate(2, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let data = pattern(1, 8 * BLOCK);
        session
            .write(0, data.clone())
            .await
            .expect("connected")
            .good();
        for (kind, (key, asc, ascq)) in [
            (ErrorKind::NoSpace, (7, 0x27, 7)),
            (ErrorKind::Offline, (2, 4, 1)),
            (ErrorKind::Timeout, (0xb, 0x2e, 2)),
            (ErrorKind::Io, (3, 0x0c, 0)),
        ] {
            world
                .chaos
                .fail_with_probability(Op::Write, 1.0, Fault::Error(kind));
            let failed = session.write(0, data.clone()).await.expect("connected");
            failed.check(key, asc, ascq);
            world.chaos.heal();
        }
        world
            .chaos
            .fail_with_probability(Op::Read, 1.0, Fault::Error(ErrorKind::Io));
        session
            .read(0, 8)
            .await
            .expect("connected")
            .check(3, 0x11, 0);
        world.chaos.heal();
        let back = session.read(0, 8).await.expect("connected").good();
        assert!(back == data);
    });
}
