//! libiscsi's small tools as initiators: discovery, inquiry, capacity.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::IQN;
use atoll_e2e::{Daemon, Options, Scratch, process};

fn tool(name: &str, args: &[&str]) -> String {
    process::succeed(process::command(name).args(args))
}

#[test]
fn discovery_lists_what_is_exported_and_nothing_else() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    for name in ["one", "two", "hidden"] {
        daemon.export_new(name, "16M", &[]);
    }
    daemon.run(&["export", "remove", "hidden"]);
    let portal = format!("iscsi://{}", daemon.iscsi());
    let said = tool("iscsi-ls", &["--show-luns", &portal]);
    for name in ["one", "two"] {
        assert!(
            said.contains(&format!("{IQN}:{name} Portal:{}", daemon.iscsi())),
            "{said}"
        );
    }
    assert!(!said.contains("hidden"), "{said}");
    assert_eq!(said.matches("Lun:0 ").count(), 2, "{said}");
}

#[test]
fn discovery_answers_the_advertised_address() {
    let scratch = Scratch::new();
    let options = Options::in_dir(scratch.path())
        .arg("--advertise")
        .arg("192.0.2.7:4444");
    let daemon = Daemon::start(options);
    daemon.export_new("vol", "16M", &[]);
    let said = tool("iscsi-ls", &[&format!("iscsi://{}", daemon.iscsi())]);
    assert!(said.contains("192.0.2.7:4444"), "{said}");
}

#[test]
fn inquiry_describes_the_unit_and_its_name_is_stable_and_its_own() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    for name in ["one", "two"] {
        daemon.export_new(name, "16M", &[]);
    }
    let standard = tool("iscsi-inq", &[&daemon.url("one")]);
    assert!(
        standard.contains("Peripheral Device Type:DIRECT_ACCESS"),
        "{standard}"
    );
    let page = |daemon: &Daemon, page: u8, name| {
        tool(
            "iscsi-inq",
            &["-e", "1", "-c", &page.to_string(), &daemon.url(name)],
        )
    };
    let limits = page(&daemon, 0xb0, "one");
    for limit in [
        "maximum unmap lba count",
        "maximum unmap block descriptor count",
        "maximum transfer length",
    ] {
        assert!(
            limits.contains(limit) && !limits.contains(&format!("{limit}:0\n")),
            "{limits}"
        );
    }
    let provisioning = page(&daemon, 0xb2, "one");
    for supported in [
        "lbpu:1",
        "lbpws:1",
        "lbpws10:1",
        "lbprz:1",
        "provisioning type:2",
    ] {
        assert!(provisioning.contains(supported), "{provisioning}");
    }
    assert!(
        page(&daemon, 0xb1, "one").contains("Medium Rotation Rate:1RPM"),
        "not a solid-state medium"
    );
    let identity = |daemon: &Daemon, name| page(daemon, 0x80, name) + &page(daemon, 0x83, name);
    let before = identity(&daemon, "one");
    assert_ne!(
        before,
        identity(&daemon, "two"),
        "two volumes with one identity"
    );
    let daemon = Daemon::start(daemon.kill());
    assert_eq!(
        before,
        identity(&daemon, "one"),
        "the identity changed with a restart"
    );
}

#[test]
fn capacity_follows_size_and_block_size() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new("small", "16M", &[]);
    daemon.export_new("large", "1P", &["--block-size", "4096"]);
    let capacity = |name| tool("iscsi-readcapacity16", &[&daemon.url(name)]);
    let small = capacity("small");
    assert!(
        small.contains(&format!(
            "RETURNED LOGICAL BLOCK ADDRESS:{}\n",
            (16 << 20) / 512 - 1
        )),
        "{small}"
    );
    assert!(
        small.contains("LOGICAL BLOCK LENGTH IN BYTES:512\n"),
        "{small}"
    );
    assert!(small.contains("LBPME:1 LBPRZ:1"), "{small}");
    let large = capacity("large");
    assert!(
        large.contains(&format!(
            "RETURNED LOGICAL BLOCK ADDRESS:{}\n",
            (1_u64 << 50) / 4096 - 1
        )),
        "{large}"
    );
    assert!(
        large.contains("LOGICAL BLOCK LENGTH IN BYTES:4096\n"),
        "{large}"
    );
}
