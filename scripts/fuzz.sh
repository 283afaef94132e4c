#!/usr/bin/env bash
# Fuzzes everything that reads bytes from elsewhere: messages, states, settings (fuzz/src).
#     scripts/fuzz.sh [SECONDS]            every target, for so many seconds each (60)
#     scripts/fuzz.sh SECONDS TARGET...    these targets
# With SYNCBN_FUZZ_LAYERS=1 the target exchange has the exchanges of layers too; they take minutes
# to compile. Installs cargo-fuzz and a nightly Rust where it may. What is found lies in
# target/fuzz/found; the same input again:
#     target/fuzz/x86_64-unknown-linux-gnu/release/TARGET FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
exec </dev/null

seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 [SECONDS [TARGET...]]" >&2; exit 2; }
shift $(($# > 0))

need_rust toolchain nightly
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz

folder=target/fuzz
corpus=$folder/corpus
found=$folder/found
manifest=(--manifest-path fuzz/Cargo.toml --target-dir "$folder")
fuzz=(--target-dir "$folder")
if [[ ${SYNCBN_FUZZ_LAYERS:-} ]]; then
    manifest+=(--features layers)
    fuzz+=(--features layers)
fi
# The properties hold on the seeds, and the harness notices what it is for.
step "tests of the targets" cargo test --quiet "${manifest[@]}"
targets=$(cargo run --quiet "${manifest[@]}" -- "$corpus")
step "targets, compiling" cargo +nightly fuzz build "${fuzz[@]}"

chosen=("$@")
if ((${#chosen[@]} == 0)); then
    # shellcheck disable=SC2206 # One word each.
    chosen=($targets)
fi
runs=0
for target in "${chosen[@]}"; do
    grep -qx "$target" <<<"$targets" || { echo "$0: there is no target $target" >&2; exit 2; }
    mkdir -p "$found/$target"
    options=(-max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024
        -malloc_limit_mb=64 -verbosity=0
        -print_final_stats=1 "-artifact_prefix=$found/$target/")
    case $target in config | statistics) options+=(-dict=fuzz/json.dict) ;; esac
    log=$found/$target/log
    step "$target" cargo +nightly fuzz run "${fuzz[@]}" "$target" "$corpus/$target" \
        -- "${options[@]}" \
        >"$log" 2>&1 || { cat "$log"; exit 1; }
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executed inputs"
    # A fuzzer that hardly ran has shown nothing.
    ((executed > 10 * seconds)) || { echo "$target: fewer than 10 inputs a second" >&2; exit 1; }
    runs=$((runs + 1))
done
echo "$runs of $(wc -w <<<"$targets") fuzz targets ran for $seconds s each: nothing found."
