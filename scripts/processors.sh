#!/usr/bin/env bash
# The host's kernels on processors that are not at hand, emulated: they must be right on each, and
# the same bits on all.
#     scripts/processors.sh            x86-64 as it began (SSE2), with AVX2, and as it is here
#     scripts/processors.sh aarch64    those, and 64-bit Arm (NEON) without f16 arithmetic and with
#                                      it, for which everything
#                                      is compiled once more
# On x86-64 Linux. Installs the emulator, and for Arm a linker and Rust's standard library, where it
# may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
exec </dev/null

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

[[ "$(uname -sm)" == "Linux x86_64" ]] ||
    { echo "$0 is for x86-64 Linux, this is $(uname -sm)" >&2; exit 1; }
[[ $# == 0 || $* == aarch64 ]] || { echo "usage: $0 [aarch64]" >&2; exit 2; }

# What is left out: the self-test of the runner, which has nothing of the processor, and the largest
# case, which takes as long as all others.
cases=(--skip conformance::self-test --skip generated:long_channels)

# on NAME RUNNER TARGET: the tests of the host's kernels and the golden cases on a processor, and
# their fingerprint, which is left in a file of that name.
on() {
    local name=$1 runner=$2 target=$3 found log
    local variable=CARGO_TARGET_${target//-/_}_RUNNER
    variable=${variable^^}
    local cargo=(env "$variable=$runner" SYNCBN_TEST_ADAPTER=host cargo)
    # Named where it is not that of this machine: cargo builds elsewhere then.
    local at=()
    [[ $target == x86_64-* ]] || at=(--target "$target")
    log=$logs/${name// /-}
    "${cargo[@]}" test ${SYNCBN_MEMBERS:-} "${at[@]}" --lib -- host:: >"$log" 2>&1 ||
        { cat "$log"; return 1; }
    grep -E '^test result: .* [1-9][0-9]* passed' "$log" ||
        { echo "No unit test of the host ran" >&2; return 1; }
    "${cargo[@]}" test ${SYNCBN_MEMBERS:-} "${at[@]}" --test conformance -- "${cases[@]}" >"$log" ||
        { grep -E 'FAILED|^ {7}|^conformance' "$log"; return 1; }
    # Of ordinary layers and of reproducible ones.
    found=$(grep -E '^host(, reproducible)?: fingerprint' "$log")
    [[ $(wc -l <<<"$found") == 2 ]] ||
        { echo "No fingerprint of reproducible layers" >&2; return 1; }
    tail -n 1 "$log"
    echo "$found" | tee "$log.fingerprint"
}

# concurrently: runs `on` for every emulated processor of `emulated` at the same time. An emulated
# test is one thread.
concurrently() {
    local running=() index failed=0
    for ((index = 0; index < ${#emulated[@]}; index += 3)); do
        on "${emulated[@]:index:3}" >"$logs/said.$index" 2>&1 &
        running+=($!)
    done
    for index in "${!running[@]}"; do
        wait "${running[index]}" || failed=1
        echo "== ${emulated[index * 3]}"
        cat "$logs/said.$((index * 3))"
    done
    return "$failed"
}

x86=x86_64-unknown-linux-gnu
arm=aarch64-unknown-linux-gnu
need qemu-x86_64 qemu-user
echo "== this processor"
on "this processor" env "$x86"
emulated=(
    "x86-64 with SSE2 and little more" "qemu-x86_64 -cpu Nehalem" "$x86"
    "x86-64 with AVX2" "qemu-x86_64 -cpu max" "$x86"
)
concurrently
if [[ ${1:-} == aarch64 ]]; then
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need_rust target "$arm"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    emulated=(
        "64-bit Arm" "qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu cortex-a72" "$arm"
        "64-bit Arm with f16 arithmetic" "qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max" "$arm"
    )
    concurrently
fi
fingerprints=("$logs"/*.fingerprint)
for found in "${fingerprints[@]:1}"; do
    cmp -s "$fingerprints" "$found" ||
        { echo "other bits than on the first of these processors:" "${fingerprints[@]##*/}" \
            >&2; exit 1; }
done
echo "The host's kernels are right, and the same bits, on each of these ${#fingerprints[@]} processors:"
cat "$fingerprints"
