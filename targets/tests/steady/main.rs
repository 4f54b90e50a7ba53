//! In the steady state a read or a write costs no call of the heap on a reactor: iSCSI server, mapper and store on one
//! real core, the initiator on another, and an allocator that counts per thread.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../reactor/tests/common/counting.rs"]
mod counting;
#[path = "../server/initiator.rs"]
#[allow(dead_code, reason = "it can more")]
mod initiator;

use atoll_backends::{FileOptions, FilePool, ObjectSize, Pool, PoolId};
use atoll_mapper::Mapper;
use atoll_reactor::runtime::available_cpus;
use atoll_reactor::{CoreHandle, Runtime, RuntimeConfig, block_on};
use atoll_targets::server::{IscsiServer, IscsiServerConfig};
use initiator::{Initiator, Port, pattern, transfer};
use std::ops::Range;
use std::sync::Arc;

const VOLUME_BYTES: u64 = 16 << 20;
const IO_BYTES: usize = 4096;
const SECTORS: usize = IO_BYTES / initiator::BLOCK;
/// Commands outstanding.
const DEPTH: u64 = 8;
/// Commands of the shorter run.
const COMMANDS: u64 = 2000;
/// Calls of the heap that are not a command's: what the clock starts, and queues that grow to their size.
const OTHER_CALLS: u64 = COMMANDS / 20;

/// The mapper serves as long as it is kept.
async fn serve(cores: Vec<CoreHandle>, pool: Arc<dyn Pool>) -> (Mapper, IscsiServer) {
    let mapper = common::mapper(cores.clone(), pool, 1).await;
    let volume = common::volume(&mapper, "v", 1, VOLUME_BYTES).await;
    let config = IscsiServerConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        ..IscsiServerConfig::default()
    };
    let server = IscsiServer::start(cores, config).await.expect("it starts");
    let target = common::spec("v", &volume);
    server.add_target(target).await.expect("a new target");
    (mapper, server)
}

fn runtime(cpus: Range<usize>) -> Runtime {
    let available = available_cpus();
    let config = RuntimeConfig {
        cpus: cpus.map(|cpu| available[cpu % available.len()]).collect(),
        ..RuntimeConfig::default()
    };
    Runtime::start(config).expect("this kernel has io_uring")
}

/// What one command of the load is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Read,
    Write,
}

async fn run(session: &mut Initiator, load: Load, commands: u64, data: &[u8]) {
    let blocks = VOLUME_BYTES / IO_BYTES as u64;
    for round in 0..commands / DEPTH {
        let mut tags = Vec::new();
        for number in round * DEPTH..(round + 1) * DEPTH {
            let lba = (number * 7919 % blocks) as u32 * SECTORS as u32;
            let tag = match load {
                Load::Read => session.submit(transfer(0x88, lba, SECTORS), Vec::new(), IO_BYTES),
                Load::Write => session.submit(transfer(0x8a, lba, SECTORS), data.to_vec(), 0),
            };
            tags.push(tag.await.expect("connected"));
        }
        for tag in tags {
            let answer = session.finish(tag).await.expect("connected").good();
            assert!(load == Load::Write || answer == data);
        }
    }
}

async fn calls_of(cores: &[CoreHandle]) -> u64 {
    let mut sum = 0;
    for core in cores {
        let calls = core.call(|| async { counting::calls() }).await;
        sum += calls.expect("it runs");
    }
    sum
}

/// Runs loads on a volume of the pool and asserts that their calls of the heap are none of the commands'.
fn measure<F, Fut>(cores: usize, pool: F)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Arc<dyn Pool>> + 'static,
{
    let serving = runtime(0..cores);
    let cores = serving.cores().to_vec();
    let pool = serving.run(pool).expect("the core runs");
    let (_mapper, server) = block_on(serve(cores.clone(), pool));
    let at = server.local_addr();
    let client = runtime(cores.len()..cores.len() + 1);
    let calls = client.run(move || async move {
        let port = Port("steady", 1);
        let session = Initiator::login(at, port, Some(&common::iqn("v"))).await;
        let mut session = session.expect("login").ready().await;
        let data = pattern(1, IO_BYTES);
        let every = VOLUME_BYTES / IO_BYTES as u64;
        run(&mut session, Load::Write, every, &data).await;
        let mut calls = Vec::new();
        for load in [Load::Write, Load::Read] {
            run(&mut session, load, COMMANDS, &data).await;
            let mut of_runs = Vec::new();
            for commands in [COMMANDS, 2 * COMMANDS] {
                let before = calls_of(&cores).await;
                run(&mut session, load, commands, &data).await;
                of_runs.push(calls_of(&cores).await - before);
            }
            let told = if of_runs[1] > OTHER_CALLS {
                for core in &cores {
                    core.call(|| async { counting::tell() })
                        .await
                        .expect("it runs");
                }
                run(&mut session, load, COMMANDS, &data).await;
                let mut told = Vec::new();
                for core in &cores {
                    told.extend(
                        core.call(|| async { counting::told() })
                            .await
                            .expect("it runs"),
                    );
                }
                told
            } else {
                Vec::new()
            };
            calls.push((load, of_runs, told));
        }
        calls
    });
    let mut costly = String::new();
    for (load, calls, told) in calls.expect("the initiator ends") {
        let (short, long) = (calls[0], calls[1]);
        println!("{load:?}: {COMMANDS} commands: {short} calls of the heap; twice as many: {long}");
        if long > OTHER_CALLS {
            costly += &format!("{load:?}: {long} calls of the heap:\n{}\n", told.join("\n"));
        }
    }
    assert!(costly.is_empty(), "{costly}");
    drop(client);
    drop(serving);
}

#[test]
fn commands_on_a_pool_in_memory_cost_no_call_of_the_heap() {
    measure(1, || async { common::memory(1 << 30) });
}

#[test]
fn commands_on_a_pool_of_files_cost_no_call_of_the_heap() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    measure(1, move || async move {
        let size = ObjectSize::new(common::OBJECT_SIZE).expect("a legal size");
        let options = FileOptions::default();
        let pool = FilePool::create(&path, PoolId([3; 16]), size, options).await;
        Arc::new(pool.expect("an empty directory")) as Arc<dyn Pool>
    });
}
