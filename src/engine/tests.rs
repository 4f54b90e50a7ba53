//! The engine as the control plane uses it, on a real reactor, RocksDB and file pool. What
//! initiators see is tested end to end elsewhere.

mod snapshots;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::task::Poll;

use atoll_mapper::VolumeHandle;
use atoll_reactor::SharedBuf;
use tempfile::TempDir;

use super::verbs::Verbs;
use super::*;
use crate::api::*;
use crate::error::ErrorKind;
use crate::units::Span;

/// Starts that may find the metadata store still being closed in the background.
const MAX_STARTS: usize = 1_000_000;

fn config(dir: &TempDir) -> Config {
    let mut config = Config {
        data: dir.path().join("data"),
        ..Config::default()
    };
    let cpu = atoll_reactor::runtime::available_cpus()[0];
    config.reactor.cores = vec![cpu as u32];
    config.reactor.poll = PollMode::Never;
    config.reactor.buffer_memory = ByteSize::mib(8);
    config.iscsi.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.io_timeout = Span(Duration::from_secs(30));
    std::fs::create_dir_all(&config.data).unwrap();
    config
}

fn control(config: &Config) -> Verbs {
    let mut starts = 0;
    loop {
        starts += 1;
        match start_engine(config) {
            Err(error) if error.kind == ErrorKind::InUse && starts < MAX_STARTS => {
                std::thread::yield_now();
            }
            started => return Verbs::new(started.unwrap()),
        }
    }
}

/// Runs a verb as the admin thread does.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

fn create(volume: &str, pool: &str, size: ByteSize) -> CreateVolume {
    CreateVolume {
        name: name(volume),
        size,
        pool: name(pool),
        block_size: BlockSize::B512,
        if_not_exists: false,
    }
}

async fn list(verbs: &Verbs) -> Result<Vec<Volume>> {
    let page = verbs.volumes(ListVolumes::first()).await?;
    assert_eq!(page.next, None);
    Ok(page.volumes)
}

fn export(volume: &str) -> AddExport {
    AddExport {
        name: name(volume),
        protocols: vec![Protocol::Iscsi],
        read_only: false,
    }
}

fn pool(pool: &str, pool_type: PoolType, path: Option<&Path>) -> AddPool {
    AddPool {
        name: name(pool),
        pool_type,
        path: path.map(|path| path.display().to_string()),
        object_size: ByteSize::kib(64),
        if_not_exists: false,
    }
}

fn open(verbs: &Verbs, volume: &str) -> VolumeHandle {
    let volume = convert::name_below(&name(volume)).unwrap();
    block_on(verbs.engine.mapper.open_volume(volume)).unwrap()
}

fn write_through(verbs: &Verbs, volume: &str, offset: u64, bytes: Vec<u8>) {
    let handle = open(verbs, volume);
    let home = handle.home().clone();
    let written = home
        .call(move || async move { handle.write(offset, SharedBuf::copy_of(&bytes), true).await });
    block_on(written).unwrap().unwrap();
}

fn read(verbs: &Verbs, volume: &str, offset: u64, len: u64) -> Vec<u8> {
    let handle = open(verbs, volume);
    let home = handle.home().clone();
    let read = home.call(move || async move {
        let segments = handle.read(offset, len).await?;
        Ok::<_, atoll_mapper::Error>(segments.iter().flat_map(|part| part.to_vec()).collect())
    });
    block_on(read).unwrap().unwrap()
}

fn check(config: &Config, deep: bool) -> FsckReport {
    let depth = match deep {
        true => Depth::Data,
        false => Depth::Names,
    };
    fsck(config, depth, Box::new(|_, _| {})).unwrap()
}

#[test]
fn what_an_admin_set_and_what_was_written_is_there_after_a_stop_and_checks_clean() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = control(&config);
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(64)))).unwrap();
    wait(verbs.create_volume(create("b", "main", ByteSize::mib(32)))).unwrap();
    let renamed = wait(verbs.rename_volume(name("b"), name("c"))).unwrap();
    let resized = wait(verbs.resize_volume(name("c"), ByteSize::mib(48))).unwrap();
    assert_eq!((renamed.id, resized.size), (resized.id, ByteSize::mib(48)));
    wait(verbs.add_export(export("a"))).unwrap();
    write_through(&verbs, "a", 5 << 20, vec![0xa5; 8192]);
    assert_eq!(
        wait(verbs.volume(name("a"))).unwrap().used,
        Some(ByteSize::mib(4))
    );
    let before = (
        wait(list(&verbs)).unwrap(),
        wait(verbs.exports()).unwrap()[0].target.clone(),
    );
    wait(verbs.shutdown()).unwrap();

    let report = check(&config, true);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(
        (report.pools, report.volumes, report.objects, report.read),
        (1, 2, 1, 1)
    );

    let verbs = control(&config);
    let after = (
        wait(list(&verbs)).unwrap(),
        wait(verbs.exports()).unwrap()[0].target.clone(),
    );
    assert_eq!(before, after);
    assert_eq!(read(&verbs, "a", 5 << 20, 8192), vec![0xa5; 8192]);
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn what_was_acknowledged_as_durable_is_there_after_an_engine_that_just_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = control(&config);
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap();
    write_through(&verbs, "a", 4096, vec![0x5a; 4096]);
    drop(verbs);
    let verbs = control(&config);
    assert_eq!(read(&verbs, "a", 4096, 4096), vec![0x5a; 4096]);
    wait(verbs.shutdown()).unwrap();
    assert!(check(&config, true).is_clean());
}

#[test]
fn a_volume_is_kept_while_it_is_exported_and_its_name_is_free_once_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = control(&config(&dir));
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap();
    let exported = wait(verbs.add_export(export("a"))).unwrap();
    assert_eq!(exported.portals, [verbs.iscsi_address().to_string()]);
    let again = wait(verbs.add_export(export("a"))).unwrap_err();
    assert_eq!(again.kind, ErrorKind::AlreadyExists);
    for refused in [
        wait(verbs.delete_volume(name("a"))).unwrap_err(),
        wait(verbs.rename_volume(name("a"), name("b"))).unwrap_err(),
    ] {
        assert_eq!(refused.kind, ErrorKind::InUse);
        assert_eq!(refused.hint.as_deref(), Some("atoll export remove a"));
    }
    wait(verbs.remove_export(name("a"))).unwrap();
    let none = wait(verbs.remove_export(name("a"))).unwrap_err();
    assert_eq!(none.kind, ErrorKind::NotFound);
    wait(verbs.delete_volume(name("a"))).unwrap();
    assert!(wait(list(&verbs)).unwrap().is_empty());
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(8)))).unwrap();
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn pools_of_every_type_are_added_used_kept_while_used_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = control(&config);
    let files = dir.path().join("files");
    let added = wait(verbs.add_pool(pool("files", PoolType::File, Some(&files)))).unwrap();
    assert_eq!(added.path.as_deref(), files.to_str());
    wait(verbs.add_pool(pool("ram", PoolType::Memory, None))).unwrap();
    wait(verbs.add_pool(pool("void", PoolType::Null, None))).unwrap();
    let taken = wait(verbs.add_pool(pool("more", PoolType::File, Some(&files)))).unwrap_err();
    assert_eq!(taken.kind, ErrorKind::InUse);
    for in_pool in ["files", "ram", "void"] {
        wait(verbs.create_volume(create(in_pool, in_pool, ByteSize::mib(1)))).unwrap();
        write_through(&verbs, in_pool, 0, vec![7; 4096]);
        let used = wait(verbs.remove_pool(name(in_pool))).unwrap_err();
        assert_eq!(used.kind, ErrorKind::InUse);
    }
    let refused = wait(verbs.remove_pool(default_pool())).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    wait(verbs.shutdown()).unwrap();
    assert!(check(&config, true).is_clean());

    let verbs = control(&config);
    let names: Vec<_> = wait(verbs.pools())
        .unwrap()
        .into_iter()
        .map(|pool| pool.name)
        .collect();
    assert_eq!(names, ["files", "main", "ram", "void"].map(name));
    assert_eq!(read(&verbs, "files", 0, 4096), vec![7; 4096]);
    wait(verbs.add_pool(pool("unused", PoolType::Null, None))).unwrap();
    wait(verbs.remove_pool(name("unused"))).unwrap();
    assert_eq!(
        wait(verbs.pool(name("unused"))).unwrap_err().kind,
        ErrorKind::NotFound
    );
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn a_data_directory_can_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let verbs = control(&config);
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap();
    write_through(&verbs, "a", 0, vec![9; 4096]);
    wait(verbs.shutdown()).unwrap();
    let moved = dir.path().join("moved");
    std::fs::rename(&config.data, &moved).unwrap();
    config.data = moved.clone();
    let verbs = control(&config);
    assert_eq!(read(&verbs, "a", 0, 4096), vec![9; 4096]);
    let main = wait(verbs.pool(default_pool())).unwrap();
    assert_eq!(main.path.as_deref(), moved.join("pool").to_str());
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn a_change_goes_to_its_end_when_who_asked_for_it_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = control(&config(&dir));
    wait(async {
        let mut given_up = verbs.create_volume(create("a", "main", ByteSize::mib(16)));
        std::future::poll_fn(|cx| {
            let _ = given_up.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        drop(given_up);
        // Changes run one after the other, in the order of asking.
        verbs
            .create_volume(create("b", "main", ByteSize::mib(16)))
            .await
            .unwrap();
        assert_eq!(list(&verbs).await.unwrap().len(), 2);
    });
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn after_the_stop_every_verb_is_unavailable_and_stopping_again_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = control(&config(&dir));
    wait(verbs.shutdown()).unwrap();
    wait(verbs.shutdown()).unwrap();
    for error in [
        wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap_err(),
        wait(list(&verbs)).unwrap_err(),
        wait(verbs.exports()).unwrap_err(),
        wait(verbs.status()).unwrap_err(),
        wait(verbs.stats()).unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    }
}

#[test]
fn status_and_counters_tell_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = control(&config(&dir));
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap();
    wait(verbs.create_volume(create("idle", "main", ByteSize::mib(16)))).unwrap();
    wait(verbs.add_export(export("a"))).unwrap();
    write_through(&verbs, "a", 0, vec![1; 8192]);
    read(&verbs, "a", 0, 4096);
    let status = wait(verbs.status()).unwrap();
    assert_eq!(
        (
            status.pools,
            status.volumes,
            status.exports,
            status.sessions
        ),
        (1, 2, 1, 0)
    );
    assert_eq!(
        status.listeners[0].address,
        verbs.iscsi_address().to_string()
    );
    assert!(status.metadata.used > ByteSize::default() && status.metadata.fault.is_none());
    let stats = wait(verbs.stats()).unwrap();
    assert_eq!(stats.volumes.len(), 1, "those that were used: {stats:?}");
    let io = stats.volumes[0].io;
    assert_eq!(
        (io.reads, io.read_bytes, io.writes, io.write_bytes),
        (1, 4096, 1, 8192)
    );
    assert_eq!(
        (stats.exports.len(), stats.exports[0].commands.reads),
        (1, 0)
    );
    assert!(stats.cores[0].turns > 0);
    wait(verbs.shutdown()).unwrap();
}

fn refusal(config: &Config) -> Error {
    match start_engine(config) {
        Ok(_) => panic!("it has started"),
        Err(error) => error,
    }
}

#[test]
fn a_cpu_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.reactor.cores = vec![4095];
    let error = refusal(&config);
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(
        error.message.contains("CPU 4095") && error.hint.is_some(),
        "{error}"
    );
}

#[test]
fn a_port_in_use_is_named_with_the_way_out_and_the_start_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    config.iscsi.listen = other.local_addr().unwrap();
    let error = refusal(&config);
    assert_eq!(error.kind, ErrorKind::InUse, "{error}");
    assert!(
        error.message.contains(&config.iscsi.listen.to_string()),
        "{error}"
    );
    assert!(error.hint.unwrap().contains("--iscsi"));
    drop(other);
    let verbs = control(&config);
    assert_eq!(verbs.iscsi_address(), config.iscsi.listen);
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn a_pool_without_its_metadata_is_not_started_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    wait(control(&config).shutdown()).unwrap();
    std::fs::remove_dir_all(config.metadata_path()).unwrap();
    let error = refusal(&config);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("no metadata store"), "{error}");
    assert!(!config.metadata_path().exists(), "nothing was made");
}

#[test]
fn a_check_says_which_pool_it_could_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = control(&config);
    wait(verbs.create_volume(create("a", "main", ByteSize::mib(16)))).unwrap();
    wait(verbs.shutdown()).unwrap();
    std::fs::remove_dir_all(config.data.join(DEFAULT_POOL_DIR)).unwrap();
    let report = check(&config, false);
    assert!(!report.is_clean());
    let finding = &report.findings[0];
    assert_eq!(
        (finding.kind.as_str(), finding.place.as_str()),
        ("pool_unopened", "pool \"main\"")
    );
    assert_eq!(fsck_code(&config, &[]), 7, "not checked, and nothing found");
}

/// Exit code of `atoll fsck`.
fn fsck_code(config: &Config, more: &[&str]) -> u8 {
    let data = config.data.to_str().unwrap();
    let args = ["atoll", "fsck", "--data", data].into_iter();
    let args = args.chain(more.iter().copied()).map(Into::into);
    crate::cli::run(args, &mut Vec::new(), &mut Vec::new())
}

/// Leaves every volume as one leaves it whose flush has failed.
fn mark_as_faulted(config: &Config) {
    use atoll_mapper::format::{Key, KeyRange, NodeRow, Table, open_row};
    use atoll_mapper::meta::{Batch, Durability, MetaReader};
    let options = RocksOptions::default();
    let meta = RocksMeta::open(&config.metadata_path(), OpenMode::Existing, &options).unwrap();
    let nodes = KeyRange::prefix(Table::Node);
    block_on(async {
        let mut batch = Batch::new();
        for (key, value) in meta.scan(&nodes.from, &nodes.to, 100).await.unwrap() {
            let row: NodeRow = open_row(&key, &value).unwrap();
            let row = NodeRow {
                faulted: true,
                ..row
            };
            batch.put_row(Key::from_bytes(&key), &row);
        }
        meta.commit(batch, Durability::Synced).await.unwrap();
        meta.close().await.unwrap();
    });
}

#[test]
fn a_faulted_volume_is_shown_and_refuses_until_a_deep_check_without_errors_clears_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = control(&config);
    for volume in ["a", "b"] {
        wait(verbs.create_volume(create(volume, "main", ByteSize::mib(16)))).unwrap();
        write_through(&verbs, volume, 0, vec![7; 8192]);
    }
    wait(verbs.add_export(export("a"))).unwrap();
    wait(verbs.shutdown()).unwrap();
    mark_as_faulted(&config);

    let shown_as_faulted = || {
        let verbs = control(&config);
        for volume in wait(list(&verbs)).unwrap() {
            let fault = volume.fault.expect("it says why, exported or not");
            assert_eq!(volume.state, VolumeState::Faulted);
            assert!(fault.contains("fsck --deep --clear-faults"), "{fault}");
        }
        let handle = open(&verbs, "a");
        let home = handle.home().clone();
        let refused = block_on(home.call(move || async move { handle.read(0, 4096).await }));
        let error = refused.unwrap().unwrap_err();
        assert_eq!(error.kind(), atoll_mapper::ErrorKind::Faulted, "{error}");
        wait(verbs.shutdown()).unwrap();
    };
    shown_as_faulted();
    // No other check clears it, nor one that finds an error.
    let report = check(&config, true);
    assert!(report.is_clean() && report.count(Severity::Warning) == 2);
    assert!(report.findings.iter().all(|f| f.kind == "volume_faulted"));
    let object = object_files(&config.data).pop().unwrap();
    let away = dir.path().join("away");
    std::fs::rename(&object, &away).unwrap();
    assert_eq!(fsck_code(&config, &["--deep", "--clear-faults"]), 1);
    std::fs::rename(&away, &object).unwrap();
    shown_as_faulted();

    let clear = || fsck(&config, Depth::DataAndClear, Box::new(|_, _| {})).unwrap();
    assert_eq!(clear().cleared, ["a", "b"]);
    let again = clear();
    assert!(again.cleared.is_empty() && again.findings.is_empty());
    assert_eq!(fsck_code(&config, &["--deep", "--clear-faults"]), 0);
    let verbs = control(&config);
    for volume in wait(list(&verbs)).unwrap() {
        assert_eq!((volume.state, volume.fault), (VolumeState::Ok, None));
    }
    assert_eq!(read(&verbs, "a", 0, 8192), vec![7; 8192]);
    write_through(&verbs, "b", 0, vec![8; 4096]);
    wait(verbs.shutdown()).unwrap();
}

/// Files of objects in the default pool.
fn object_files(data: &Path) -> Vec<std::path::PathBuf> {
    let mut left = vec![data.join(DEFAULT_POOL_DIR).join("objects")];
    let mut files = Vec::new();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

#[test]
fn faults_are_cleared_only_after_everything_was_read() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(fsck_code(&config(&dir), &["--clear-faults"]), 2);
}
