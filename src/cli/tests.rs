//! Whole command lines against a served engine of memory: what they print, and their exit codes.

mod snapshots;

use clap::CommandFactory;

use super::args::Cli;
use crate::admin::tests::Served;

/// Exit code, stdout, stderr.
pub(super) type Ran = (u8, String, String);

pub(super) fn run(args: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = std::iter::once("atoll")
        .chain(args.iter().copied())
        .map(Into::into);
    let code = super::run_on(args, &mut out, &mut err, false);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

pub(super) fn at(served: &Served, line: &str) -> Ran {
    let path = served.path();
    let mut args = vec!["--admin", path.to_str().unwrap()];
    args.extend(line.split_whitespace());
    run(&args)
}

fn ok(served: &Served, line: &str) -> String {
    let (code, out, err) = at(served, line);
    assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
    out
}

fn error(served: &Served, line: &str) -> (u8, String) {
    let (code, out, err) = at(served, line);
    assert_eq!(out, "", "{line}");
    (code, err)
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_help_with_an_example_that_parses() {
    fn visit(command: &clap::Command, path: &[String], leaves: &mut usize) {
        let subcommands: Vec<_> = command
            .get_subcommands()
            .filter(|c| c.get_name() != "help")
            .collect();
        for sub in &subcommands {
            visit(sub, &[path, &[sub.get_name().to_owned()]].concat(), leaves);
        }
        if !subcommands.is_empty() {
            return;
        }
        *leaves += 1;
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let (code, out, _) = run(&args);
        assert_eq!(code, 0, "{path:?}");
        assert!(out.contains("--json"), "{path:?}");
        let examples: Vec<_> = out
            .lines()
            .filter_map(|line| line.strip_prefix("  atoll "))
            .collect();
        assert!(
            !examples.is_empty() && out.contains("Example"),
            "{path:?}: {out}"
        );
        for example in examples {
            let args = std::iter::once("atoll").chain(example.split(' '));
            let parsed = <Cli as clap::Parser>::try_parse_from(args);
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            assert!(example.starts_with(&path.join(" ")), "{path:?}: {example}");
        }
    }
    let mut leaves = 0;
    visit(&Cli::command(), &[], &mut leaves);
    assert_eq!(leaves, 31);
    let (code, out, _) = run(&["--help"]);
    assert!(code == 0 && out.contains("Exit codes:"));
    assert_eq!(
        run(&["--version"]).1,
        format!("atoll {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn volumes_from_create_to_delete() {
    let served = Served::new();
    assert_eq!(ok(&served, "volume list"), "no volumes\n");
    assert_eq!(
        ok(&served, "volume create demo --size 10G"),
        "created volume demo: 10 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume create demo --size 10G --if-not-exists"),
        "unchanged, there already: volume demo: 10 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume list"),
        "NAME  KIND      SIZE  BLOCK  POOL  ORIGIN  PROTECTED  STATE  CREATED\n\
         demo  volume  10 GiB    512  main  -       -          ok     2026-11-30T23:59:59Z\n"
    );
    let shown = ok(&served, "volume show demo");
    assert!(
        shown.contains("\nsize        10 GiB (10737418240 bytes)\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\ncreated     2026-11-30T23:59:59Z\n"),
        "{shown}"
    );
    assert_eq!(
        ok(&served, "volume resize demo 20G"),
        "volume demo has 20 GiB\n"
    );
    assert_eq!(
        ok(&served, "volume rename demo archive"),
        "renamed volume demo to archive\n"
    );
    assert_eq!(
        ok(&served, "volume delete archive"),
        "deleted volume archive\n"
    );
    assert_eq!(
        ok(&served, "volume delete archive --if-exists"),
        "unchanged: there is no volume archive\n"
    );
}

#[test]
fn exports_and_pools_from_add_to_remove() {
    let served = Served::new();
    ok(&served, "volume create demo --size 1M --block-size 4096");
    assert_eq!(
        ok(&served, "export add demo --iscsi --read-only"),
        "exported volume demo, read-only\niscsi://127.0.0.1:3260/iqn.2026-11.io.atoll:demo/0\n"
    );
    assert!(
        ok(&served, "export add demo --read-only")
            .starts_with("unchanged, exported already: volume demo")
    );
    assert!(
        ok(&served, "export list")
            .contains("\ndemo    iqn.2026-11.io.atoll:demo    0  read-only  iscsi")
    );
    assert_eq!(ok(&served, "export remove demo"), "removed export demo\n");
    assert_eq!(ok(&served, "export list"), "no exports\n");

    let dir = served.dir.path().join("pool");
    let added = ok(
        &served,
        &format!(
            "pool add fast --type file --path {} --object-size 64K",
            dir.display()
        ),
    );
    assert_eq!(
        added,
        format!("added pool fast: file pool in {}\n", dir.display())
    );
    assert!(
        ok(&served, "pool list")
            .lines()
            .any(|line| line.starts_with("fast  file  64 KiB"))
    );
    assert!(ok(&served, "pool show fast").contains("\nobject size  64 KiB (65536 bytes)\n"));
    assert_eq!(ok(&served, "pool remove fast"), "removed pool fast\n");
}

#[test]
fn a_relative_directory_of_a_pool_is_sent_absolute() {
    let served = Served::new();
    let added = ok(&served, "pool add p --type file --path some/dir --json");
    let pool: serde_json::Value = serde_json::from_str(&added).unwrap();
    let whole = std::env::current_dir().unwrap().join("some/dir");
    assert_eq!(pool["path"].as_str(), whole.to_str());
}

#[test]
fn json_is_the_answer_of_the_api_and_keeps_its_shape() {
    let served = Served::new();
    let volume = r#"{
  "name": "demo",
  "id": "00000000-0000-0000-0000-000000000001",
  "kind": "volume",
  "size": 1048576,
  "block_size": 512,
  "pool": "main",
  "protected": false,
  "used": 0,
  "state": "ok",
  "created": 1796083199
}
"#;
    assert_eq!(ok(&served, "volume create demo --size 1M --json"), volume);
    assert_eq!(ok(&served, "volume show demo --json"), volume);
    let export = r#"{
  "name": "demo",
  "kind": "volume",
  "target": "iqn.2026-11.io.atoll:demo",
  "lun": 0,
  "read_only": false,
  "protocols": [
    "iscsi"
  ],
  "portals": [
    "127.0.0.1:3260"
  ],
  "sessions": 0
}
"#;
    assert_eq!(ok(&served, "--json export add demo"), export);
    assert_eq!(
        ok(&served, "export remove demo --json"),
        "{\n  \"name\": \"demo\",\n  \"removed\": true\n}\n"
    );
    let pool = r#"{
  "name": "main",
  "id": "00000000-0000-0000-0000-000000000100",
  "type": "file",
  "path": "/data/main",
  "object_size": 4194304,
  "capacity": 1099511627776,
  "free": 549755813888,
  "volumes": 1,
  "usage": {
    "logical": 1048576,
    "mapped": 4194304,
    "shared": 0,
    "unique": 4194304,
    "garbage": 0
  },
  "state": "ok",
  "created": 1796083199
}
"#;
    assert_eq!(ok(&served, "pool show main --json"), pool);
    for line in ["volume list", "export list", "pool list"] {
        let list: serde_json::Value =
            serde_json::from_str(&ok(&served, &format!("{line} --json"))).unwrap();
        assert!(list.is_array(), "{line}");
    }
    let status: serde_json::Value = serde_json::from_str(&ok(&served, "status --json")).unwrap();
    assert_eq!(status["cores"][0]["busy_share"], 0.25);
    let stats: serde_json::Value = serde_json::from_str(&ok(&served, "stats --json")).unwrap();
    assert_eq!(
        (&stats["volumes"][0]["name"], &stats["volumes"][0]["reads"]),
        (&"demo".into(), &2.into())
    );
}

#[test]
fn status_and_stats_are_tables() {
    let served = Served::new();
    ok(&served, "volume create demo --size 1M");
    let status = ok(&served, "status");
    for part in [
        "version    0.0.0\n",
        "uptime     1m 1s\n",
        "iscsi      127.0.0.1:3260\n",
        "25.0 %",
        "64 MiB",
    ] {
        assert!(status.contains(part), "{part:?}: {status}");
    }
    let stats = ok(&served, "stats");
    for part in ["CORE  ", "\nVOLUME  ", "demo", "8 KiB", "1.5 ms"] {
        assert!(stats.contains(part), "{part:?}: {stats}");
    }
}

#[test]
fn errors_say_what_why_and_the_way_out_and_have_their_exit_code() {
    let served = Served::new();
    ok(&served, "volume create demo --size 1M");
    ok(&served, "export add demo");
    for (line, code, text) in [
        (
            "volume show none",
            3,
            "error: cannot show volume \"none\": no volume \"none\"\n",
        ),
        (
            "volume delete demo",
            4,
            "error: cannot delete volume \"demo\": it is exported as iqn.2026-11.io.atoll:demo\nhint: atoll export remove demo\n",
        ),
        (
            "volume create demo --size 1M",
            4,
            "error: cannot create volume \"demo\": there is a volume \"demo\" already\nhint: it is as asked for; --if-not-exists takes that for done\n",
        ),
        (
            "volume create x --size 1M --pool none",
            3,
            "error: cannot create volume \"x\": no pool \"none\"\n",
        ),
        (
            "volume create x --size 1000",
            2,
            "error: cannot create volume \"x\": a volume has 1 MiB to 1 PiB, not 1000 B\n",
        ),
        (
            "pool remove main",
            4,
            "error: cannot remove pool \"main\": 1 volumes are in it\n",
        ),
        (
            "pool add n --type null --path /x",
            2,
            "error: cannot add pool \"n\": only a file pool has a directory\nhint: leave the path out\n",
        ),
    ] {
        assert_eq!(error(&served, line), (code, text.to_owned()), "{line}");
    }
    let (code, err) = error(&served, "volume show none --json");
    let json: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(
        (code, json["error"]["kind"].as_str()),
        (3, Some("not_found"))
    );
}

#[test]
fn wrong_usage_is_refused_with_the_rule_before_anything_is_asked() {
    for (line, part) in [
        (
            "volume create Demo --size 1M",
            "a name is 1 to 200 characters of a-z",
        ),
        ("volume create demo", "--size"),
        ("volume create demo --size 1.5G", "powers of 1024"),
        (
            "volume create demo --size 1M --block-size 1024",
            "512 or 4096",
        ),
        ("pool add p --type file", "--path"),
        (
            "pool add p --type tape",
            "possible values: file, memory, null",
        ),
        ("serve --cores x", "--cores"),
        ("serve --iscsi localhost", "--iscsi"),
        ("serve --advertise 0.0.0.0", "connect to"),
        ("explode", "unrecognized"),
        ("volume list --colour", "--colour"),
    ] {
        let (code, out, err) = run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((code, out.as_str()), (2, ""), "{line}");
        assert!(
            err.starts_with("error: ") && err.contains(part),
            "{line}: {err}"
        );
    }
}

#[test]
fn without_a_daemon_every_verb_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["volume list", "export list", "pool list", "status", "stats"] {
        let mut args = vec!["--data", dir.path().to_str().unwrap()];
        args.extend(line.split(' '));
        let (code, _, err) = run(&args);
        assert_eq!(code, 5, "{line}");
        assert!(
            err.contains("admin.sock: there is no such socket\nhint: start one with `atoll serve`"),
            "{err}"
        );
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
    struct Failing(std::io::ErrorKind);
    impl std::io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let served = Served::new();
    let path = served.path();
    let args = ["atoll", "--admin", path.to_str().unwrap(), "pool", "list"];
    for (kind, code) in [
        (std::io::ErrorKind::BrokenPipe, 0),
        (std::io::ErrorKind::StorageFull, 1),
    ] {
        let mut err = Vec::new();
        assert_eq!(
            super::run(args.map(Into::into), &mut Failing(kind), &mut err),
            code
        );
        assert_eq!(err.is_empty(), code == 0);
    }
}

#[test]
fn fsck_is_refused_without_a_directory_and_while_a_daemon_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let (code, out, err) = run(&["fsck", "--data", none.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(!none.exists());

    let data = dir.path().to_str().unwrap();
    let lock = crate::daemon::DataLock::create(dir.path()).unwrap();
    let (code, out, err) = run(&["fsck", "--data", data]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(
        err.contains("in use by process") && err.contains("\nhint: stop that daemon"),
        "{err}"
    );
    drop(lock);
}

#[test]
fn serve_refuses_the_network_without_access_control() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, out, err) = run(&[
        "serve",
        "--data",
        data.to_str().unwrap(),
        "--iscsi",
        "0.0.0.0:0",
    ]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("--insecure-no-auth"), "{err}");
    assert!(!data.exists());
}
