//! Removing targets and ending the server while initiators work.

use crate::common::{self, iqn};
use crate::initiator::{BLOCK, Initiator, Port, pattern};
use crate::world::{World, config, simulate};
use atoll_reactor::net::TcpStream;
use atoll_reactor::{JoinHandle, sleep, spawn};
use atoll_targets::server::ErrorKind;
use std::time::Duration;

/// Writes until the connection ends; logs out when asked if it is polite. Tells whether it was asked.
fn load(mut session: Initiator, polite: bool) -> JoinHandle<bool> {
    spawn(async move {
        for lba in (0..64).cycle() {
            if session
                .write(lba * 64, pattern(1, 64 * BLOCK))
                .await
                .is_err()
            {
                break;
            }
            if polite && session.asked_to_log_out() {
                session.logout().await.expect("an answer");
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        session.asked_to_log_out()
    })
}

async fn loads(world: &World, label: &str) -> Vec<JoinHandle<bool>> {
    let mut all = Vec::new();
    for number in 0..6_u8 {
        let session = world.session(Port("a", number), label).await;
        all.push(load(session, number.is_multiple_of(2)));
    }
    sleep(Duration::from_millis(30)).await;
    all
}

#[test]
fn a_target_removed_under_load_asks_its_sessions_to_leave_and_leaves_none() {
    simulate(3, &config(), |world| async move {
        let all = loads(&world, "v0").await;
        let mut neighbour = world.session(Port("n", 1), "v1").await;
        world
            .server
            .remove_target(&iqn("v0"))
            .await
            .expect("served");
        assert_eq!(world.session_count().await, 1);
        for task in all {
            assert!(task.await, "it was asked to log out");
        }
        let refused = Initiator::login(world.at, Port("a", 1), Some(&iqn("v0"))).await;
        assert_eq!(refused.err(), Some([2, 3]));
        neighbour.test_unit_ready().await.good();
        let spec = common::spec("v0", &world.volumes[0]);
        world
            .server
            .add_target(spec)
            .await
            .expect("the name is free");
        world.session(Port("a", 1), "v0").await;
    });
}

#[test]
fn the_end_of_the_server_asks_all_sessions_to_leave_and_closes_its_port() {
    simulate(3, &config(), |world| async move {
        let mut all = loads(&world, "v0").await;
        all.extend(loads(&world, "v1").await);
        let grace = Duration::from_secs(2);
        world.server.shutdown(grace).await.expect("it runs");
        for task in all {
            assert!(task.await, "it was asked to log out");
        }
        let after = world.server.sessions().await;
        assert_eq!(after.expect_err("ended").kind(), ErrorKind::Closed);
        assert!(TcpStream::connect(world.at).await.is_err());
        world.mapper.stop().await.expect("nothing uses the volumes");
    });
}

#[test]
fn the_end_without_grace_drops_all_at_once() {
    simulate(3, &config(), |world| async move {
        let all = loads(&world, "v0").await;
        world
            .server
            .shutdown(Duration::ZERO)
            .await
            .expect("it runs");
        for task in all {
            assert!(!task.await, "nobody was asked");
        }
    });
}
