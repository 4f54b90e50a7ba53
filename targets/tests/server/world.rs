//! One simulated server with volumes, and how tests run in it.

use crate::common;
use crate::initiator::{Initiator, Port};
use atoll_backends::{Chaos, ChaosHandle, ChaosOptions};
use atoll_mapper::{Mapper, VolumeHandle};
use atoll_reactor::sim::{Sim, SimNet};
use atoll_reactor::{CoreId, cores};
use atoll_targets::server::{IscsiServer, IscsiServerConfig};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

pub const VOLUME_BYTES: u64 = 64 << 20;

pub struct World {
    pub server: IscsiServer,
    pub mapper: Mapper,
    pub chaos: ChaosHandle,
    pub net: SimNet,
    pub at: SocketAddr,
    pub volumes: Vec<VolumeHandle>,
}

pub fn config() -> IscsiServerConfig {
    IscsiServerConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        ..IscsiServerConfig::default()
    }
}

/// Runs a test on simulations of one and of two cores, the initiators on a core of their own.
pub fn simulate<F, Fut>(seeds: u64, config: &IscsiServerConfig, test: F)
where
    F: Fn(World) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    simulate_on(1 << 30, seeds, config, test);
}

/// The same with a pool of so many bytes.
pub fn simulate_on<F, Fut>(pool_bytes: u64, seeds: u64, config: &IscsiServerConfig, test: F)
where
    F: Fn(World) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    for seed in 0..seeds {
        for served in [1_u16, 2] {
            println!("seed {seed}, {served} cores");
            let mut sim = Sim::new(seed * 31 + u64::from(served), served + 1);
            let (net, config, test) = (sim.net(), config.clone(), test.clone());
            let run = sim.spawn(CoreId(served), async move {
                let serving = cores()[..usize::from(served)].to_vec();
                let options = ChaosOptions {
                    seed,
                    atomic_unit: 512,
                };
                let (pool, chaos) = Chaos::new(common::memory(pool_bytes), options);
                let mapper = common::mapper(serving.clone(), Arc::new(pool), seed).await;
                let server = IscsiServer::start(serving, config)
                    .await
                    .expect("it starts");
                let mut volumes = Vec::new();
                for number in 0..2 {
                    let label = format!("v{number}");
                    let volume = common::volume(&mapper, &label, number, VOLUME_BYTES).await;
                    let spec = common::spec(&label, &volume);
                    server.add_target(spec).await.expect("a new target");
                    volumes.push(volume);
                }
                let at = server.local_addr();
                test(World {
                    server,
                    mapper,
                    chaos,
                    net,
                    at,
                    volumes,
                })
                .await;
            });
            sim.join(run);
        }
    }
}

impl World {
    /// A session past its first unit attention.
    pub async fn session(&self, port: Port, label: &str) -> Initiator {
        let session = Initiator::login(self.at, port, Some(&common::iqn(label))).await;
        session.expect("login").ready().await
    }

    pub async fn session_count(&self) -> usize {
        self.server.sessions().await.expect("it runs").len()
    }

    /// Bytes that all cores hold for commands.
    pub async fn held(&self) -> usize {
        let held = self.server.command_memory().await.expect("it runs");
        held.into_iter().sum()
    }

    /// Waits until so many calls of the store hang.
    pub async fn until_hanging(&self, count: usize) {
        while self.chaos.hanging() != count {
            atoll_reactor::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Waits until this many sessions are left.
    pub async fn until_sessions(&self, count: usize) {
        while self.session_count().await != count {
            atoll_reactor::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}
