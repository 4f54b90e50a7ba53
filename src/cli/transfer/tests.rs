//! Whole command lines that move content, against an engine of memory that holds bytes: what was
//! exported is what is imported, whatever interrupts it.

use std::fs;
use std::path::PathBuf;

use crate::admin::tests::Served;
use crate::cli::tests::{at, run};
use crate::transfer::format::{HEAD, UNIT};

const BLOCK: usize = UNIT as usize;
const MIB: u64 = 1 << 20;

/// What it prints; how far it was is on stderr.
fn ok(served: &Served, line: &str) -> String {
    let (code, out, err) = at(served, line);
    assert_eq!(code, 0, "{line}: {err}");
    out
}

/// Exit code, and the error behind the lines of progress.
fn error(served: &Served, line: &str) -> (u8, String) {
    let (code, out, err) = at(served, line);
    assert_eq!(out, "", "{line}");
    let start = err
        .find("error: ")
        .unwrap_or_else(|| panic!("{line}: {err}"));
    (code, err[start..].to_owned())
}

fn pattern(seed: u64, blocks: usize) -> Vec<u8> {
    let words = blocks * BLOCK / 8;
    (0..words as u64)
        .flat_map(|n| (n + 1).wrapping_mul(seed | 1).to_le_bytes())
        .collect()
}

/// A volume of 8 MiB with content here and there, and its snapshot `mon`.
fn source() -> Served {
    let served = Served::new();
    ok(&served, "volume create vm --size 8M --block-size 4096");
    let vm = &served.control;
    vm.put("vm", 0, &pattern(3, 1));
    vm.put("vm", MIB - 8192, &pattern(5, 5));
    vm.put("vm", 3 * MIB, &pattern(7, 600));
    vm.put("vm", 8 * MIB - 4096, &pattern(9, 1));
    // Stored, and zero.
    vm.put("vm", 7 * MIB, &[0; 16384]);
    vm.snapshot("vm", "mon");
    served
}

/// Changed since, and zeroed in part; snapshot `tue`.
fn change(served: &Served) {
    let vm = &served.control;
    vm.put("vm", 4096, &pattern(11, 3));
    vm.put("vm", 3 * MIB + 8192, &[0; 8192]);
    vm.put("vm", 6 * MIB, &pattern(13, 2));
    vm.snapshot("vm", "tue");
}

fn file(served: &Served, name: &str) -> String {
    served.dir.path().join(name).to_str().unwrap().to_owned()
}

fn exported(served: &Served, snapshot: &str, more: &str) -> String {
    let path = file(served, &format!("{snapshot}.atoll"));
    ok(
        served,
        &format!("volume export-file {snapshot} {path} {more}"),
    );
    path
}

#[test]
fn a_whole_export_makes_a_volume_of_the_same_content_and_holds_only_what_is_stored() {
    let served = source();
    let path = file(&served, "f");
    let said = ok(&served, &format!("volume export-file mon {path}"));
    let length = fs::metadata(&path).unwrap().len();
    assert!(length < 607 * UNIT + 4096, "{length}");
    assert!(
        said.starts_with(&format!("exported mon to {path}: 2.37 MiB of data in ")),
        "{said}"
    );

    let said = ok(&served, &format!("volume import-file copy {path}"));
    assert_eq!(
        said,
        "imported volume copy: 8 MiB, 2.37 MiB written, kept as snapshot copy.mon\n"
    );
    assert!(served.control.bytes("copy") == served.control.bytes("mon"));
    assert!(served.control.bytes("copy.mon") == served.control.bytes("mon"));
    assert!(ok(&served, "volume show copy").contains("block size  4096"));
    // The same snapshot is the same file.
    let again = file(&served, "again");
    ok(&served, &format!("volume export-file mon {again}"));
    assert!(fs::read(path).unwrap() == fs::read(again).unwrap());
}

#[test]
fn a_chain_of_differences_brings_a_copy_to_each_state_and_only_in_order() {
    let served = source();
    change(&served);
    served.control.put("vm", 5 * MIB, &pattern(17, 1));
    ok(&served, "volume resize vm 12M");
    served.control.put("vm", 11 * MIB, &pattern(19, 300));
    served.control.snapshot("vm", "wed");
    let mon = exported(&served, "mon", "");
    let tue = exported(&served, "tue", "--from mon");
    let wed = exported(&served, "wed", "--from tue");
    assert!(fs::metadata(&tue).unwrap().len() < 8 * UNIT);

    let import = |path: &str| format!("volume import-file copy {path}");
    let (code, said) = error(&served, &import(&tue));
    assert_eq!(code, 3);
    assert!(
        said.contains("import the whole export of that first"),
        "{said}"
    );
    ok(&served, &import(&mon));
    let (code, _) = error(&served, &import(&wed));
    assert_eq!(code, 4);
    ok(&served, &import(&tue));
    assert!(served.control.bytes("copy") == served.control.bytes("tue"));
    let (code, said) = error(&served, &import(&tue));
    assert_eq!(code, 4);
    assert!(said.contains("imported already"), "{said}");
    ok(&served, &import(&wed));
    assert!(served.control.bytes("copy") == served.control.bytes("wed"));
    assert!(served.control.bytes("copy.tue") == served.control.bytes("tue"));
}

#[test]
fn a_difference_is_not_applied_to_what_has_changed_since_unless_that_is_asked_for() {
    let served = source();
    change(&served);
    let mon = exported(&served, "mon", "");
    let tue = exported(&served, "tue", "--from mon");
    ok(&served, &format!("volume import-file copy {mon}"));
    served.control.put("copy", 2 * MIB, &[1; 4096]);
    let before = served.control.bytes("copy");
    let (code, _) = error(&served, &format!("volume import-file copy {tue}"));
    assert_eq!(code, 4);
    assert!(served.control.bytes("copy") == before);
    ok(&served, &format!("volume import-file copy {tue} --force"));
}

#[test]
fn a_base_must_be_a_snapshot() {
    let served = source();
    ok(&served, "volume create other --size 8M");
    let path = file(&served, "f");
    let (code, said) = error(
        &served,
        &format!("volume export-file mon {path} --from other"),
    );
    assert_eq!(code, 4);
    assert!(said.contains("builds on a snapshot"), "{said}");
    assert!(!PathBuf::from(path).exists());
}

#[test]
fn an_interrupted_export_goes_on_to_the_file_that_it_would_have_been() {
    let served = source();
    let whole = fs::read(exported(&served, "mon", "")).unwrap();
    let path = file(&served, "f");
    let resume = format!("volume export-file mon {path} --resume");
    let ends = [
        0,
        1,
        50,
        79,
        80,
        81,
        80 + HEAD,
        200,
        5000,
        30_000,
        whole.len() / 2,
    ];
    let late = (1..80).step_by(7).map(|n| whole.len() - n);
    for cut in ends.into_iter().chain(late) {
        fs::write(&path, &whole[..cut]).unwrap();
        ok(&served, &resume);
        assert!(fs::read(&path).unwrap() == whole, "cut at {cut}");
        // As a power loss leaves what was not written out.
        fs::write(&path, [&whole[..cut], &vec![0; 5000]].concat()).unwrap();
        if cut >= 100 {
            ok(&served, &resume);
            assert!(fs::read(&path).unwrap() == whole, "cut at {cut}, and zeros");
        }
    }
    let said = ok(&served, &resume);
    assert!(said.starts_with("unchanged, exported already: "), "{said}");
    // What is damaged in the middle is written again from there on.
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&path, damaged).unwrap();
    ok(&served, &resume);
    assert!(fs::read(&path).unwrap() == whole);
}

#[test]
fn only_the_same_export_is_gone_on_with_and_other_files_are_left_alone() {
    let served = source();
    change(&served);
    let mon = exported(&served, "mon", "");
    let before = fs::read(&mon).unwrap();
    for line in [
        format!("volume export-file tue {mon} --resume"),
        format!("volume export-file mon {mon}"),
        format!("volume export-file mon {mon} --raw"),
        format!("volume export-file vm {mon} --resume"),
    ] {
        let (code, said) = error(&served, &line);
        assert_eq!(code, 4, "{line}: {said}");
        assert!(fs::read(&mon).unwrap() == before, "{line}");
    }
    let mine = file(&served, "mine");
    for text in ["precious ".repeat(4), "precious ".repeat(4000)] {
        fs::write(&mine, &text).unwrap();
        let (code, _) = error(&served, &format!("volume export-file mon {mine} --resume"));
        assert_eq!(code, 4);
        assert_eq!(fs::read_to_string(&mine).unwrap(), text);
    }
    // Part of a difference is no part of a whole export.
    let tue = exported(&served, "tue", "--from mon");
    let (code, said) = error(&served, &format!("volume export-file tue {tue} --resume"));
    assert_eq!(code, 4);
    assert!(said.contains("since \"mon\""), "{said}");
}

#[test]
fn an_interrupted_import_says_so_and_goes_on_to_the_same_content() {
    let served = source();
    change(&served);
    let mon = exported(&served, "mon", "");
    let tue = exported(&served, "tue", "--from mon");
    for (path, state) in [(&mon, "mon"), (&tue, "tue")] {
        for writes in [0, 1, 2] {
            served.control.fail_writes_after(writes);
            let resume = if writes == 0 { "" } else { "--resume" };
            let line = format!("volume import-file copy {path} {resume}");
            let (code, said) = error(&served, &line);
            assert_eq!(code, 1, "{said}");
            assert!(
                said.contains(&format!(
                    "volume copy is incomplete: go on with `atoll volume import-file copy {path} --resume`"
                )),
                "{said}"
            );
            assert!(served.control.import_done("copy").is_some());
        }
        served.control.writes_succeed();
        let (code, _) = error(&served, &format!("volume import-file copy {path}"));
        assert_eq!(code, 4);
        ok(&served, &format!("volume import-file copy {path} --resume"));
        assert!(served.control.bytes("copy") == served.control.bytes(state));
        assert_eq!(served.control.import_done("copy"), None);
    }
}

#[test]
fn a_damaged_or_truncated_file_leaves_an_import_incomplete() {
    let served = source();
    let path = exported(&served, "mon", "");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for (n, wrong) in [&flipped[..], &whole[..whole.len() - 1], &whole[..9000]]
        .into_iter()
        .enumerate()
    {
        fs::write(&path, wrong).unwrap();
        let (code, said) = error(&served, &format!("volume import-file copy{n} {path}"));
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("damaged") || said.contains("incomplete"),
            "{said}"
        );
        assert!(served.control.import_done(&format!("copy{n}")).is_some());
    }
    // Nothing has begun where not even the header is right.
    flipped = whole;
    flipped[20] ^= 1;
    fs::write(&path, flipped).unwrap();
    error(&served, &format!("volume import-file none {path}"));
    assert_eq!(error(&served, "volume show none").0, 3);
}

#[test]
fn a_plain_image_is_the_content_and_has_holes_and_comes_back_as_it_was() {
    use std::os::unix::fs::MetadataExt;
    let served = source();
    let path = file(&served, "image");
    let said = ok(&served, &format!("volume export-file mon {path} --raw"));
    assert!(said.contains("2.37 MiB of data in 8 MiB"), "{said}");
    let image = fs::read(&path).unwrap();
    assert!(image == served.control.bytes("mon"));
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 4 * MIB);
    assert!(!PathBuf::from(format!("{path}.partial")).exists());

    let said = ok(&served, &format!("volume import-file back {path}"));
    assert_eq!(said, "imported volume back: 8 MiB, 2.37 MiB written\n");
    assert!(served.control.bytes("back") == image);
    let (code, _) = error(&served, &format!("volume import-file back {path}"));
    assert_eq!(code, 4);
    let (code, _) = error(&served, &format!("volume import-file back {path} --resume"));
    assert_eq!(code, 4);

    // A length that no volume has, and a size that is larger.
    fs::write(&path, &image[..3 * MIB as usize + 1000]).unwrap();
    ok(&served, &format!("volume import-file odd {path} --size 6M"));
    let odd = served.control.bytes("odd");
    assert_eq!(odd.len() as u64, 6 * MIB);
    assert!(odd[..3 * MIB as usize + 1000] == image[..3 * MIB as usize + 1000]);
    assert!(odd[3 * MIB as usize + 1000..].iter().all(|b| *b == 0));
    let (code, _) = error(
        &served,
        &format!("volume import-file small {path} --size 2M"),
    );
    assert_eq!(code, 2);
}

#[test]
fn an_interrupted_import_of_an_image_leaves_nothing_of_another_one_behind() {
    let served = source();
    let [one, other] = ["one", "other"].map(|name| file(&served, name));
    fs::write(&one, pattern(3, 1024)).unwrap();
    let image = fs::File::create(&other).unwrap();
    image.set_len(4 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, &pattern(5, 1), MIB).unwrap();
    served.control.fail_writes_after(3);
    error(&served, &format!("volume import-file copy {one}"));
    served.control.writes_succeed();
    ok(
        &served,
        &format!("volume import-file copy {other} --resume"),
    );
    assert!(served.control.bytes("copy") == fs::read(other).unwrap());
}

#[test]
fn to_stdout_goes_the_stream_alone() {
    let served = source();
    let path = exported(&served, "mon", "");
    for (more, expected) in [
        ("", fs::read(&path).unwrap()),
        ("--raw", served.control.bytes("mon")),
    ] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let socket = served.path();
        let line = format!("volume export-file mon - {more}");
        let args = ["atoll", "--admin", socket.to_str().unwrap()]
            .into_iter()
            .chain(line.split_whitespace())
            .map(Into::into);
        assert_eq!(crate::cli::run_on(args, &mut out, &mut err, false), 0);
        assert!(out == expected, "{more}");
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("exported mon to -: "), "{err}");
    }
}

#[test]
fn differences_are_a_table_an_array_and_a_compact_list() {
    let served = source();
    change(&served);
    assert_eq!(
        ok(&served, "diff mon tue"),
        "          OFFSET            LENGTH  CONTENT
            4096             12288  data
         3153920              8192  zeros
         6291456              8192  data
3 ranges: 20 KiB of data, 8 KiB of zeros
"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ok(&served, "diff mon tue --json")).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({ "offset": 3_153_920, "length": 8192, "zero": true })
    );
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(ok(&served, "diff mon mon"), "no differences\n");
    assert_eq!(ok(&served, "diff mon mon --json"), "[\n]\n");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let socket = served.path();
    let args = [
        "atoll",
        "--admin",
        socket.to_str().unwrap(),
        "diff",
        "mon",
        "tue",
        "--binary",
    ];
    crate::cli::run_on(args.map(Into::into), &mut out, &mut err, false);
    assert!(out.starts_with(b"ATOLLDIF\x01\0\0\0\0\x10\0\0"));
    // 1 unit on: 3 units of data; 766 on: 2 of zeros; 764 on: 2 of data; the end.
    assert_eq!(
        out[56..68],
        [1, 6, 0xfe, 5, 5, 0xfc, 5, 4, 0, 0, 3, 0],
        "{out:02x?}"
    );
    let (code, said) = error(&served, "diff mon none");
    assert_eq!(code, 3);
    assert!(
        said.starts_with("error: cannot compare \"mon\" and \"none\""),
        "{said}"
    );
    assert_eq!(run(&["diff", "a", "b", "--binary", "--json"]).0, 2);
}

fn names(served: &Served) -> Vec<String> {
    let list = ok(served, "volume list --json");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let volumes = list.as_array().unwrap().iter();
    volumes
        .map(|v| v["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_volume_is_exported_by_way_of_a_snapshot_that_is_gone_afterwards() {
    let served = source();
    let path = file(&served, "f");
    ok(&served, &format!("volume export-file vm {path}"));
    assert_eq!(names(&served), ["mon", "vm"]);
    served.control.put("vm", 0, &[9; 4096]);
    let said = ok(&served, &format!("volume import-file copy {path}"));
    // No difference will ever build on it.
    assert_eq!(said, "imported volume copy: 8 MiB, 2.37 MiB written\n");
    assert!(served.control.bytes("copy") == served.control.bytes("mon"));
    // The whole content of what came later, by way of an image.
    let image = file(&served, "image");
    ok(&served, &format!("volume export-file vm {image} --raw"));
    assert!(fs::read(image).unwrap() == served.control.bytes("vm"));
    assert_eq!(names(&served), ["copy", "mon", "vm"]);

    // An error takes it away too, with what was written.
    let (code, _) = error(&served, "volume export-file vm /nowhere/f");
    assert_eq!(code, 3);
    let (code, _) = error(&served, &format!("volume export-file vm {path}"));
    assert_eq!(code, 4);
    assert_eq!(names(&served), ["copy", "mon", "vm"]);
}

#[test]
fn what_a_killed_export_of_a_volume_left_is_gone_on_with_and_its_snapshot_deleted() {
    let served = source();
    let path = file(&served, "f");
    ok(&served, "volume snapshot vm vm.export-0badcafe");
    // As by the export that was killed: the snapshot is there, and the file is a part.
    let whole = file(&served, "whole");
    ok(
        &served,
        &format!("volume export-file vm.export-0badcafe {whole}"),
    );
    let mut bytes = fs::read(&whole).unwrap();
    bytes[10] |= 2;
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crate::transfer::format::crc32c(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes[..length]).unwrap();

    served.control.put("vm", 0, &[9; 4096]);
    let (code, _) = error(&served, &format!("volume export-file mon {path} --resume"));
    assert_eq!(code, 4);
    ok(&served, &format!("volume export-file vm {path} --resume"));
    assert_eq!(names(&served), ["mon", "vm"]);
    ok(&served, &format!("volume import-file copy {path}"));
    assert!(served.control.bytes("copy") == served.control.bytes("mon"));
    // Without its snapshot a part is of no use.
    fs::write(&path, &bytes[..length]).unwrap();
    let (code, said) = error(&served, &format!("volume export-file vm {path} --resume"));
    assert_eq!(code, 4);
    assert!(said.contains("not there any more"), "{said}");
}

#[test]
fn long_lists_of_changes_come_page_by_page() {
    let served = Served::new();
    ok(&served, "volume create vm --size 64M");
    served.control.snapshot("vm", "mon");
    for n in 0..5000 {
        served.control.put("vm", n * 2 * UNIT, &[1; BLOCK]);
    }
    served.control.snapshot("vm", "tue");
    let table = ok(&served, "diff mon tue");
    assert!(table.ends_with("\n5000 ranges: 19.53 MiB of data, 0 B of zeros\n"));
    let path = file(&served, "f");
    let said = ok(
        &served,
        &format!("volume export-file tue {path} --from mon --json"),
    );
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["data"], 5000 * UNIT);
}

#[test]
fn json_says_what_was_done_and_nothing_else() {
    let served = source();
    let path = file(&served, "f");
    let (code, out, err) = at(&served, &format!("volume export-file mon {path} --json"));
    assert_eq!((code, err.as_str()), (0, ""));
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&said["name"], &said["data"], &said["resumed"]),
        (&"mon".into(), &(607 * UNIT).into(), &false.into())
    );
    let out = ok(&served, &format!("volume import-file copy {path} --json"));
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&said["volume"]["name"], &said["snapshot"], &said["data"]),
        (&"copy".into(), &"copy.mon".into(), &(607 * UNIT).into())
    );
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    let served = source();
    let mon = exported(&served, "mon", "");
    let image = file(&served, "image");
    fs::write(&image, pattern(1, 256)).unwrap();
    for (line, code) in [
        (format!("volume import-file a {mon} --size 9M"), 2),
        (format!("volume import-file a {mon} --block-size 512"), 2),
        (format!("volume import-file a {mon} --force"), 2),
        (format!("volume import-file a {image} --force"), 2),
        (format!("volume import-file a {image} --snapshot s"), 2),
        (format!("volume import-file a {image} --format atoll"), 2),
        ("volume import-file a /none".to_owned(), 3),
        ("volume export-file mon - --resume".to_owned(), 2),
        ("volume export-file mon x --raw --from mon".to_owned(), 2),
        ("volume export-file none x".to_owned(), 3),
    ] {
        let (found, said) = error(&served, &line);
        assert_eq!(found, code, "{line}: {said}");
    }
    assert_eq!(error(&served, "volume show a").0, 3);
}
