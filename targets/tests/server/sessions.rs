//! Logins, discovery, reinstatement, limits and silence.

use crate::common::{self, iqn};
use crate::initiator::{BLOCK, Ended, Initiator, Port, pattern};
use crate::world::{config, simulate};
use atoll_reactor::{now, sleep, spawn};
use atoll_targets::iscsi::pdu::Tsih;
use atoll_targets::server::limits::{CROWDED_LOGIN_TIME, MAX_CONNECTIONS_IN_LOGIN};
use atoll_targets::server::{ErrorKind, IscsiServerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[test]
fn discovery_tells_every_target_and_its_portal() {
    simulate(2, &config(), |world| async move {
        let mut session = Initiator::login(world.at, Port("a", 1), None)
            .await
            .expect("login");
        let text = session.discover().await;
        let expected = ["v0", "v1"]
            .map(|label| format!("TargetName={}\0TargetAddress={},1\0", iqn(label), world.at));
        assert_eq!(text, expected.concat());
        let session = &world.server.sessions().await.expect("it runs")[0];
        assert_eq!(session.target, None);
    });
}

#[test]
fn discovery_tells_the_advertised_portals() {
    let advertised = ["192.0.2.7:3260", "[2001:db8::1]:860"];
    let config = IscsiServerConfig {
        advertise: advertised
            .map(|at| at.parse().expect("an address"))
            .to_vec(),
        ..config()
    };
    simulate(1, &config, move |world| async move {
        let mut session = Initiator::login(world.at, Port("a", 1), None)
            .await
            .expect("login");
        let text = session.discover().await;
        assert!(text.starts_with(&format!(
            "TargetName={}\0TargetAddress=192.0.2.7:3260,1\0TargetAddress=[2001:db8::1]:860,1\0",
            iqn("v0")
        )));
    });
}

#[test]
fn a_target_that_is_not_there_is_not_found_and_names_have_no_case() {
    simulate(1, &config(), |world| async move {
        let absent = iqn("absent");
        let refused = Initiator::login(world.at, Port("a", 1), Some(&absent)).await;
        assert_eq!(refused.err(), Some([2, 3]));
        let upper = iqn("v0").to_ascii_uppercase();
        let session = Initiator::login(world.at, Port("a", 1), Some(&upper)).await;
        assert!(session.is_ok());
    });
}

#[test]
fn sessions_are_spread_over_the_cores_and_each_has_a_handle_of_its_own() {
    simulate(2, &config(), |world| async move {
        let mut running = Vec::new();
        for number in 0..24_u8 {
            let mut session = world.session(Port("a", number), "v0").await;
            running.push(spawn(async move {
                let data = pattern(u64::from(number), 64 * BLOCK);
                let lba = u32::from(number) * 64;
                session
                    .write(lba, data.clone())
                    .await
                    .expect("connected")
                    .good();
                let back = session.read(lba, 64).await.expect("connected").good();
                assert!(back == data);
                session
            }));
        }
        let mut kept = Vec::new();
        for task in running {
            kept.push(task.await);
        }
        let sessions = world.server.sessions().await.expect("it runs");
        let handles: BTreeSet<u16> = sessions.iter().map(|session| session.tsih).collect();
        let told: BTreeSet<u16> = kept.iter().map(|session| session.tsih).collect();
        assert_eq!(handles, told);
        assert!(!handles.contains(&0) && handles.len() == 24);
        let mut cores = BTreeMap::new();
        for session in &sessions {
            *cores.entry(session.core).or_insert(0) += 1;
            assert_eq!((session.counters.reads, session.counters.writes), (1, 1));
        }
        let least = cores.values().min().expect("there are sessions");
        let most = cores.values().max().expect("there are sessions");
        assert!(most - least <= 1, "{cores:?}");
    });
}

#[test]
fn a_session_that_logs_in_again_replaces_its_older_self_and_no_other() {
    simulate(4, &config(), |world| async move {
        let mut old = world.session(Port("a", 1), "v0").await;
        let mut neighbour = world.session(Port("a", 2), "v0").await;
        let mut elsewhere = world.session(Port("a", 1), "v1").await;
        let writer = spawn(async move {
            loop {
                if let Err(Ended) = old.write(0, pattern(1, 512 * BLOCK)).await {
                    return;
                }
            }
        });
        sleep(Duration::from_millis(3)).await;
        let mut new = world.session(Port("a", 1), "v0").await;
        // The old one has ended when the new one is let in, and writes nothing any more.
        new.write(0, pattern(2, 512 * BLOCK))
            .await
            .expect("connected")
            .good();
        writer.await;
        let back = new.read(0, 512).await.expect("connected").good();
        assert!(back == pattern(2, 512 * BLOCK));
        neighbour.test_unit_ready().await.good();
        elsewhere.test_unit_ready().await.good();
        assert_eq!(world.session_count().await, 3);
    });
}

/// RFC 7143 §6.3.1: a TSIH names a session to be joined, which no second connection can.
#[test]
fn a_login_to_an_existing_session_is_refused_and_ends_nothing() {
    simulate(1, &config(), |world| async move {
        let mut session = world.session(Port("a", 1), "v0").await;
        let ask = |tsih: u16, port: Port| async move {
            let mut login = Initiator::connect(world.at).await;
            login.asked_tsih = Tsih(tsih);
            login.log_in(port, Some(&iqn("v0"))).await.err()
        };
        let too_many = ask(session.tsih, Port("a", 1)).await;
        assert_eq!(too_many, Some([2, 6]));
        // Another port's session, and one that is not there: neither exists for who asks.
        assert_eq!(ask(session.tsih, Port("b", 1)).await, Some([2, 0x0a]));
        assert_eq!(ask(session.tsih + 1, Port("a", 1)).await, Some([2, 0x0a]));
        session.test_unit_ready().await.good();
    });
}

#[test]
fn two_at_once_with_one_name_end_with_one_session() {
    simulate(6, &config(), |world| async move {
        let target = iqn("v0");
        let (at, name) = (world.at, target.clone());
        let other = spawn(async move {
            let session = Initiator::login(at, Port("a", 1), Some(&name)).await;
            session.map(|session| session.tsih).ok();
        });
        let one = Initiator::login(world.at, Port("a", 1), Some(&target)).await;
        other.await;
        drop(one);
        world.until_sessions(0).await;
        world
            .session(Port("a", 1), "v0")
            .await
            .test_unit_ready()
            .await
            .good();
    });
}

#[test]
fn sessions_beyond_the_limit_are_refused_until_one_ends() {
    let config = IscsiServerConfig {
        max_sessions: 3,
        ..config()
    };
    simulate(1, &config, |world| async move {
        let mut kept = Vec::new();
        for number in 0..3 {
            kept.push(world.session(Port("a", number), "v0").await);
        }
        let refused = Initiator::login(world.at, Port("b", 1), Some(&iqn("v0"))).await;
        assert_eq!(refused.err(), Some([3, 2]));
        kept.pop()
            .expect("three")
            .logout()
            .await
            .expect("an answer");
        world.until_sessions(2).await;
        // Its place is free when all of it has ended.
        loop {
            match Initiator::login(world.at, Port("b", 1), Some(&iqn("v0"))).await {
                Ok(_) => break,
                Err(status) => assert_eq!(status, [3, 2]),
            }
        }
    });
}

#[test]
fn a_silent_initiator_is_pinged_and_then_dropped_one_that_answers_is_kept() {
    simulate(1, &config(), |world| async move {
        let mut dead = world.session(Port("dead", 1), "v0").await;
        dead.answer_pings = false;
        let mut live = world.session(Port("live", 1), "v0").await;
        let kept = spawn(async move {
            live.until_end().await;
        });
        let begun = now();
        dead.until_end().await;
        assert!(now() - begun >= Duration::from_secs(29));
        world.until_sessions(1).await;
        drop(kept);
    });
}

#[test]
fn one_who_never_logs_in_is_cut_off() {
    simulate(1, &config(), |world| async move {
        let begun = now();
        let mut stranger = Initiator::connect(world.at).await;
        stranger.until_end().await;
        assert!(now() - begun >= Duration::from_secs(14));
    });
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    simulate(2, &config(), |world| async move {
        let mut kept = world.session(Port("kept", 1), "v0").await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS_IN_LOGIN + 20 {
            silent.push(Initiator::connect(world.at).await);
        }
        let begun = now();
        let mut honest = world.session(Port("honest", 1), "v0").await;
        let took = now() - begun;
        assert!(took < CROWDED_LOGIN_TIME * 3, "{took:?}");
        honest.test_unit_ready().await.good();
        kept.test_unit_ready().await.good();
        // They are not served for longer than a login may take either.
        for mut stranger in silent {
            stranger.until_end().await;
        }
        kept.test_unit_ready().await.good();
    });
}

#[test]
fn names_that_no_target_can_have_are_refused() {
    simulate(1, &config(), |world| async move {
        let volume = &world.volumes[0];
        let again = world.server.add_target(common::spec("v0", volume)).await;
        assert_eq!(again.expect_err("taken").kind(), ErrorKind::AlreadyExists);
        for name in ["disk", "iqn.2026-11.io.atoll:Upper"] {
            let mut spec = common::spec("x", volume);
            spec.iqn = name.into();
            let refused = world.server.add_target(spec).await;
            assert_eq!(refused.expect_err(name).kind(), ErrorKind::Invalid);
        }
        let absent = world.server.remove_target(&iqn("absent")).await;
        assert_eq!(absent.expect_err("absent").kind(), ErrorKind::NotFound);
    });
}
