#!/usr/bin/env bash
# Runs what scripts/gpu.sh packed, on a machine with a GPU, bash and coreutils. Called by `gpu.sh
# run FOLDER [OPTIONS]`.
#
# Steps run in order of importance, each within a limit of its own, all within the limit of the
# whole; a failure does not stop the rest. The results are eight files in one folder, which is a new
# one for every run: steps.jsonl, summary.md, report.md, report.json, bench.jsonl, torch.jsonl,
# failures.log, all.log.
set -euo pipefail
shopt -s nullglob
exec </dev/null
export LC_ALL=C

usage() {
    cat <<'HELP'
gpu.sh run FOLDER [OPTIONS]

  --results DIR     where the results go; refused if DIR has results
                    [default: FOLDER/results, else results-2, and so on]
  --limit SECONDS   of the whole run [default: 590]
  --only NAMES      these steps alone, separated by commas
  --software        allow a software driver, with small benchmarks: a rehearsal

The exit status is 0 if every step passed, 1 if one failed, 2 if nothing could be run. A step that is
not applicable has neither passed nor failed: `hostile` needs SHADER_F64 of the adapter, `torch` a
python3 that has PyTorch with CUDA.
VK_DRIVER_FILES, if set, names the driver's manifest.

The steps, in their order:
HELP
    step_names
}

fail() {
    echo "gpu.sh run: $*" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/gpu_plan.sh"
. "$here/gpu_driver.sh"

# say TEXT...: to the terminal and to the log of all.
say() { echo "$*" | tee -a "$results/all.log"; }

unpack() {
    rm -rf "$work"
    mkdir -p "$work" "$logs"
    chmod +x "$folder/busybox" 2>/dev/null || true
    # Neither tar nor xz need be there.
    "$folder/busybox" xz -dc "$folder/payload.tar.xz" | "$folder/busybox" tar -x -C "$work"
}

# ---------------------------------------------------------------- steps

names=() states=() seconds=() notes=()
failed=0 ran=0
# What the note of the next step says besides.
also=''

# Milliseconds of some clock.
now() { local micros=${EPOCHREALTIME/[.,]/}; echo $((micros / 1000)); }

# start_clocks NAME LIMIT: logs the clocks of the card beside a step that measures times, where
# there is nvidia-smi.
start_clocks() {
    case $1 in
    bench_* | report | torch) ;;
    *) return 0 ;;
    esac
    command -v nvidia-smi >/dev/null || return 0
    # `timeout` for the case that the card does not answer any more.
    timeout -k 5 $(($2 + 10)) nvidia-smi \
        --query-gpu=timestamp,clocks.sm,clocks.mem,pstate,power.draw \
        --format=csv,noheader -lms 500 >"$logs/$1.clocks" 2>&1 &
    clocks=$!
}

# stop_clocks NAME: ends the log of the clocks, and appends it to that of all.
stop_clocks() {
    [[ -n $clocks ]] || return 0
    kill "$clocks" 2>/dev/null || true
    wait "$clocks" 2>/dev/null || true
    clocks=''
    { echo "== $1: clocks (time, SM, memory, state, power)"; cat "$logs/$1.clocks"; } \
        >>"$results/all.log"
}

# step NAME LIMIT COMMAND...: runs a command for at most so many seconds, and keeps its output.
step() {
    # A software driver on a few processors takes longer.
    local name=$1 most=$(($2 * slack)) rc=0 started state note='' line log=$logs/$1.log \
        besides=$also
    also=''
    shift 2
    asked "$name" || return 0
    local left=$((limit - SECONDS))
    if ((left < 5)); then
        record "$name" - skipped 0 "no time was left"
        return
    fi
    ((most < left)) || most=$left
    say "== $name (at most $most s)"
    start_clocks "$name" "$most"
    started=$(now)
    # In the background, so that a signal to this script is answered at once.
    timeout -k 5 "$most" "$@" >"$log" 2>&1 &
    child=$!
    wait "$child" || rc=$?
    local took=$(($(now) - started))
    while IFS= read -r line; do
        case $line in
        'error: XDG'*) ;; # A driver's remark about windows.
        'Everything passed.' | *' FAILED: see the end of the report.') note=$line ;;
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
    note+=${besides:+${note:+; }$besides}
    record "$name" "$rc" "$state" "$took" "$note"
    { echo "== $name: $state"; cat "$log"; } >>"$results/all.log"
    stop_clocks "$name"
    if [[ $state == failed || $state == timeout ]]; then
        { echo "== $name: $state, exit status $rc: $*"; tail -n 400 "$log"; } \
            >>"$results/failures.log"
    fi
}

# record NAME RC STATE MILLISECONDS NOTE: the states are passed, failed, timeout, skipped (no time
# was left: as bad as failed) and not applicable (neither passed nor failed).
record() {
    local clean=${5//[\"\\]/\'} took
    printf -v took '%d.%03d' $(($4 / 1000)) $(($4 % 1000))
    clean=${clean//[$'\t\r\n']/ }
    names+=("$1") states+=("$3") seconds+=("$took") notes+=("$clean")
    case $3 in
    'not applicable') ;;
    passed) ran=1 ;;
    *) ran=1 failed=1 ;;
    esac
    local rc=$2
    [[ $rc == - ]] && rc=null
    echo "{\"name\":\"$1\",\"rc\":$rc,\"state\":\"$3\",\"seconds\":$took,\"note\":\"$clean\"}" \
        >>"$results/steps.jsonl"
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

# tests_of PROGRAM MODULE: sets `chosen` to what makes a test binary run the tests of a module and
# no others. Its own filters are parts of names: those that begin with the module are named whole.
tests_of() {
    local line
    chosen=()
    while IFS= read -r line; do
        [[ $line == "$2"::*': test' ]] && chosen+=("${line%: test}")
    done < <("$1" --list 2>>"$results/all.log")
    # Where there are none, it runs none, which fails.
    chosen=(--exact "${chosen[@]:-$2::}")
}

# leave_out PROGRAM TEXT WHY: sets `chosen` to what leaves out the tests that have a text in their
# names, and counts them.
leave_out() {
    local line count=0
    while IFS= read -r line; do
        [[ $line == *"$2"*': test' ]] && count=$((count + 1))
    done < <("$1" --list 2>>"$results/all.log")
    chosen=(--skip "$2")
    also="$count more left out: $3"
}

# tests LIMIT NAME...: tests, as far as their binaries were packed. What passing tests print, errors
# in ulp, is kept.
tests() {
    local most=$1 name program chosen
    shift
    for name in "$@"; do
        if [[ -n $listing ]]; then known_tests+=("$name"); fi
        asked "$name" || continue
        program=$work/bin/$(program_of "$name")
        [[ -x $program ]] || continue
        if [[ $name == hostile && $f64 != f64 ]]; then
            record "$name" - 'not applicable' 0 "needs SHADER_F64, which $adapter does not have"
            continue
        fi
        if [[ $name == conformance ]]; then step "$name" "$most" "$program"; continue; fi
        chosen=()
        if [[ $name != hostile ]]; then
            tests_of "$program" "$name"
        elif [[ -z $software ]]; then
            leave_out "$program" "$honest" "they need a driver that changes no arithmetic"
        fi
        step "$name" "$most" "$program" --show-output ${chosen[@]+"${chosen[@]}"}
    done
}

# bench NAME LIMIT WORKLOADS OPTIONS...
bench() {
    local name=$1 most=$2 workloads=$3
    shift 3
    asked "$name" || return 0
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
    for python in python3 /usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 \
        /opt/venv/bin/python3; do
        command -v "$python" >/dev/null || continue
        timeout 60 "$python" -c 'import torch; assert torch.cuda.is_available()' >/dev/null 2>&1 &&
            echo "$python" && return
    done
    return 1
}

torch() {
    local python
    asked torch || return 0
    if ! python=$(find_torch); then
        record torch - 'not applicable' 0 "no python3 with PyTorch and CUDA was found"
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
    echo "Driver: ${driver:-none}. All in $SECONDS s of $limit."
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

# ---------------------------------------------------------------- the run

folder='' results='' work='' logs='' limit=590 only='' software='' slack=1
adapter='' driver='' f64='' child='' clocks=''
list_steps
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
[[ -f $folder/payload.tar.xz ]] ||
    fail "there is no payload.tar.xz in '$folder': name the folder that \`gpu.sh pack\` made."
[[ $limit =~ ^[0-9]+$ ]] || fail "--limit is $limit; it needs a number of seconds."
folder=$(cd "$folder" && pwd)
check_names
choose_results
mkdir -p "$results"
results=$(cd "$results" && pwd)
work=$folder/unpacked
logs=$work/logs
for name in steps.jsonl bench.jsonl torch.jsonl failures.log all.log; do : >"$results/$name"; done
trap finish EXIT
trap '[[ -z $clocks ]] || kill "$clocks" 2>/dev/null || true
    [[ -z $child ]] || kill "$child" 2>/dev/null
    exit 143' TERM INT

say "results go to $results"
say "unpacking"
unpack
say "unpacked after $SECONDS s"
use_libraries
choose_driver || { explain; exit 2; }
say "taking $adapter ($driver)"
export SYNCBN_TEST_ADAPTER=$adapter SYNCBN_VECTORS=$work/golden RUST_BACKTRACE=0
export -f adapter_facts
export work folder adapter driver
plan

say "== done in $SECONDS s: $results/summary.md"
if ((!ran)); then
    say "No step that was asked for could be run."
    exit 2
fi
exit $failed
