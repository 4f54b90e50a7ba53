//! Serves a volume in memory over iSCSI, for trying real initiators on the server alone. Not the daemon: nothing is
//! kept. Arguments: the address to listen on (127.0.0.1:3261), the volume's MiB (1024), the number of cores (1).

#[path = "../tests/common/mod.rs"]
mod common;

use atoll_reactor::{Runtime, RuntimeConfig, block_on, runtime::available_cpus};
use atoll_targets::server::{IscsiServer, IscsiServerConfig};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:3261".into());
    let size: u64 = arguments.next().unwrap_or_else(|| "1024".into()).parse()?;
    let cores: usize = arguments.next().unwrap_or_else(|| "1".into()).parse()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let config = RuntimeConfig {
        cpus: available_cpus().into_iter().take(cores).collect(),
        ..RuntimeConfig::default()
    };
    let runtime = Runtime::start(config)?;
    let cores = runtime.cores().to_vec();
    let served = block_on(serve(cores, listen, size << 20))?;
    println!("iscsi://{}/{}/0", served.local_addr(), common::iqn("demo"));
    loop {
        std::thread::park();
    }
}

async fn serve(
    cores: Vec<atoll_reactor::CoreHandle>,
    listen: String,
    size: u64,
) -> Result<IscsiServer, Failure> {
    let pool = common::memory(8 << 30);
    let mapper = common::mapper(cores.clone(), pool, 1).await;
    let volume = common::volume(&mapper, "demo", 1, size).await;
    let config = IscsiServerConfig {
        listen: listen.parse()?,
        ..IscsiServerConfig::default()
    };
    let server = IscsiServer::start(cores, config).await?;
    server.add_target(common::spec("demo", &volume)).await?;
    Ok(server)
}
