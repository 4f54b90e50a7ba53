//! Snapshots, clones, rollback, flattening and the collector as the control plane asks for them, down
//! to RocksDB and the file pool.

use super::*;

/// Times that a status may be asked for before the test gives up.
const MAX_ASKED: usize = 1_000_000;

fn of(volume: &str, snapshot: &str) -> SnapshotOf {
    SnapshotOf {
        volume: name(volume),
        name: name(snapshot),
    }
}

fn take(verbs: &Verbs, volume: &str, snapshot: &str) -> Result<Volume> {
    let mut taken = wait(verbs.take_snapshots(vec![of(volume, snapshot)]))?;
    Ok(taken.remove(0))
}

fn clone(verbs: &Verbs, snapshot: &str, to: &str, size: Option<ByteSize>) -> Result<Volume> {
    let request = CloneSnapshot {
        to: name(to),
        size,
        if_not_exists: false,
    };
    wait(verbs.clone_snapshot(name(snapshot), request))
}

/// A daemon with the volumes `a` and `b`, which are full of 1s and 2s for 64 KiB.
fn two_volumes(config: &Config) -> Verbs {
    let verbs = control(config);
    for (volume, byte) in [("a", 1), ("b", 2)] {
        wait(verbs.create_volume(create(volume, "main", ByteSize::mib(16)))).unwrap();
        write_through(&verbs, volume, 0, vec![byte; 64 << 10]);
    }
    verbs
}

fn first_byte(verbs: &Verbs, volume: &str) -> u8 {
    read(verbs, volume, 0, 4096)[0]
}

fn collected(verbs: &Verbs) -> GcStatus {
    let mut status = wait(verbs.gc_run()).unwrap();
    for _ in 0..MAX_ASKED {
        if !status.running {
            return status;
        }
        status = wait(verbs.gc_status()).unwrap();
    }
    panic!("it does not end: {status:?}");
}

/// (name, parent's name) of all nodes with names, in order of their names.
fn tree(verbs: &Verbs) -> Vec<(String, String)> {
    let ask = AskTree {
        name: None,
        after: None,
        limit: PAGE_LIMIT,
    };
    let nodes = wait(verbs.tree(ask)).unwrap().nodes;
    let called = |number: Option<u64>| {
        let node = nodes.iter().find(|node| Some(node.node) == number);
        match node.map(|node| node.resource.as_ref()) {
            None => "none".to_owned(),
            Some(None) => "deleted".to_owned(),
            Some(Some(resource)) => resource.name.to_string(),
        }
    };
    let named = nodes.iter().filter(|node| node.resource.is_some());
    let mut tree: Vec<_> = named
        .map(|node| (called(Some(node.node)), called(node.parent)))
        .collect();
    tree.sort_unstable();
    tree
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(child, parent): &(&str, &str)| ((*child).to_owned(), (*parent).to_owned());
    expected.iter().map(pair).collect()
}

#[test]
fn snapshots_keep_what_was_clones_and_rollbacks_begin_with_it_and_a_restart_knows_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = two_volumes(&config);
    let group = vec![of("b", "b-mon"), of("a", "a-mon")];
    let taken = wait(verbs.take_snapshots(group)).unwrap();
    let names: Vec<_> = taken.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["b-mon", "a-mon"], "in the order of asking");
    assert!(taken.iter().all(|s| s.kind == VolumeKind::Snapshot));

    write_through(&verbs, "a", 0, vec![3; 4096]);
    let cloned = clone(&verbs, "a-mon", "c", Some(ByteSize::mib(32))).unwrap();
    assert_eq!(
        (cloned.kind, cloned.size, cloned.origin),
        (VolumeKind::Volume, ByteSize::mib(32), Some(name("a-mon")))
    );
    write_through(&verbs, "c", 4096, vec![4; 4096]);
    wait(verbs.resize_volume(name("b"), ByteSize::mib(64))).unwrap();
    write_through(&verbs, "b", 0, vec![5; 4096]);
    let before = |verbs: &Verbs| {
        let firsts = ["a", "a-mon", "b", "b-mon", "c"].map(|volume| first_byte(verbs, volume));
        assert_eq!(firsts, [3, 1, 5, 2, 1]);
        assert_eq!(read(verbs, "c", 4096, 4096), vec![4; 4096]);
        let expected = [
            ("a", "a-mon"),
            ("a-mon", "none"),
            ("b", "b-mon"),
            ("b-mon", "none"),
            ("c", "a-mon"),
        ];
        assert_eq!(tree(verbs), pairs(&expected));
    };
    before(&verbs);
    wait(verbs.shutdown()).unwrap();
    assert!(check(&config, true).is_clean());

    let verbs = control(&config);
    before(&verbs);
    let status = wait(verbs.status()).unwrap();
    assert_eq!((status.volumes, status.snapshots), (3, 2));
    let rolled = wait(verbs.roll_back(name("b"), name("b-mon"))).unwrap();
    assert_eq!(
        (rolled.size, first_byte(&verbs, "b")),
        (ByteSize::mib(16), 2)
    );
    let other = wait(verbs.roll_back(name("b"), name("a-mon"))).unwrap_err();
    assert_eq!(other.kind, ErrorKind::Invalid, "{other}");
    for deleted in ["a-mon", "a", "b-mon"] {
        wait(verbs.delete_volume(name(deleted))).unwrap();
    }
    collected(&verbs);
    assert_eq!(tree(&verbs), pairs(&[("b", "none"), ("c", "none")]));
    assert_eq!((first_byte(&verbs, "b"), first_byte(&verbs, "c")), (2, 1));
    wait(verbs.shutdown()).unwrap();
    let report = check(&config, true);
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn what_a_verb_is_not_for_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = two_volumes(&config(&dir));
    take(&verbs, "a", "s").unwrap();
    let hint = |error: Error| {
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        error.hint.unwrap_or_default()
    };
    let of_snapshots = [
        wait(verbs.resize_volume(name("s"), ByteSize::mib(32))).unwrap_err(),
        take(&verbs, "s", "t").unwrap_err(),
        wait(verbs.flatten(name("s"), 0)).unwrap_err(),
        wait(verbs.roll_back(name("s"), name("s"))).unwrap_err(),
    ];
    for error in of_snapshots {
        assert_eq!(hint(error), "atoll volume clone s NEW");
    }
    for error in [
        clone(&verbs, "a", "c", None).unwrap_err(),
        wait(verbs.roll_back(name("b"), name("a"))).unwrap_err(),
    ] {
        assert_eq!(hint(error), "atoll volume snapshot a SNAP");
    }
    for error in [
        take(&verbs, "none", "t").unwrap_err(),
        clone(&verbs, "none", "c", None).unwrap_err(),
        wait(verbs.protect(name("none"), true)).unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    let group = vec![of("b", "t"), of("a", "s")];
    let taken = wait(verbs.take_snapshots(group)).unwrap_err();
    assert_eq!(taken.kind, ErrorKind::AlreadyExists);
    let missing = wait(verbs.volume(name("t"))).unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound, "all or none");
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn what_is_protected_stays_over_a_restart_and_says_how_to_end_that() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = two_volumes(&config);
    take(&verbs, "a", "s").unwrap();
    for protected in ["s", "a"] {
        assert!(
            wait(verbs.protect(name(protected), true))
                .unwrap()
                .protected
        );
    }
    wait(verbs.shutdown()).unwrap();
    let verbs = control(&config);
    for (error, protected) in [
        (wait(verbs.delete_volume(name("s"))).unwrap_err(), "s"),
        (wait(verbs.delete_volume(name("a"))).unwrap_err(), "a"),
        (
            wait(verbs.roll_back(name("a"), name("s"))).unwrap_err(),
            "a",
        ),
    ] {
        assert_eq!(error.kind, ErrorKind::InUse);
        assert!(error.message.contains("unprotect"), "{error}");
        let way_out = format!("atoll volume unprotect {protected}");
        assert_eq!(error.hint, Some(way_out));
    }
    wait(verbs.protect(name("s"), false)).unwrap();
    let kind = wait(verbs.delete_volume(name("s"))).unwrap();
    assert_eq!(kind, VolumeKind::Snapshot);
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn an_export_of_a_snapshot_is_read_only_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = two_volumes(&config);
    take(&verbs, "a", "s").unwrap();
    let exported = wait(verbs.add_export(export("s"))).unwrap();
    assert!(exported.read_only && exported.kind == VolumeKind::Snapshot);
    let refused = wait(verbs.delete_volume(name("s"))).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InUse);
    assert_eq!(refused.hint.as_deref(), Some("atoll export remove s"));
    wait(verbs.add_export(export("a"))).unwrap();
    wait(verbs.shutdown()).unwrap();

    let verbs = control(&config);
    let exports = wait(verbs.exports()).unwrap();
    let shown: Vec<_> = exports
        .iter()
        .map(|e| (e.name.as_str(), e.kind, e.read_only, e.fault.is_none()))
        .collect();
    let expected = [
        ("a", VolumeKind::Volume, false, true),
        ("s", VolumeKind::Snapshot, true, true),
    ];
    assert_eq!(shown, expected);
    // Nobody is logged in.
    wait(verbs.roll_back(name("a"), name("s"))).unwrap();
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn a_flattened_clone_comes_from_nothing_and_has_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = two_volumes(&config);
    take(&verbs, "a", "s").unwrap();
    clone(&verbs, "s", "c", None).unwrap();
    take(&verbs, "c", "t").unwrap();
    let comes_from = |snapshot: &str| wait(verbs.comes_from(name("c"), name(snapshot))).unwrap();
    assert!(comes_from("t") && comes_from("s") && !comes_from("a"));
    let mut step = Flattening::default();
    for _ in 0..MAX_ASKED {
        step = wait(verbs.flatten(name("c"), step.done)).unwrap();
        if step.ended {
            break;
        }
    }
    assert!(step.ended && step.done == step.total, "{step:?}");
    assert!(!comes_from("t") && !comes_from("s"));
    for deleted in ["a", "s", "t"] {
        wait(verbs.delete_volume(name(deleted))).unwrap();
    }
    collected(&verbs);
    assert_eq!(read(&verbs, "c", 0, 64 << 10), vec![1; 64 << 10]);
    wait(verbs.shutdown()).unwrap();
    assert!(check(&config, true).is_clean());
}

#[test]
fn pages_of_the_catalogue_hold_each_resource_once() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = two_volumes(&config(&dir));
    for snapshot in ["c", "a-no", "z"] {
        take(&verbs, "a", snapshot).unwrap();
    }
    let listed = |kind, limit| {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = wait(verbs.volumes(ListVolumes { kind, after, limit })).unwrap();
            assert!(page.volumes.len() <= limit);
            names.extend(page.volumes.into_iter().map(|v| v.name.to_string()));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    };
    for limit in 1..7 {
        assert_eq!(listed(None, limit), ["a", "a-no", "b", "c", "z"]);
        assert_eq!(
            listed(Some(VolumeKind::Snapshot), limit),
            ["a-no", "c", "z"]
        );
        assert_eq!(listed(Some(VolumeKind::Volume), limit), ["a", "b"]);
    }
    wait(verbs.shutdown()).unwrap();
}

#[test]
fn a_copy_has_the_data_of_its_source_and_belongs_to_no_tree() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let verbs = two_volumes(&config);
    write_through(&verbs, "a", 9 << 20, vec![7; 8192]);
    take(&verbs, "a", "s").unwrap();
    write_through(&verbs, "a", 0, vec![3; 4096]);
    wait(verbs.create_volume(create("c", "main", ByteSize::mib(16)))).unwrap();
    let step = |source: &str, from| {
        let request = CopyVolume {
            to: name("c"),
            from,
        };
        wait(verbs.copy_volume(name(source), request))
    };
    let mut all = Copying::default();
    for _ in 0..MAX_ASKED {
        let done = step("s", all.done).unwrap();
        all.shared += done.shared;
        all.copied += done.copied;
        all = Copying {
            shared: all.shared,
            copied: all.copied,
            ..done
        };
        if all.ended {
            break;
        }
    }
    assert!(all.ended && all.done == 16 << 20, "{all:?}");
    assert_eq!(all.shared + all.copied, 16 << 20);
    for deleted in ["a", "s"] {
        wait(verbs.delete_volume(name(deleted))).unwrap();
    }
    collected(&verbs);
    let has_the_data = |verbs: &Verbs| {
        assert_eq!(read(verbs, "c", 0, 64 << 10), vec![1; 64 << 10]);
        assert_eq!(read(verbs, "c", 9 << 20, 8192), vec![7; 8192]);
        assert_eq!(wait(verbs.volume(name("c"))).unwrap().origin, None);
    };
    has_the_data(&verbs);

    // What is served is not overwritten, nor what is too small, nor a snapshot.
    take(&verbs, "b", "t").unwrap();
    wait(verbs.add_export(export("c"))).unwrap();
    let exported = step("t", 0).unwrap_err();
    assert_eq!(exported.kind, ErrorKind::InUse);
    assert_eq!(exported.hint.as_deref(), Some("atoll export remove c"));
    wait(verbs.remove_export(name("c"))).unwrap();
    wait(verbs.resize_volume(name("b"), ByteSize::mib(32))).unwrap();
    for (source, from) in [("b", 0), ("t", (16 << 20) + 1)] {
        assert_eq!(step(source, from).unwrap_err().kind, ErrorKind::Invalid);
    }
    let onto_a_snapshot = CopyVolume {
        to: name("t"),
        from: 0,
    };
    let refused = wait(verbs.copy_volume(name("b"), onto_a_snapshot)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    has_the_data(&verbs);
    wait(verbs.shutdown()).unwrap();
    let report = check(&config, true);
    assert!(report.is_clean(), "{:?}", report.findings);
}
