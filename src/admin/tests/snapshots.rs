//! Snapshots, clones, pages and long verbs over the admin API: the rules of asking twice.

use super::*;

fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

use crate::name::ResourceName;

/// A daemon with the volumes `a` and `b`.
fn two_volumes() -> Served {
    let served = Served::new();
    for volume in ["a", "b"] {
        let created = served
            .client()
            .post::<Volume>("/v1/volumes", &create(volume, 4));
        created.unwrap();
    }
    served
}

fn take(client: &Client, volume: &str, snapshot: &str) -> Result<Answered<Volume>> {
    take_unless(client, volume, snapshot, false)
}

fn take_unless(
    client: &Client,
    volume: &str,
    snapshot: &str,
    if_not_exists: bool,
) -> Result<Answered<Volume>> {
    let request = TakeSnapshot {
        snapshot: name(snapshot),
        if_not_exists,
    };
    client.post(&format!("/v1/volumes/{volume}/snapshot"), &request)
}

fn clone(
    client: &Client,
    snapshot: &str,
    to: &str,
    size: Option<u64>,
    if_not_exists: bool,
) -> Result<Answered<Volume>> {
    let request = CloneSnapshot {
        to: name(to),
        size: size.map(ByteSize::mib),
        if_not_exists,
    };
    client.post(&format!("/v1/volumes/{snapshot}/clone"), &request)
}

fn listed(client: &Client) -> Vec<String> {
    let page: VolumePage = client.get("/v1/volumes").unwrap();
    let names = page.volumes.into_iter();
    names.map(|volume| volume.name.to_string()).collect()
}

#[test]
fn a_snapshot_taken_again_is_an_error_that_says_what_is_there_unless_asked_otherwise() {
    let served = two_volumes();
    let client = served.client();
    let made = take(&client, "a", "s").unwrap();
    assert!(made.created);
    assert_eq!(
        (made.value.kind, made.value.size),
        (VolumeKind::Snapshot, ByteSize::mib(4))
    );
    let volume: Volume = client.get("/v1/volumes/a").unwrap();
    assert_eq!(volume.origin, Some(name("s")));

    let again = take(&client, "a", "s").unwrap_err();
    assert_eq!(again.kind, ErrorKind::AlreadyExists);
    assert!(again.hint.unwrap().contains("--if-not-exists"));
    let unchanged = take_unless(&client, "a", "s", true).unwrap();
    assert!(!unchanged.created);
    assert_eq!(unchanged.value.id, made.value.id);
    // Still after another one, but not for another volume, and not in the place of a volume.
    take(&client, "a", "t").unwrap();
    assert!(!take_unless(&client, "a", "s", true).unwrap().created);
    for (volume, snapshot, why) in [
        ("b", "s", "does not come from"),
        ("a", "b", "\"b\" is a volume"),
    ] {
        let error = take_unless(&client, volume, snapshot, true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert!(error.hint.unwrap().contains(why), "{volume} {snapshot}");
    }
    assert_eq!(
        take(&client, "s", "u").unwrap_err().kind,
        ErrorKind::Refused
    );
}

#[test]
fn a_group_is_taken_whole_or_not_at_all() {
    let served = two_volumes();
    let client = served.client();
    let group = |group: &str, if_not_exists| {
        let request = TakeGroup {
            name: name(group),
            volumes: ["b", "a"].map(name).to_vec(),
            if_not_exists,
        };
        client.post::<Vec<Volume>>("/v1/snapshots", &request)
    };
    let made = group("mon", false).unwrap();
    let names: Vec<_> = made.value.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((made.created, names), (true, vec!["b-mon", "a-mon"]));
    assert_eq!(
        group("mon", false).unwrap_err().kind,
        ErrorKind::AlreadyExists
    );
    let unchanged = group("mon", true).unwrap();
    assert!(!unchanged.created);
    assert_eq!(unchanged.value[0].id, made.value[0].id);

    let before = listed(&client);
    take(&client, "a", "a-tue").unwrap();
    for if_not_exists in [false, true] {
        let error = group("tue", if_not_exists).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        let hint = error.hint.unwrap();
        assert!(hint.contains("there is no \"b-tue\""), "{hint}");
    }
    assert_eq!(listed(&client).len(), before.len() + 1, "only a-tue is new");
}

#[test]
fn a_clone_made_again_is_unchanged_where_nothing_differs() {
    let served = two_volumes();
    let client = served.client();
    take(&client, "a", "s").unwrap();
    take(&client, "b", "other").unwrap();
    let made = clone(&client, "s", "c", Some(8), false).unwrap();
    assert!(made.created);
    assert_eq!(
        (made.value.kind, made.value.size, made.value.origin.clone()),
        (VolumeKind::Volume, ByteSize::mib(8), Some(name("s")))
    );
    for size in [None, Some(8)] {
        let unchanged = clone(&client, "s", "c", size, true).unwrap();
        assert!(!unchanged.created && unchanged.value == made.value);
    }
    for (snapshot, size, difference) in [
        ("s", Some(9), "it differs: size is 8M, asked for was 9M"),
        (
            "other",
            None,
            "it differs: origin is s, asked for was other",
        ),
    ] {
        let error = clone(&client, snapshot, "c", size, true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert_eq!(error.hint.as_deref(), Some(difference));
    }
    let error = clone(&client, "s", "other", None, true).unwrap_err();
    assert!(error.hint.unwrap().contains("kind is snapshot"));
    let volume = clone(&client, "a", "d", None, false).unwrap_err();
    assert_eq!(volume.kind, ErrorKind::Refused);
    assert!(clone(&client, "s", "d", None, false).unwrap().value.size == ByteSize::mib(4));
}

#[test]
fn creating_a_volume_where_a_snapshot_is_says_so() {
    let served = two_volumes();
    let client = served.client();
    take(&client, "a", "s").unwrap();
    let same = CreateVolume {
        if_not_exists: true,
        ..create("s", 4)
    };
    let error = client.post::<Volume>("/v1/volumes", &same).unwrap_err();
    assert_eq!(
        error.hint.as_deref(),
        Some("it differs: kind is snapshot, asked for was volume")
    );
}

#[test]
fn what_is_protected_is_neither_deleted_nor_rolled_back() {
    let served = two_volumes();
    let client = served.client();
    take(&client, "a", "s").unwrap();
    let protect = |name: &str, protected| {
        let path = format!("/v1/volumes/{name}/protect");
        let set = client.post::<Volume>(&path, &Protect { protected });
        assert_eq!(set.unwrap().value.protected, protected);
    };
    let roll_back = || {
        let request = RollBack {
            snapshot: name("s"),
        };
        client.post::<Volume>("/v1/volumes/a/rollback", &request)
    };
    for resource in ["s", "a"] {
        protect(resource, true);
        protect(resource, true);
        let error = client
            .delete::<Removed>(&format!("/v1/volumes/{resource}"))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::InUse);
        assert!(error.message.contains("unprotect"), "{error}");
        let way_out = format!("atoll volume unprotect {resource}");
        assert_eq!(error.hint, Some(way_out));
    }
    assert_eq!(roll_back().unwrap_err().kind, ErrorKind::InUse);
    protect("a", false);
    assert_eq!(roll_back().unwrap().value.size, ByteSize::mib(4));
    protect("s", false);
    let removed: Removed = client.delete("/v1/volumes/s").unwrap();
    assert_eq!(removed.kind, Some(VolumeKind::Snapshot));
}

#[test]
fn a_snapshot_is_exported_read_only_however_it_is_asked_for() {
    let served = two_volumes();
    let client = served.client();
    take(&client, "a", "s").unwrap();
    let export = |read_only| {
        let request = AddExport {
            name: name("s"),
            protocols: vec![Protocol::Iscsi],
            read_only,
        };
        client.post::<Export>("/v1/exports", &request).unwrap()
    };
    let first = export(false);
    assert!(first.created && first.value.read_only);
    assert_eq!(first.value.kind, VolumeKind::Snapshot);
    for read_only in [false, true] {
        assert!(!export(read_only).created);
    }
}

#[test]
fn thousands_of_resources_are_listed_by_pages_each_once() {
    let served = Served::new();
    let client = served.client();
    client
        .post::<Volume>("/v1/volumes", &create("v", 4))
        .unwrap();
    let total = PAGE_LIMIT + 5;
    for n in 1..total {
        take(&client, "v", &format!("s{n:04}")).unwrap();
    }
    let first: VolumePage = client.get("/v1/volumes").unwrap();
    assert_eq!(first.volumes.len(), PAGE_LIMIT);
    let next = first.next.unwrap();
    let last: VolumePage = client.get(&format!("/v1/volumes?after={next}")).unwrap();
    assert_eq!((last.volumes.len(), last.next), (5, None));
    assert_eq!(last.volumes[4].name.as_str(), "v");
    let volumes: VolumePage = client.get("/v1/volumes?kind=volume&limit=1").unwrap();
    assert_eq!((volumes.volumes.len(), volumes.next), (1, None));

    let tree: TreePage = client.get("/v1/tree?limit=1000").unwrap();
    assert_eq!(tree.nodes.len(), 1000);
    let next = tree.next.unwrap();
    let rest: TreePage = client.get(&format!("/v1/tree?after={next}")).unwrap();
    assert_eq!((rest.nodes.len(), rest.next), (5, None));
}

#[test]
fn long_verbs_go_on_where_they_were_until_they_have_ended() {
    let served = two_volumes();
    let client = served.client();
    take(&client, "a", "s").unwrap();
    let (mut from, mut steps, mut copied) = (0, 0, 0);
    loop {
        let request = Flatten { from };
        let step: Flattening = client
            .post("/v1/volumes/a/flatten", &request)
            .unwrap()
            .value;
        (from, steps, copied) = (step.done, steps + 1, copied + step.copied);
        if step.ended {
            break;
        }
    }
    assert_eq!((from, copied), (4 << 20, 4 << 20));
    assert!(steps > 1);
    let volume: Volume = client.get("/v1/volumes/a").unwrap();
    assert_eq!(volume.origin, None);
    let snapshot = client.post::<Flattening>("/v1/volumes/s/flatten", &Flatten { from: 0 });
    assert_eq!(snapshot.unwrap_err().kind, ErrorKind::Refused);

    let started: GcStatus = client.post("/v1/gc", &()).unwrap().value;
    assert!(started.running);
    let status = || client.get::<GcStatus>("/v1/gc").unwrap();
    assert!(status().running);
    assert!(!status().running);
}
