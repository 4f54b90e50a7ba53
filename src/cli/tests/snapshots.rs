//! Command lines of snapshots, clones, the tree and the garbage collector.

use super::*;

fn volumes(names: &[&str]) -> Served {
    let served = Served::new();
    for name in names {
        ok(&served, &format!("volume create {name} --size 1G"));
    }
    served
}

/// Stdout and stderr of a line that ends well.
fn told(served: &Served, line: &str) -> (String, String) {
    let (code, out, err) = at(served, line);
    assert_eq!(code, 0, "{line}: {err}");
    (out, err)
}

#[test]
fn snapshots_and_clones_from_taking_to_deleting() {
    let served = volumes(&["demo"]);
    assert_eq!(
        ok(&served, "volume snapshot demo mon"),
        "took snapshot mon of demo: 1 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume snapshot demo mon --if-not-exists"),
        "unchanged, there already: snapshot mon of demo: 1 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume clone mon test --size 2G"),
        "created volume test from snapshot mon: 2 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume clone mon test --if-not-exists"),
        "unchanged, there already: volume test from snapshot mon: 2 GiB in pool main\n"
    );
    assert_eq!(
        ok(&served, "volume protect mon"),
        "protected snapshot mon\n"
    );
    assert_eq!(
        ok(&served, "volume list"),
        "\
NAME  KIND       SIZE  BLOCK  POOL  ORIGIN  PROTECTED  STATE  CREATED
demo  volume    1 GiB    512  main  mon     -          ok     2026-11-30T23:59:59Z
mon   snapshot  1 GiB    512  main  -       yes        ok     2026-11-30T23:59:59Z
test  volume    2 GiB    512  main  mon     -          ok     2026-11-30T23:59:59Z
"
    );
    let snapshots = ok(&served, "volume list --kind snapshot");
    assert!(snapshots.contains("\nmon ") && !snapshots.contains("demo"));
    let shown = ok(&served, "volume show test");
    for part in [
        "\nkind        volume\n",
        "\norigin      mon\n",
        "\nprotected   no\n",
    ] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    let refused = "error: cannot delete volume \"mon\": snapshot \"mon\" is protected: unprotect it first\n\
                   hint: atoll volume unprotect mon\n";
    assert_eq!(error(&served, "volume delete mon"), (4, refused.to_owned()));
    ok(&served, "volume resize demo 3G");
    assert_eq!(
        ok(&served, "volume rollback demo mon"),
        "rolled volume demo back to snapshot mon: 1 GiB\n"
    );
    assert_eq!(
        ok(&served, "volume unprotect mon"),
        "unprotected snapshot mon\n"
    );
    assert_eq!(
        ok(&served, "volume rename mon tue"),
        "renamed snapshot mon to tue\n"
    );
    assert_eq!(ok(&served, "volume delete tue"), "deleted snapshot tue\n");
    assert_eq!(ok(&served, "volume list --kind snapshot"), "no snapshots\n");
    assert!(ok(&served, "status").contains("\nsnapshots  0\n"));
}

#[test]
fn a_group_says_each_snapshot_and_nothing_is_made_where_a_name_is_taken() {
    let served = volumes(&["db", "log"]);
    assert_eq!(
        ok(&served, "snapshot group mon log db"),
        "took snapshot log-mon of log: 1 GiB in pool main\n\
         took snapshot db-mon of db: 1 GiB in pool main\n"
    );
    assert!(
        ok(&served, "snapshot group mon db log --if-not-exists")
            .starts_with("unchanged, there already: snapshot db-mon of db")
    );
    ok(&served, "volume snapshot db db-tue");
    let (code, text) = error(&served, "snapshot group tue log db");
    assert_eq!(code, 4, "{text}");
    assert!(text.starts_with("error: cannot take snapshots \"tue\": "));
    assert_eq!(error(&served, "volume show log-tue").0, 3);
    let (code, text) = error(&served, "snapshot group wed db db");
    assert!(code == 2 && text.contains("named twice"), "{text}");
}

#[test]
fn exports_of_snapshots_are_read_only_and_say_so() {
    let served = volumes(&["demo"]);
    ok(&served, "volume snapshot demo mon");
    assert_eq!(
        ok(&served, "export add mon"),
        "exported snapshot mon, read-only, as a snapshot never changes\n\
         iscsi://127.0.0.1:3260/iqn.2026-11.io.atoll:mon/0\n"
    );
    assert!(ok(&served, "export add mon").starts_with("unchanged, exported already: snapshot mon"));
    let (code, text) = error(&served, "volume resize mon 2G");
    assert!(code == 4 && text.contains("never changes"), "{text}");
}

#[test]
fn the_tree_is_drawn_and_its_json_is_the_nodes() {
    let served = volumes(&["demo", "other"]);
    assert_eq!(ok(&Served::new(), "volume tree"), "no volumes\n");
    for line in [
        "volume snapshot demo mon",
        "volume clone mon test",
        "volume snapshot demo tue",
        "volume clone tue more",
        "volume protect mon",
        "volume delete tue",
    ] {
        ok(&served, line);
    }
    let demo = "\
NAME       KIND       SIZE    OWN  PROTECTED
mon        snapshot  1 GiB  4 MiB  yes
├─ test    volume    1 GiB    0 B  -
(deleted)  -             -    0 B  -
├─ more    volume    1 GiB    0 B  -
demo       volume    1 GiB    0 B  -
";
    assert_eq!(ok(&served, "volume tree demo"), demo);
    let all = format!("{demo}\nother      volume    1 GiB  4 MiB  -\n");
    assert_eq!(ok(&served, "volume tree"), all);
    let json: serde_json::Value =
        serde_json::from_str(&ok(&served, "volume tree other --json")).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{ "node": 2, "own": 4194304, "resource": {
            "name": "other", "kind": "volume", "size": 1 << 30, "pool": "main",
            "protected": false, "created": 1_796_083_199
        }}])
    );
    assert_eq!(error(&served, "volume tree none").0, 3);
}

#[test]
fn flattening_and_copying_show_how_far_they_are_and_programs_see_the_answer_only() {
    let served = volumes(&["demo"]);
    ok(&served, "volume snapshot demo mon");
    let (out, err) = told(&served, "volume flatten demo");
    assert_eq!(out, "flattened volume demo: 1 GiB copied into it\n");
    assert_eq!(
        err,
        "flattening demo: 20 %, 256 MiB of 1 GiB\n\
         flattening demo: 50 %, 512 MiB of 1 GiB\n\
         flattening demo: 70 %, 768 MiB of 1 GiB\n"
    );
    assert_eq!(
        ok(&served, "volume flatten demo"),
        "flattened volume demo: 0 B copied into it\n"
    );
    assert_eq!(
        ok(&served, "volume flatten demo --json"),
        "{\n  \"name\": \"demo\",\n  \"copied\": 0\n}\n"
    );

    let (out, err) = told(&served, "volume copy mon archive");
    assert_eq!(
        out,
        "copied mon to volume archive: 1023.98 MiB shared, 16 KiB copied\n"
    );
    assert_eq!(err.lines().count(), 3, "{err}");
    let json: serde_json::Value =
        serde_json::from_str(&ok(&served, "volume copy mon more --json")).unwrap();
    assert_eq!(
        (&json["volume"]["name"], &json["copied"]),
        (&"more".into(), &(4 * 4096).into())
    );
    let (code, text) = error(&served, "volume copy mon archive");
    assert_eq!(
        (code, text.as_str()),
        (
            4,
            "error: cannot copy \"mon\": there is a volume \"archive\" already\n"
        )
    );
    assert_eq!(error(&served, "volume copy none more").0, 3);
}

#[test]
fn the_collector_is_waited_for_only_if_asked_to() {
    let served = volumes(&["demo"]);
    for line in [
        "volume snapshot demo mon",
        "volume snapshot demo tue",
        "volume delete tue",
    ] {
        ok(&served, line);
    }
    let status = ok(&served, "gc status");
    for part in [
        "running            no\n",
        "maps to merge      1\n",
        "leak scan          not running",
    ] {
        assert!(status.contains(part), "{part:?}: {status}");
    }
    let begun = ok(&served, "gc run --json");
    assert!(begun.contains("\"running\": true"), "{begun}");
    let (ended, said) = told(&served, "gc run --wait");
    for part in [
        "running            no\n",
        "maps to merge      0\n",
        "merged maps        1\n",
    ] {
        assert!(ended.contains(part), "{part:?}: {ended}");
    }
    assert!(
        said.starts_with("collecting: 0 maps to delete, 1 to merge, 0 objects to delete\n"),
        "{said}"
    );
}

#[test]
fn a_pool_says_what_it_stores_and_for_whom() {
    let served = volumes(&["demo"]);
    ok(&served, "volume snapshot demo mon");
    let shown = ok(&served, "pool show main");
    for part in [
        "\nlogical      2 GiB (2147483648 bytes)\n",
        "\nmapped       4 MiB",
        "\nshared       4 MiB",
        "\nunique       0 B",
        "\ngarbage      0 B",
    ] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
}

#[test]
fn more_than_a_page_is_listed_whole() {
    let served = volumes(&["demo"]);
    let total = crate::api::PAGE_LIMIT + 2;
    let client = crate::admin::client::Client::new(served.path());
    for n in 1..total {
        let request = serde_json::json!({ "snapshot": format!("s{n}") });
        let taken = client.post::<serde_json::Value>("/v1/volumes/demo/snapshot", &request);
        taken.unwrap();
    }
    for (line, count) in [
        ("volume list --json", total),
        ("volume list --kind snapshot --json", total - 1),
        ("volume tree --json", total),
    ] {
        let list: serde_json::Value = serde_json::from_str(&ok(&served, line)).unwrap();
        assert_eq!(list.as_array().unwrap().len(), count, "{line}");
    }
    assert_eq!(ok(&served, "volume list").lines().count(), total + 1);
}
