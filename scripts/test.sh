#!/usr/bin/env bash
# Runs every test and says at the end how many passed; `make test` and `make soak` call it.
#
# environment: ATOLL_SOAK=1 for the long modes, TEST_ARGS for cargo (such as a test's name), CARGO
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

profile=default
[ "${ATOLL_SOAK:-0}" = 0 ] || profile=soak
# shellcheck disable=SC2206  # several words
args=(--workspace --locked ${TEST_ARGS:-})

if [[ -z ${TEST_ARGS:-} || $TEST_ARGS == *demo* ]]; then
    # tests/demo.rs builds a clone in this target directory: with nothing there yet it would exceed a test's time.
    "$cargo" build --locked 2>&1 | tee -a "$log"
fi
if "$cargo" nextest --version >/dev/null 2>&1; then
    "$cargo" nextest run --profile "$profile" "${args[@]}" 2>&1 | tee -a "$log"
else
    # Everything but the documentation, unless it is said which programs (nextest takes the same options).
    programs=(--lib --bins --tests)
    [[ " ${TEST_ARGS:-} " =~ \ --(lib|bin|bins|test|tests|example|examples|all-targets)[=\ ] ]] && programs=()
    "$cargo" test --no-fail-fast "${programs[@]}" "${args[@]}" 2>&1 | tee -a "$log"
fi
if [ -z "${TEST_ARGS:-}" ]; then
    # Documentation's examples: nextest does not run them.
    "$cargo" test --doc "${args[@]}" 2>&1 | tee -a "$log"
    # What crosses cores, over every interleaving that matters: built with loom's atomics, apart from the rest.
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS="--cfg loom" CARGO_PROFILE_RELEASE_LTO=off \
        "$cargo" test --locked -p atoll-reactor --release --lib loom_ 2>&1 | tee -a "$log"
    # Every parser under libFuzzer for 30 s.
    if [ "$profile" = soak ]; then
        scripts/fuzz.sh
    fi
fi

# nextest: "Summary [ 1.8s] 13 tests run: 13 passed, 0 skipped"; cargo test: "test result: ok. 13 passed; 0 failed; ..."
sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    /tests? run: .* passed/ || /^test result: / {
        for (word = 2; word <= NF; word++) if ($word ~ /^passed[,;]?$/) sum += $(word - 1)
    }
    END { print sum + 0 " passed" }'
