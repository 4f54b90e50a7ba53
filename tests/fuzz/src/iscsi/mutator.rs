//! Makes inputs from PDUs that mean something: golden ones, those of real initiators, and those that are legal next in
//! a state; fitted to the state's numbers and tags, then changed by field, by byte, by order.
use super::option;
use super::state::{
    FIRST_TAG, NAMES, State, TEXT_TAG, command, data_out, login, logout, management, plain, text,
    transfer_tag,
};
use crate::mutate;
use crate::random::Random;
use crate::vectors;
use atoll_targets::iscsi::pdu::{Stage, TaskManagementFunction};

/// Most PDUs of one input.
const MAX_PDUS: usize = 24;
/// Longest data that a mutated length is given the bytes for.
const MAX_DATA: usize = 1024;
/// Bytes of a header in which most fields lie: opcode, flags, lengths, LUN, tags, numbers.
const WORDS: [usize; 9] = [4, 8, 16, 20, 24, 28, 32, 36, 40];
const OPCODES: [u8; 10] = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x1c, 0x3f];

/// Inputs for one state.
pub struct Mutator {
    state: State,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(state: State) -> Mutator {
        let due = state.prefix().cmd_sn;
        let mut seeds = vectors::pdus();
        let (own, all) = (legal(state, due), seeds.len());
        // Before the login is over anything but a login request ends it.
        let share = if state.is_login() { 8 * all } else { all };
        while seeds.len() < all + share {
            seeds.extend_from_slice(&own);
        }
        Mutator { state, seeds }
    }

    /// An input: the options, then up to 24 PDUs, each of them changed.
    pub fn input(&self, random: &mut Random, input: &mut Vec<u8>) {
        input.clear();
        let mut options = random.number() as u8 & random.number() as u8;
        if !self.state.is_login() || random.below(8) != 0 {
            options &= !option::REFUSE;
        }
        // Time in which nothing comes ends connections early.
        if !random.one_in(16) {
            options &= !option::TIME;
        }
        input.push(options);
        input.push(if random.one_in(4) {
            random.number() as u8
        } else {
            0
        });
        let mut due = self.state.prefix().cmd_sn;
        for _ in 0..1 + random.below(MAX_PDUS) {
            let start = input.len();
            let seed: &Vec<u8> = random.pick(&self.seeds);
            input.extend_from_slice(seed);
            if !random.one_in(16) {
                self.fit(random, &mut input[start..], due);
            }
            self.change(random, input, start);
            if random.one_in(24) {
                input.extend_from_within(start..);
            }
            if let [opcode, ..] = input[start..]
                && matches!(opcode, 0x00 | 0x01 | 0x02 | 0x04 | 0x06)
                && input.get(start + 24..start + 28) == Some(&due.to_be_bytes())
            {
                due = due.wrapping_add(1);
            }
        }
    }

    /// Unchanged inputs, for libFuzzer to begin with.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let due = self.state.prefix().cmd_sn;
        let mut random = Random(self.state as u64);
        let with_options = |options: u8, pdus: &[u8]| [&[options, 0], pdus].concat();
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        for mut pdu in vectors::pdus() {
            self.fit(&mut random, &mut pdu, due);
            inputs.push(with_options(0, &pdu));
        }
        let legal = legal(self.state, due);
        for (bit, pdu) in legal.iter().enumerate() {
            inputs.push(with_options(1 << (bit % 8), pdu));
        }
        inputs.push(with_options(0, &legal.concat()));
        inputs
    }

    /// Gives a PDU the numbers and tags that this state knows.
    fn fit(&self, random: &mut Random, pdu: &mut [u8], due: u32) {
        if pdu.len() < 48 || self.state.is_login() {
            return;
        }
        let opcode = pdu[0] & 0x3f;
        if opcode != 0x05 {
            pdu[24..28].copy_from_slice(&due.to_be_bytes());
        }
        // Mostly a new tag, or else one that is in use.
        let open = FIRST_TAG + random.below(4) as u32;
        let tag = match opcode {
            0x05 => open,
            _ if random.one_in(16) => open,
            _ => random.number() as u32 >> 1,
        };
        pdu[16..20].copy_from_slice(&tag.to_be_bytes());
        let transfer = match opcode {
            0x04 if random.one_in(2) => TEXT_TAG.wrapping_add(random.below(3) as u32),
            0x00 | 0x04 => u32::MAX,
            0x05 if tag == FIRST_TAG => transfer_tag(0, random.below(3) as u32),
            0x05 => u32::MAX,
            0x02 => open,
            _ => return,
        };
        pdu[20..24].copy_from_slice(&transfer.to_be_bytes());
    }

    /// One to three changes of the PDU from `start` on.
    fn change(&self, random: &mut Random, input: &mut Vec<u8>, start: usize) {
        for _ in 0..1 + random.below(8) / 3 {
            let length = input.len() - start;
            if length < 48 {
                break;
            }
            match random.below(24) {
                // What hardly matters, so that the PDU goes through: ExpStatSN, and where many have reserved bytes.
                0..=6 => input[start + 28 + random.below(4)] = random.number() as u8,
                7..=8 => input[start + 36 + random.below(12)] ^= 1 << random.below(8),
                9 => input[start] = *random.pick(&OPCODES) | (random.number() as u8 & 0x40),
                10..=11 => input[start + 1] ^= 1 << random.below(8),
                12 => input[start] ^= 0x40,
                13..=14 => {
                    let at = start + *random.pick(&WORDS);
                    mutate::word(random, input, at);
                }
                15 => input[start + random.below(48)] = random.number() as u8,
                16 => self.resize(random, input, start),
                17 => {
                    input[start + 4] = if random.one_in(2) {
                        1
                    } else {
                        random.number() as u8
                    }
                }
                18 => {
                    let other = random.pick(&self.seeds);
                    let at = random.below(other.len().min(length) / 4) * 4;
                    input.truncate(start + at);
                    input.extend_from_slice(&other[at..]);
                }
                19 if random.one_in(4) => input.truncate(start + random.below(length)),
                20 => self.segment(random, input, start),
                21..=22 if length > 48 => {
                    let mut data = input.split_off(start + 48);
                    mutate::bytes(random, &mut data);
                    data.truncate(MAX_DATA);
                    put_data(input, start, &data);
                }
                _ => {
                    let at = start + random.below(length);
                    input[at] ^= 1 << random.below(8);
                }
            }
        }
    }

    /// Another length of data, with the bytes for it.
    fn resize(&self, random: &mut Random, input: &mut Vec<u8>, start: usize) {
        let length = match random.below(3) {
            0 => random.below(16),
            1 => *random.pick(&[64, 128, 256, 512, 513, 1024]),
            _ => random.below(MAX_DATA),
        };
        input.truncate(start + 48);
        put_data(input, start, &[b'='; MAX_DATA][..length]);
    }

    /// Additional header segments of right form.
    fn segment(&self, random: &mut Random, input: &mut Vec<u8>, start: usize) {
        let data = input.split_off(start + 48);
        input[start + 4] = 2;
        let kind = 1 + random.below(2) as u8;
        input.extend_from_slice(&[0, 5, kind, 0, 1, 2, 3, 4]);
        input.extend_from_slice(&data);
    }
}

/// Appends data to a header at the end of `input`, and its length to that.
fn put_data(input: &mut Vec<u8>, start: usize, data: &[u8]) {
    let length = data.len() as u32;
    input[start + 5..start + 8].copy_from_slice(&length.to_be_bytes()[1..]);
    input.extend_from_slice(data);
    input.resize(start + 48 + data.len().next_multiple_of(4), 0);
}

/// PDUs that an initiator may send next.
fn legal(state: State, due: u32) -> Vec<Vec<u8>> {
    use Stage::{FullFeaturePhase, OperationalNegotiation, SecurityNegotiation};
    let keys = "HeaderDigest=CRC32C,None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0\
                MaxRecvDataSegmentLength=65536\0MaxBurstLength=262144\0FirstBurstLength=0x1000\0\
                MaxOutstandingR2T=8\0MaxConnections=1\0ErrorRecoveryLevel=0\0X-example=1\0";
    match state {
        State::Security => vec![
            login(SecurityNegotiation, SecurityNegotiation, NAMES),
            login(
                SecurityNegotiation,
                OperationalNegotiation,
                &format!("{NAMES}AuthMethod=CHAP,None\0"),
            ),
            login(SecurityNegotiation, FullFeaturePhase, NAMES),
            login(
                OperationalNegotiation,
                FullFeaturePhase,
                &format!("{NAMES}{keys}"),
            ),
        ],
        State::Operational => vec![
            login(OperationalNegotiation, OperationalNegotiation, keys),
            login(OperationalNegotiation, FullFeaturePhase, keys),
            login(OperationalNegotiation, FullFeaturePhase, ""),
        ],
        _ => {
            let tag = 0x1000;
            let write = |is_final, lengths| command(tag, due, true, is_final, lengths).encode().0;
            let mut pdus = vec![
                plain(command(tag, due, false, true, (1024, 0)).encode().0, &[]),
                plain(write(true, (512, 512)), &[0x5a; 512]),
                plain(write(false, (2048, 64)), &[0x5a; 64]),
                plain(write(true, (0xffff_ffff, 0)), &[]),
                data_out(FIRST_TAG, transfer_tag(0, 0), true, (1, 256, 768)),
                data_out(FIRST_TAG + 1, u32::MAX, true, (0, 128, 384)),
                data_out(FIRST_TAG + 2, u32::MAX, true, (8, 64, 64)),
                text(tag, due, u32::MAX, false, "SendTargets=All\0"),
                text(tag, due, u32::MAX, true, "MaxRecvDataSegmentLength=1"),
                text(tag, due, TEXT_TAG, false, "gets=\0"),
                text(tag, due, TEXT_TAG, false, ""),
                management(tag, due, TaskManagementFunction::AbortTask, FIRST_TAG),
                management(tag, due, TaskManagementFunction::LogicalUnitReset, u32::MAX),
            ];
            // Once in a while only, because it ends what follows.
            if due.is_multiple_of(2) {
                pdus.push(logout(tag, due));
            }
            pdus
        }
    }
}
