//! A small seeded generator (SplitMix64), quick enough for millions of cases, so that a seed in a message
//! reproduces a case; and the running of cases by their seeds. Not for anything secret.

/// The state is the seed.
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, which are not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Names the seed when a case fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with ATOLL_SEED={}", self.0);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let value = text.parse();
    Some(value.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Runs cases until they have come to `wanted` in all, ten times as many with `ATOLL_SOAK`, and from seeds that no run
/// had before. `case` says what it came to. `ATOLL_SEED` runs that one case.
pub fn cases(what: &str, wanted: u64, mut case: impl FnMut(&mut Random) -> u64) {
    let mut run = |seed: u64| {
        let _named = Named(seed);
        case(&mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    };
    if let Some(seed) = setting("ATOLL_SEED") {
        println!(
            "{what}: the case of ATOLL_SEED={seed} comes to {}",
            run(seed)
        );
        return;
    }
    let soak = setting("ATOLL_SOAK").is_some_and(|on| on != 0);
    let (first, wanted) = match std::time::SystemTime::UNIX_EPOCH.elapsed() {
        Ok(since) if soak => (since.as_nanos() as u64 >> 8, wanted * 10),
        _ => (0, wanted),
    };
    let (mut seed, mut done) = (first, 0);
    while done < wanted {
        done += run(seed);
        seed = seed.wrapping_add(1);
    }
    println!("{what}: {done} in {} cases", seed.wrapping_sub(first));
}
