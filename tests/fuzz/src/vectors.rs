//! The golden bytes under `tests/vectors/`, which are the seeds of all mutation.

macro_rules! vector {
    ($path:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/", $path)).as_slice()
    };
}

/// One header each, hexadecimal.
const PDUS: [&[u8]; 18] = [
    vector!("iscsi/async_message.hex"),
    vector!("iscsi/data_in.hex"),
    vector!("iscsi/data_out.hex"),
    vector!("iscsi/login_request.hex"),
    vector!("iscsi/login_response.hex"),
    vector!("iscsi/logout_request.hex"),
    vector!("iscsi/logout_response.hex"),
    vector!("iscsi/nop_in.hex"),
    vector!("iscsi/nop_out.hex"),
    vector!("iscsi/r2t.hex"),
    vector!("iscsi/reject.hex"),
    vector!("iscsi/scsi_command.hex"),
    vector!("iscsi/scsi_response.hex"),
    vector!("iscsi/snack_request.hex"),
    vector!("iscsi/task_management_request.hex"),
    vector!("iscsi/task_management_response.hex"),
    vector!("iscsi/text_request.hex"),
    vector!("iscsi/text_response.hex"),
];

/// Streams of real initiators, whole PDUs.
const STREAMS: [&[u8]; 7] = [
    vector!("iscsi/replay/libiscsi-0.bin"),
    vector!("iscsi/replay/libiscsi-1.bin"),
    vector!("iscsi/replay/libiscsi-2.bin"),
    vector!("iscsi/replay/libiscsi-3.bin"),
    vector!("iscsi/replay/linux-0.bin"),
    vector!("iscsi/replay/linux-1.bin"),
    vector!("iscsi/replay/qemu-0.bin"),
];

/// Longest data segment of a seed: longer ones add bytes and no meaning.
const MAX_SEED_DATA: usize = 768;

/// The digits of hexadecimal text without `#` comments.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn text(bytes: &'static [u8]) -> &'static str {
    std::str::from_utf8(bytes).expect("vectors are text")
}

fn uncommented(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
}

/// Every golden header, and the PDUs of real initiators that differ in more than numbers.
pub fn pdus() -> Vec<Vec<u8>> {
    let golden = PDUS
        .iter()
        .map(|file| hex(&uncommented(text(file)).collect::<String>()));
    let mut found: Vec<Vec<u8>> = golden.collect();
    let mut seen = std::collections::HashSet::new();
    for mut stream in STREAMS {
        while let Some(length) = crate::iscsi::pdu_length(stream) {
            let (pdu, rest) = stream.split_at(length.min(stream.len()));
            stream = rest;
            // Opcode, flags, CDB's opcode and flags, and whether there is data.
            let kind = (pdu[0], pdu[1], pdu[32], pdu[33], pdu.len() > 48);
            if pdu.len() <= 48 + MAX_SEED_DATA && seen.insert(kind) {
                found.push(pdu.to_vec());
            }
        }
    }
    found
}

/// The texts of real logins and requests.
pub fn texts() -> Vec<Vec<u8>> {
    let data = |pdu: Vec<u8>| pdu[48..].to_vec();
    let textual = |pdu: &Vec<u8>| matches!(pdu[0] & 0x3f, 3 | 4) && pdu.len() > 48;
    pdus().into_iter().filter(textual).map(data).collect()
}

/// Golden CDBs.
pub fn cdbs() -> Vec<Vec<u8>> {
    let lines = uncommented(text(vector!("scsi/cdbs.hex")));
    lines
        .filter_map(|line| line.split_once('|'))
        .map(|(cdb, _)| hex(cdb))
        .collect()
}

/// `name: hex`, continued on indented lines.
fn named(bytes: &'static [u8]) -> Vec<Vec<u8>> {
    let mut found: Vec<String> = Vec::new();
    for line in uncommented(text(bytes)) {
        match line.split_once(':') {
            Some((_, hex)) => found.push(hex.to_owned()),
            None => found
                .last_mut()
                .into_iter()
                .for_each(|last| last.push_str(line)),
        }
    }
    found.iter().map(|digits| hex(digits)).collect()
}

/// Golden keys of the metadata store.
pub fn keys() -> Vec<Vec<u8>> {
    named(vector!("mapper/keys.hex"))
}

/// Golden bodies of rows and pages.
pub fn bodies() -> Vec<Vec<u8>> {
    let mut found = named(vector!("mapper/rows.hex"));
    found.extend(named(vector!("mapper/pages.hex")));
    found
}

/// A pool's label and mark.
pub fn pool_files() -> [&'static [u8]; 2] {
    [
        vector!("backends/pool.label"),
        vector!("backends/pool.mark"),
    ]
}
