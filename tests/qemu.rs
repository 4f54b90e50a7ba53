//! QEMU's image tools as initiators: what they write through the daemon they read back, whole images included.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use atoll_e2e::{Daemon, Options, Scratch, process, tools};
use serde_json::Value;

const IMAGE_BYTES: u64 = 48 << 20;

fn daemon(scratch: &Scratch, volume: &str, size: &str, more: &[&str]) -> Daemon {
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new(volume, size, more);
    daemon
}

fn qemu_io(url: &str, commands: &[&str]) -> String {
    let mut command = tools::qemu("qemu-io");
    command.args(["-f", "raw", url]);
    for line in commands {
        command.args(["-c", line]);
    }
    let said = process::succeed(&mut command);
    assert!(!said.contains("failed"), "qemu-io {commands:?}: {said}");
    said
}

#[test]
fn info_tells_the_size_of_the_volume() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch, "vol", "10G", &[]);
    let mut command = tools::qemu("qemu-img");
    let said = process::succeed(command.args(["info", "--output=json", &daemon.url("vol")]));
    let info: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(info["virtual-size"], 10_u64 << 30, "{said}");
}

#[test]
fn patterns_are_read_back_and_what_was_discarded_or_zeroed_is_zeros() {
    for block_size in ["512", "4096"] {
        let scratch = Scratch::new();
        let daemon = daemon(&scratch, "vol", "64M", &["--block-size", block_size]);
        let url = daemon.url("vol");
        qemu_io(
            &url,
            &[
                "read -P 0 0 8M",
                "write -P 0x5a 0 1M",
                "write -P 0xa5 3M 2M",        // across two objects
                "write -P 0x11 4190208 8192", // across them again, at a block
                "flush",
                "read -P 0x5a 0 1M",
                "read -P 0 1M 2M",
                "read -P 0x11 4190208 8192",
                "write -z 64k 64k",
                "read -P 0 64k 64k",
                "discard 256k 128k",
                "read -P 0x5a 384k 128k",
                "write -f -P 0x77 10M 64k",
            ],
        );
        // Another session sees the same.
        qemu_io(
            &url,
            &[
                "read -P 0x77 10M 64k",
                "read -P 0 64k 64k",
                "read -P 0xa5 3M 1020k",
            ],
        );
    }
}

#[test]
fn an_image_converted_onto_a_volume_and_back_is_the_same() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch, "vol", &format!("{IMAGE_BYTES}"), &[]);
    let (image, back) = (
        scratch.path().join("image.raw"),
        scratch.path().join("back.raw"),
    );
    make_image(&image);
    convert(&["-n"], image.to_str().expect("UTF-8"), &daemon.url("vol"));
    convert(&[], &daemon.url("vol"), back.to_str().expect("UTF-8"));
    assert!(
        fs::read(&image).expect("read") == fs::read(&back).expect("read"),
        "the image came back different"
    );
    compare(&image, &daemon.url("vol"));
    // The zeros took no space, and QEMU is told so.
    let zeros = (20 << 20, 10 << 20);
    assert_eq!(unmapped(&daemon.url("vol"), zeros), 10 << 20);

    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    let daemon = Daemon::start(options);
    compare(&image, &daemon.url("vol"));
    assert_eq!(unmapped(&daemon.url("vol"), zeros), 10 << 20);
}

fn convert(more: &[&str], from: &str, to: &str) {
    let mut command = tools::qemu("qemu-img");
    process::succeed(
        command
            .arg("convert")
            .args(more)
            .args(["-f", "raw", "-O", "raw", from, to]),
    );
}

fn compare(image: &Path, url: &str) {
    let mut command = tools::qemu("qemu-img");
    process::succeed(
        command
            .args(["compare", "-f", "raw", "-F", "raw"])
            .arg(image)
            .arg(url),
    );
}

/// Bytes of a range (start, length) that QEMU takes for zeros without reading them.
fn unmapped(url: &str, (start, length): (u64, u64)) -> u64 {
    let mut command = tools::qemu("qemu-img");
    let map = process::succeed(command.args(["map", "-f", "raw", "--output=json", url]));
    let map: serde_json::Value = serde_json::from_str(&map).expect("JSON");
    let extents = map.as_array().expect("a list").iter();
    let inside = extents.filter(|extent| extent["data"] == false && extent["zero"] == true);
    let lengths = inside.map(|extent| {
        let own = extent["start"].as_u64().expect("a number");
        let end = own + extent["length"].as_u64().expect("a number");
        end.min(start + length).saturating_sub(own.max(start))
    });
    lengths.sum()
}

/// Noise, zeros and a repeated pattern, as images have them.
fn make_image(path: &Path) {
    let mut command = Command::new("dd");
    let of = format!("of={}", path.display());
    process::succeed(command.args(["if=/dev/urandom", &of, "bs=1M", "count=16", "status=none"]));
    let mut data = fs::read(path).expect("read");
    data.resize(32 << 20, 0);
    data.extend((0..16 << 20).map(|at: u32| (at >> 9) as u8));
    assert_eq!(data.len() as u64, IMAGE_BYTES);
    fs::write(path, data).expect("write");
}
