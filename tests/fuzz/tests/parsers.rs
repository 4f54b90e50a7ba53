//! Mutated bytes at every parser besides the connection: wire types, login text, SCSI commands with their parameter
//! lists, metadata, pool files. The bodies are libFuzzer's.
use atoll_fuzz::random::{Random, cases};
use atoll_fuzz::{Target, mutate, targets};

const INPUTS: u64 = 200_000;

/// Golden inputs, each with up to six changes, sometimes spliced with another one.
fn mutated(name: &str) {
    let target: &Target = targets()
        .find(|target| target.name == name)
        .expect("a target");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| (target.body)(seed));
    cases(name, INPUTS, |random: &mut Random| {
        let seed: &Vec<u8> = random.pick(&seeds);
        let mut input = seed.clone();
        if random.one_in(8) {
            let other: &Vec<u8> = random.pick(&seeds);
            let at = random.below(input.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[at.min(other.len())..]);
        }
        for _ in 0..random.below(7) {
            mutate::bytes(random, &mut input);
        }
        (target.body)(&input);
        1
    });
}

#[test]
fn any_header_decodes_to_what_it_encodes_as() {
    mutated("iscsi-pdu");
}

#[test]
fn mutated_login_text_is_answered_within_one_pdu_or_refused() {
    mutated("iscsi-text");
}

#[test]
fn mutated_cdbs_and_parameter_lists_end_in_an_answer_or_inside_the_volume() {
    mutated("scsi");
}

#[test]
fn mutated_rows_and_keys_are_refused_or_canonical() {
    mutated("mapper-rows");
}

#[test]
fn mutated_pages_are_refused_or_come_back() {
    mutated("mapper-pages");
}

#[test]
fn mutated_values_merge_in_any_grouping_or_not_at_all() {
    mutated("mapper-merge");
}

#[test]
fn mutated_pool_files_are_refused_or_come_back() {
    mutated("pool-label");
}
