#!/usr/bin/env bash
# Runs what scripts/gpu.sh packed, on a machine with a GPU, bash and coreutils. Called by `gpu.sh run FOLDER [OPTIONS]`.
#
# Steps run in order of importance, each within a limit of its own, all within the limit of the whole; a failure does not stop
# the rest. The results are eight files in one folder: steps.jsonl, summary.md, report.md, report.json, bench.jsonl,
# torch.jsonl, failures.log, all.log.
set -euo pipefail
shopt -s nullglob
exec </dev/null
export LC_ALL=C

usage() {
    cat <<'HELP'
gpu.sh run FOLDER [OPTIONS]

  --results DIR     where the results go [default: FOLDER/results]
  --limit SECONDS   of the whole run [default: 590]
  --only NAMES      these steps alone, separated by commas; names are those of summary.md
  --software        allow a software driver, with small benchmarks: a rehearsal

The exit status is 0 if every step passed, 1 if one failed, 2 if nothing could be run.
VK_DRIVER_FILES, if set, names the driver's manifest.
HELP
}

fail() {
    echo "gpu.sh run: $*" >&2
    exit 2
}

folder='' results='' limit=590 only='' software='' slack=1
while (($#)); do
    case $1 in
    --results) results=${2:?--results needs a folder} && shift ;;
    --limit) limit=${2:?--limit needs seconds} && shift ;;
    --only) only=${2:?--only needs names} && shift ;;
    --software) software=1 slack=2 ;;
    -h | --help) usage && exit ;;
    -*) fail "$1 is not known; --help lists the options." ;;
    *) folder=$1 ;;
    esac
    shift
done
[[ -f $folder/payload.tar.xz ]] || fail "there is no payload.tar.xz in '$folder': name the folder that \`gpu.sh pack\` made."
[[ $limit =~ ^[0-9]+$ ]] || fail "--limit is $limit; it needs a number of seconds."
folder=$(cd "$folder" && pwd)
mkdir -p "${results:=$folder/results}"
results=$(cd "$results" && pwd)
work=$folder/unpacked
logs=$work/logs

# say TEXT...: to the terminal and to the log of all.
say() { echo "$*" | tee -a "$results/all.log"; }

for name in steps.jsonl bench.jsonl torch.jsonl failures.log all.log; do : >"$results/$name"; done
rm -f "$results/report.md" "$results/report.json" "$results/summary.md"

unpack() {
    rm -rf "$work"
    mkdir -p "$work" "$logs"
    chmod +x "$folder/busybox" 2>/dev/null || true
    # Neither tar nor xz need be there.
    "$folder/busybox" xz -dc "$folder/payload.tar.xz" | "$folder/busybox" tar -x -C "$work"
}

. "$folder/gpu_driver.sh"

# ---------------------------------------------------------------- steps

declare -a names states seconds notes
failed=0

# Milliseconds of some clock.
now() { local micros=${EPOCHREALTIME/[.,]/}; echo $((micros / 1000)); }

# step NAME LIMIT COMMAND...: runs a command for at most so many seconds, and keeps its output.
step() {
    # A software driver on a few processors takes longer.
    local name=$1 most=$(($2 * slack)) rc=0 started state note='' line log=$logs/$1.log
    shift 2
    [[ -z $only || ,$only, == *,$name,* ]] || return 0
    local left=$((limit - SECONDS))
    if ((left < 5)); then
        record "$name" - skipped 0 "no time was left"
        return
    fi
    ((most < left)) || most=$left
    say "== $name (at most $most s)"
    started=$(now)
    # In the background, so that a signal to this script is answered at once.
    timeout -k 5 "$most" "$@" >"$log" 2>&1 &
    child=$!
    wait "$child" || rc=$?
    local took=$(($(now) - started))
    while IFS= read -r line; do
        case $line in
        'error: XDG'*) ;; # A driver's remark about windows.
        'test result: '* | 'conformance: '*' passed, '* | 'error: '* | 'torch: '*) note=$line ;;
        esac
    done <"$log"
    case $rc in
    0) state=passed ;;
    124 | 137) state=timeout note="stopped after $most s. $note" ;;
    *) state=failed ;;
    esac
    # A test binary that ran nothing has shown nothing.
    [[ $note == 'test result: ok. 0 passed'* ]] && state=failed
    record "$name" "$rc" "$state" "$took" "$note"
    { echo "== $name: $state"; cat "$log"; } >>"$results/all.log"
    if [[ $state == failed || $state == timeout ]]; then
        { echo "== $name: $state, exit status $rc: $*"; tail -n 400 "$log"; } >>"$results/failures.log"
    fi
}

# record NAME RC STATE MILLISECONDS NOTE
record() {
    local clean=${5//[\"\\]/\'} took
    printf -v took '%d.%03d' $(($4 / 1000)) $(($4 % 1000))
    clean=${clean//[$'\t\r\n']/ }
    names+=("$1") states+=("$3") seconds+=("$took") notes+=("$clean")
    [[ $3 == passed ]] || failed=1
    local rc=$2
    [[ $rc == - ]] && rc=null
    echo "{\"name\":\"$1\",\"rc\":$rc,\"state\":\"$3\",\"seconds\":$took,\"note\":\"$clean\"}" >>"$results/steps.jsonl"
    echo "== $1: $3, $took s${clean:+, $clean}"
}

# keep FILE STEP...: appends the JSON lines of steps to a file of the results.
keep() {
    local file=$results/$1 name line
    shift
    for name in "$@"; do
        [[ -f $logs/$name.log ]] || continue
        while IFS= read -r line; do
            [[ $line == '{'* ]] && echo "$line" >>"$file"
        done <"$logs/$name.log"
    done
    return 0
}

# tests LIMIT NAME...: test binaries, as far as they were packed. What passing tests print, errors in ulp, is kept.
tests() {
    local most=$1 name
    shift
    for name in "$@"; do
        [[ -x $work/bin/$name ]] || continue
        if [[ $name == conformance ]]; then step "$name" "$most" "$work/bin/$name"; continue; fi
        step "$name" "$most" "$work/bin/$name" --show-output
    done
}

# bench NAME LIMIT WORKLOADS OPTIONS...
bench() {
    local name=$1 most=$2 workloads=$3
    shift 3
    # On a software driver: whether it runs.
    if [[ -n $software ]]; then
        workloads=tiny
        [[ " $* " == *" --quick "* ]] || set -- "$@" --quick
    fi
    step "$name" "$most" "$work/bin/bench" --json --adapter "$adapter" --workloads "$workloads" "$@"
    keep bench.jsonl "$name"
}

# A python3 that has PyTorch with CUDA.
find_torch() {
    local python
    for python in python3 /usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 /opt/venv/bin/python3; do
        command -v "$python" >/dev/null || continue
        timeout 60 "$python" -c 'import torch; assert torch.cuda.is_available()' >/dev/null 2>&1 && echo "$python" && return
    done
    return 1
}

torch() {
    local python
    [[ -z $only || ,$only, == *,torch,* ]] || return 0
    if ! python=$(find_torch); then
        say "== torch: no python3 with PyTorch and CUDA was found; not timed"
        torch_note='no python3 with PyTorch and CUDA was found'
        return
    fi
    step torch "$1" "$python" "$folder/gpu_torch.py" --seconds $(($1 - 25))
    keep torch.jsonl torch
}

adapter_facts() {
    "$work/bin/report" --list-adapters
    echo "taken: $adapter; $driver"
    cat "$folder/PACKED"
    uname -a
    cat /proc/driver/nvidia/version 2>/dev/null || true
    if command -v nvidia-smi >/dev/null; then nvidia-smi || true; fi
}

summary() {
    local index
    echo "# Packed run on ${adapter:-no adapter}"
    echo
    cat "$folder/PACKED" 2>/dev/null || true
    echo
    echo "Driver: ${driver:-none}. ${torch_note:+PyTorch: $torch_note. }All in $SECONDS s of $limit."
    echo
    echo "| step | result | seconds | |"
    echo "|---|---|---|---|"
    for index in "${!names[@]}"; do
        echo "| ${names[index]} | ${states[index]} | ${seconds[index]} | ${notes[index]} |"
    done
    [[ -s $results/failures.log ]] && { echo; echo "Failures, with their inputs: failures.log."; }
    [[ -f $results/report.md ]] && { echo; cat "$results/report.md"; }
    return 0
}

# Also where the run is stopped from outside.
finish() { summary >"$results/summary.md"; }
child=''
trap finish EXIT
trap '[[ -z $child ]] || kill "$child" 2>/dev/null; exit 143' TERM INT

# ---------------------------------------------------------------- the run

adapter='' driver='' torch_note=''
say "unpacking"
unpack
say "unpacked after $SECONDS s"
use_libraries
choose_driver || { explain; exit 2; }
say "taking $adapter ($driver)"
export SYNCBN_TEST_ADAPTER=$adapter SYNCBN_VECTORS=$work/golden RUST_BACKTRACE=0

export -f adapter_facts
export work folder adapter driver
step adapter 30 bash -c adapter_facts
step report 100 "$work/bin/report" --adapter "$adapter" --markdown "$results/report.md" --json "$results/report.json"
tests 60 group_accuracy group_forward group_backward rounding
tests 90 resident hostile
bench bench_quick 45 all --quick
tests 90 storage epilogue
bench bench_f32_first 60 all
torch 85
bench bench_f16_first 45 resnet50,mlp --dtype f16
bench bench_bf16_first 45 resnet50,mlp --dtype bf16
bench bench_f32_last 45 resnet50,mlp --layout last
bench bench_f16_last 45 resnet50,mlp --dtype f16 --layout last
bench bench_add_relu 45 resnet50 --epilogue add_relu
bench bench_shared 45 resnet50,tiny --shared-device --devices 2
tests 60 conformance group_devices faults fast_paths probe shaders large

((${#names[@]})) || fail "no step is called $only."
say "== done in $SECONDS s: $results/summary.md"
exit $failed
