#!/usr/bin/env bash
# Runs the libFuzzer targets of tests/fuzz one after the other, from the golden bytes and from what earlier runs found.
# An input that fails stays in CARGO_TARGET_DIR/fuzz/failed, and ends the run when all targets had their turn.
#
# usage: fuzz.sh [TARGET...]      environment: ATOLL_FUZZ_SECONDS for each target (30), CARGO
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
seconds=${ATOLL_FUZZ_SECONDS:-30}
build=${CARGO_TARGET_DIR:-target}/fuzz
host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
mkdir -p "$build/seeds" "$build/corpus" "$build/failed"

mapfile -t names < <("$cargo" run --quiet --locked -p atoll-fuzz --example corpus -- "$build/seeds")
[ ${#names[@]} -gt 0 ] || { echo "fuzz: no targets" >&2; exit 1; }
[ $# = 0 ] || names=("$@")

# Coverage and the address sanitizer are unstable options of the stable compiler. With --target they are not put on
# build scripts, which would not link.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" CARGO_TARGET_DIR="$build" "$cargo" build --locked --profile fuzz \
    --target "$host" -p atoll-fuzz --features libfuzzer --bin fuzz

failed=()
for name in "${names[@]}"; do
    mkdir -p "$build/corpus/$name"
    log=$build/$name.log
    # detect_leaks needs ptrace, which containers often refuse; what is held is counted by the bodies themselves.
    if ATOLL_FUZZ="$name" ASAN_OPTIONS=detect_leaks=0 "$build/$host/fuzz/fuzz" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
        -artifact_prefix="$build/failed/$name-" "$build/corpus/$name" "$build/seeds/$name" >"$log" 2>&1
    then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
        echo "fuzz: $name: $runs inputs in $seconds s, $coverage"
    else
        failed+=("$name")
        echo "fuzz: $name FAILED:" >&2
        grep -A 4 'panicked at\|ERROR: ' "$log" | head -n 12 >&2 || :
        tail -n 3 "$log" >&2
    fi
done
[ ${#failed[@]} = 0 ] || { echo "fuzz: failed: ${failed[*]}" >&2; exit 1; }
