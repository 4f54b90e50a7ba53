//! Content out of a daemon and into it: images that QEMU made, exports and differences, and what kills and Ctrl-C leave
//! of them.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use atoll_e2e::daemon::{IQN, fsck};
use atoll_e2e::initiator::{Durability, Initiator};
use atoll_e2e::process::{self, Signal};
use atoll_e2e::{Daemon, Options, Scratch};
use serde_json::Value;

const SECTOR: usize = 512;
const MIB: u64 = 1 << 20;
/// SIGINT, by a shell's rule.
const EXIT_SIGINT: i32 = 130;

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let word = |n: u64| (n + 1).wrapping_mul(seed.wrapping_mul(2) + 1);
    (0..len as u64 / 8)
        .flat_map(|n| word(n).to_le_bytes())
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn daemon(scratch: &Scratch) -> Daemon {
    Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"))
}

fn login(daemon: &Daemon, volume: &str) -> Initiator {
    let target = format!("{IQN}:{volume}");
    Initiator::login(daemon.iscsi(), &target, "iqn.2026-11.test:transfer")
        .unwrap_or_else(|e| panic!("{e}"))
}

fn write(initiator: &mut Initiator, offset: u64, mut data: Vec<u8>) {
    let lba = offset / SECTOR as u64;
    for (n, part) in data.chunks_mut(512 << 10).enumerate() {
        let lba = lba + (n * (512 << 10) / SECTOR) as u64;
        initiator
            .write(lba, part, Durability::Flush)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

fn names(daemon: &Daemon) -> Vec<String> {
    let list = daemon.json(&["volume", "list"]);
    let list = list.as_array().expect("a list").iter();
    list.filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect()
}

/// The content of a volume or snapshot, as a plain image.
fn content(daemon: &Daemon, scratch: &Scratch, name: &str) -> Vec<u8> {
    let path = scratch.path().join(format!("content-of-{name}"));
    let _ = fs::remove_file(&path);
    daemon.run(&["volume", "export-file", name, text(&path), "--raw"]);
    fs::read(&path).expect("the image")
}

/// A volume with content here and there, `mib` of it at its beginning, and its snapshot.
fn filled(daemon: &Daemon, name: &str, mib: u64) {
    daemon.export_new(name, "64M", &[]);
    let mut session = login(daemon, name);
    write(&mut session, 0, pattern(mib, (mib * MIB) as usize));
    write(&mut session, 50 * MIB + 512, pattern(3, 1024));
    write(&mut session, 64 * MIB - 4096, pattern(4, 4096));
    session.logout();
    daemon.run(&["volume", "snapshot", name, &format!("{name}-mon")]);
}

fn qemu_img(args: &[&str]) {
    process::succeed(process::command("qemu-img").args(args));
}

#[test]
fn images_of_every_format_that_qemu_makes_come_in_and_go_out_as_they_were() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let raw = scratch.path().join("image.raw");
    let image = File::create(&raw).expect("an image");
    image.set_len(64 * MIB).expect("its size");
    for (offset, len) in [(0, 4096), (5 * MIB, 3 << 20), (64 * MIB - 512, 512)] {
        image
            .write_all_at(&pattern(offset + 7, len), offset)
            .expect("written");
    }
    for format in ["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"] {
        let path = scratch.path().join(format!("image.{format}"));
        if format != "raw" {
            // As large as what it is made of: VHD rounds to cylinders otherwise.
            let exact: &[&str] = match format {
                "vpc" => &["-o", "force_size=on"],
                _ => &[],
            };
            let convert = ["convert", "-f", "raw", "-O", format];
            qemu_img(&[&convert, exact, &[text(&raw), text(&path)]].concat());
        }
        daemon.run(&["volume", "import-file", format, text(&path)]);
        let out = scratch.path().join(format!("{format}.out"));
        daemon.run(&["volume", "export-file", format, text(&out), "--raw"]);
        qemu_img(&[
            "compare",
            "-s",
            "-f",
            "raw",
            "-F",
            "raw",
            text(&raw),
            text(&out),
        ]);
        let used = daemon.json(&["volume", "show", format])["used"].as_u64();
        // The objects that hold something, no more: 4 MiB each.
        assert_eq!(used, Some(12 * MIB), "{format}");
    }
    let left = fs::read_dir(std::env::temp_dir()).expect("the directory");
    let left = left.flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().starts_with("atoll-import."))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn an_image_that_builds_on_another_file_is_refused_and_so_is_one_without_qemu_img() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let secret = scratch.path().join("secret");
    fs::write(&secret, vec![7; 1 << 20]).expect("written");
    let image = scratch.path().join("image");
    let backing = format!("backing_file={},backing_fmt=raw", text(&secret));
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &backing,
        text(&image),
        "1M",
    ]);
    let said = daemon.refused(&["volume", "import-file", "vol", text(&image)]);
    assert!(said.contains("builds on another file"), "{said}");

    let alone = scratch.path().join("alone");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&alone), "1M"]);
    // Only what starts the command is on the path.
    let bin = scratch.dir("bin");
    let setpriv = process::succeed(process::command("sh").args(["-c", "command -v setpriv"]));
    std::os::unix::fs::symlink(setpriv.trim(), bin.join("setpriv")).expect("a link");
    let mut command = daemon.command(&["volume", "import-file", "vol", text(&alone)]);
    let output = process::run(command.env("PATH", &bin));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("apt install qemu-utils"), "{said}");
    assert!(names(&daemon).is_empty());
}

#[test]
fn what_is_cut_off_or_damaged_is_not_taken_for_an_image() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let raw = scratch.path().join("image.raw");
    fs::write(&raw, pattern(1, 8 << 20)).expect("written");
    let whole = scratch.path().join("image.qcow2");
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        text(&raw),
        text(&whole),
    ]);
    let bytes = fs::read(&whole).expect("the image");
    fs::write(&whole, &bytes[..bytes.len() / 2]).expect("written");
    let said = daemon.refused(&["volume", "import-file", "vol", text(&whole)]);
    assert!(said.contains("damaged"), "{said}");

    filled(&daemon, "vm", 1);
    let export = scratch.path().join("export");
    daemon.run(&["volume", "export-file", "vm-mon", text(&export)]);
    let mut bytes = fs::read(&export).expect("the export");
    bytes[1] ^= 4;
    fs::write(&export, &bytes).expect("written");
    let said = daemon.refused(&["volume", "import-file", "vol", text(&export)]);
    assert!(said.contains("nearly as an export"), "{said}");

    fs::write(&export, b"").expect("written");
    let said = daemon.refused(&["volume", "import-file", "vol", text(&export)]);
    assert!(said.contains("is empty"), "{said}");
    assert!(!names(&daemon).contains(&"vol".to_owned()));
}

#[test]
fn a_chain_of_differences_restores_every_state_and_the_copy_is_clean() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    filled(&daemon, "vm", 9);
    let mut session = login(&daemon, "vm");
    write(&mut session, MIB - 512, pattern(21, 3072));
    session.unmap(8 * MIB / 512, 8192).expect("unmap");
    write(&mut session, 40 * MIB, pattern(22, 4096));
    session.logout();
    daemon.run(&["volume", "snapshot", "vm", "vm-tue"]);
    daemon.run(&["volume", "resize", "vm", "80M"]);
    let mut session = login(&daemon, "vm");
    write(&mut session, 79 * MIB, pattern(23, 1 << 20));
    write(&mut session, 40 * MIB, vec![0; 4096]);
    session.logout();
    daemon.run(&["volume", "snapshot", "vm", "vm-wed"]);
    daemon.run(&["volume", "resize", "vm", "16M"]);
    daemon.run(&["volume", "resize", "vm", "48M"]);
    daemon.run(&["volume", "snapshot", "vm", "vm-thu"]);

    let mut before: Option<&str> = None;
    for day in ["mon", "tue", "wed", "thu"] {
        let (snapshot, path) = (format!("vm-{day}"), scratch.path().join(day));
        let from = before.map(|before| format!("vm-{before}"));
        let mut args = vec!["volume", "export-file", &snapshot, text(&path)];
        args.extend(
            from.as_deref()
                .into_iter()
                .flat_map(|from| ["--from", from]),
        );
        daemon.run(&args);
        before = Some(day);
        let diff = |from: &str| daemon.json(&["diff", from, &snapshot]);
        if let Some(from) = &from {
            assert!(!diff(from).as_array().expect("an array").is_empty());
        }
        assert_eq!(diff(&snapshot), Value::Array(Vec::new()));
    }
    let changed = fs::metadata(scratch.path().join("tue"))
        .expect("there")
        .len();
    assert!(changed < 5 * MIB, "{changed}");

    // To another daemon.
    let other_scratch = Scratch::new();
    let other = self::daemon(&other_scratch);
    for day in ["mon", "tue", "wed", "thu"] {
        let path = scratch.path().join(day);
        other.run(&["volume", "import-file", "copy", text(&path)]);
        let expected = content(&daemon, &scratch, &format!("vm-{day}"));
        assert!(content(&other, &other_scratch, "copy") == expected, "{day}");
    }
    for day in ["mon", "tue", "wed", "thu"] {
        let expected = content(&daemon, &scratch, &format!("vm-{day}"));
        let kept = format!("copy.vm-{day}");
        assert!(content(&other, &other_scratch, &kept) == expected, "{day}");
    }
    // A clone of the base takes the difference, too; what was written to does not.
    daemon.run(&["volume", "clone", "vm-mon", "clone"]);
    daemon.run(&["export", "add", "clone"]);
    write(&mut login(&daemon, "clone"), 0, vec![1; 4096]);
    daemon.run(&["export", "remove", "clone"]);
    let tue = scratch.path().join("tue");
    let said = daemon.refused(&["volume", "import-file", "clone", text(&tue)]);
    assert!(said.contains("changed since snapshot \"vm-mon\""), "{said}");
    daemon.run(&["volume", "rollback", "clone", "vm-mon"]);
    daemon.run(&["volume", "import-file", "clone", text(&tue)]);
    assert!(content(&daemon, &scratch, "clone") == content(&daemon, &scratch, "vm-tue"));
    for daemon in [daemon, other] {
        let (options, status) = daemon.stop();
        assert!(status.success(), "{status}");
        fsck(&options.data);
    }
}

/// Waits until `done` says so; panics if the child ends before.
fn until(child: &mut Child, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + process::PATIENCE;
    while !done() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended: {ended:?}");
        assert!(std::time::Instant::now() < deadline, "nothing happens");
        std::thread::yield_now();
    }
}

#[test]
fn an_export_that_was_killed_goes_on_to_the_same_file() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    filled(&daemon, "vm", 48);
    let [whole, part] = ["whole", "part"].map(|name| scratch.path().join(name));
    daemon.run(&["volume", "export-file", "vm-mon", text(&whole)]);
    let whole = fs::read(whole).expect("the export");

    let length = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    let mut command = daemon.command(&["volume", "export-file", "vm-mon", text(&part)]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("setpriv");
    until(&mut child, || length(&part) > 4 * MIB);
    process::send(&child, Signal::Kill);
    process::wait(&mut child, "a killed export");
    let left = length(&part);
    assert!(left < whole.len() as u64, "it was not killed in the middle");
    let mut args = vec!["volume", "export-file", "vm-mon", text(&part)];
    assert!(daemon.refused(&args).contains("--resume"));
    args.push("--resume");
    assert_eq!(daemon.json(&args)["resumed"], true);
    assert!(fs::read(&part).expect("the export") == whole);
    assert_eq!(daemon.json(&args)["unchanged"], true);
}

/// An import from a pipe that has taken this much.
fn begun(daemon: &Daemon, volume: &str, stream: &[u8]) -> Child {
    let mut command = daemon.command(&["volume", "import-file", volume, "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("setpriv");
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(stream)
        .expect("it reads");
    child
}

#[test]
fn an_import_that_was_killed_leaves_an_incomplete_volume_and_goes_on() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    filled(&daemon, "vm", 16);
    let path = scratch.path().join("f");
    daemon.run(&["volume", "export-file", "vm-mon", text(&path)]);
    let stream = fs::read(&path).expect("the export");
    let mut child = begun(&daemon, "copy", &stream[..stream.len() / 2]);
    process::send(&child, Signal::Kill);
    process::wait(&mut child, "a killed import");

    let said = daemon.refused(&["export", "add", "copy"]);
    assert!(
        said.contains("incomplete") && said.contains("--resume"),
        "{said}"
    );
    let said = daemon.refused(&["volume", "snapshot", "copy", "part"]);
    assert!(said.contains("incomplete"), "{said}");
    let said = daemon.refused(&["volume", "copy", "copy", "part"]);
    assert!(said.contains("incomplete"), "{said}");
    let import = ["volume", "import-file", "copy", text(&path)];
    assert!(daemon.refused(&import).contains("--resume"));
    // Now the daemon is killed under one that goes on.
    let mut child = {
        let mut command = daemon.command(&["volume", "import-file", "copy", "-", "--resume"]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("setpriv")
    };
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(&stream[..stream.len() / 2])
        .expect("it reads");
    let daemon = Daemon::start(daemon.kill());
    let _ = pipe.write_all(&stream[stream.len() / 2..]);
    drop(pipe);
    let output = child.wait_with_output().expect("a child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");

    assert!(
        daemon
            .refused(&["export", "add", "copy"])
            .contains("incomplete")
    );
    daemon.run(&[&import[..], &["--resume"]].concat());
    assert!(content(&daemon, &scratch, "copy") == content(&daemon, &scratch, "vm-mon"));
    daemon.run(&["export", "add", "copy"]);
    // One that is given up is deleted, and its name is free.
    drop(
        begun(&daemon, "other", &stream[..stream.len() / 2])
            .stdin
            .take(),
    );
    daemon.run(&["export", "remove", "copy"]);
    daemon.run(&["volume", "delete", "copy"]);
    daemon.run(&[
        "volume",
        "import-file",
        "copy",
        text(&path),
        "--snapshot",
        "again",
    ]);
}

#[test]
fn a_difference_that_was_interrupted_is_given_up_by_a_rollback() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    filled(&daemon, "vm", 4);
    daemon.run(&["volume", "clone", "vm-mon", "copy"]);
    write(&mut login(&daemon, "vm"), 0, pattern(9, 16 << 20));
    daemon.run(&["volume", "snapshot", "vm", "vm-tue"]);
    let path = scratch.path().join("f");
    let export = ["volume", "export-file", "vm-tue", text(&path)];
    daemon.run(&[&export[..], &["--from", "vm-mon"]].concat());
    let stream = fs::read(&path).expect("the export");
    let mut child = begun(&daemon, "copy", &stream[..stream.len() / 2]);
    process::send(&child, Signal::Kill);
    process::wait(&mut child, "a killed import");
    assert!(
        daemon
            .refused(&["export", "add", "copy"])
            .contains("incomplete")
    );
    daemon.run(&["volume", "rollback", "copy", "vm-mon"]);
    assert!(content(&daemon, &scratch, "copy") == content(&daemon, &scratch, "vm-mon"));
    daemon.run(&["export", "add", "copy"]);
    let said = daemon.refused(&["volume", "import-file", "copy", text(&path)]);
    assert!(said.contains("export remove"), "{said}");
    daemon.run(&["export", "remove", "copy"]);
    daemon.run(&["volume", "import-file", "copy", text(&path)]);
    assert!(content(&daemon, &scratch, "copy") == content(&daemon, &scratch, "vm-tue"));
}

#[test]
fn ctrl_c_takes_the_temporary_snapshot_away() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    filled(&daemon, "vm", 8);
    let mut command = daemon.command(&["volume", "export-file", "vm", "-"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("setpriv");
    // It has begun, and waits for a reader.
    let mut start = [0; 8];
    let stdout = child.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut start).expect("a stream");
    assert_eq!(&start, b"ATOLLEXP");
    assert_eq!(names(&daemon).len(), 3);
    process::send(&child, Signal::Int);
    let status = process::wait(&mut child, "an interrupted export");
    assert_eq!(status.code(), Some(EXIT_SIGINT));
    assert_eq!(names(&daemon), ["vm", "vm-mon"]);
}

#[test]
fn exports_of_a_volume_in_use_are_of_one_instant() {
    const PAIRS: u64 = 64;
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("vm", "64M", &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = login(&daemon, "vm");
            let mut n = 0u64;
            // First the front, then the back, far apart.
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                for offset in [n % PAIRS * 4096, 32 * MIB + n % PAIRS * 4096] {
                    write(&mut session, offset, n.to_le_bytes().repeat(512));
                }
            }
        });
        for round in 0..5 {
            let image = content(&daemon, &scratch, "vm");
            let at = |offset: u64| {
                let offset = offset as usize;
                u64::from_le_bytes(image[offset..offset + 8].try_into().expect("8 bytes"))
            };
            let fronts = (0..PAIRS).map(|pair| at(pair * 4096)).max().unwrap_or(0);
            let backs = (0..PAIRS).map(|pair| at(32 * MIB + pair * 4096)).max();
            let backs = backs.unwrap_or(0);
            // Every write before the last one is there, none after it.
            assert!(
                fronts == backs || fronts == backs + 1,
                "round {round}: front {fronts}, back {backs}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(&daemon), ["vm"]);
}

#[test]
fn a_raw_image_of_unknown_length_makes_a_volume_of_its_size() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let image = pattern(5, (11 << 20) + 1000);
    let mut child = begun(&daemon, "vm", &image);
    drop(child.stdin.take());
    let status = process::wait(&mut child, "an import");
    assert!(status.success(), "{status}");
    let size = daemon.json(&["volume", "show", "vm"])["size"].as_u64();
    assert_eq!(size, Some((11 << 20) + 4096));
    let found = content(&daemon, &scratch, "vm");
    assert!(found[..image.len()] == image);
    assert!(found[image.len()..].iter().all(|byte| *byte == 0));
}
