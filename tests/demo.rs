//! What a newcomer does: `make run` on a bare clone, then attach.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use atoll_e2e::process::{Group, Signal};
use atoll_e2e::{Scratch, process, tools};

#[test]
fn make_run_on_a_bare_clone_serves_the_demo_volume() {
    let scratch = Scratch::new();
    let (clone, data) = (scratch.path().join("clone"), scratch.path().join("data"));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    process::succeed(
        process::command("git")
            .args(["clone", "--quiet"])
            .arg(repository)
            .arg(&clone),
    );
    // The tests' own profile and target directory, so that a release build does not take minutes more.
    let binary = atoll_e2e::daemon::binary();
    let target = binary.ancestors().nth(2).expect("target/debug/atoll");
    let mut command = process::command("make");
    command
        .args(["--no-print-directory", "run", "PROFILE=dev"])
        .env("CARGO_TARGET_DIR", target);
    command
        .current_dir(&clone)
        .env("ATOLL_DATA", &data)
        .env("ATOLL_ISCSI", "127.0.0.1:0")
        .env_remove("ATOLL_ADMIN");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut make = Group::spawn(&mut command);
    let stdout = BufReader::new(make.0.stdout.take().expect("piped"));
    let mut said = Vec::new();
    for line in stdout.lines().map_while(Result::ok) {
        said.push(line);
        if said.last().is_some_and(|line| line.starts_with("Ctrl-C")) {
            break;
        }
    }
    let url = said
        .iter()
        .flat_map(|line| line.split(' '))
        .find(|word| word.starts_with("iscsi://"));
    let url = url.unwrap_or_else(|| panic!("it does not say how to attach: {said:#?}"));
    let mut qemu_img = tools::qemu("qemu-img");
    let info = process::succeed(qemu_img.args(["info", url]));
    assert!(info.contains("10 GiB"), "{info}");
    process::send(&make.0, Signal::Term);
    process::wait(&mut make.0, "make run after SIGTERM");
    assert!(data.join("meta").exists(), "its data is gone");
}
