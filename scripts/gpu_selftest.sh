#!/usr/bin/env bash
# Shows that `gpu.sh run` tells what fails: runs it over programs that fail, hang and test nothing,
# on adapters that are made up.
#
#   scripts/gpu_selftest.sh PACKED PATH       # a packed folder, and a folder with bash and
#                                             coreutils
set -euo pipefail
exec </dev/null
packed=$(cd "$1" && pwd)
tools=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# program NAME: reads a program of the packed folder from standard input.
program() {
    { echo '#!/usr/bin/env bash'; cat; } >"$work/stage/bin/$1"
    chmod +x "$work/stage/bin/$1"
}

# run EXPECTED_STATUS OPTIONS...: runs the folder without earlier results, and keeps its output.
run() {
    rm -rf "$work/folder"/results*
    run_again "$@"
}

run_again() {
    local expected=$1 rc=0
    shift
    env -i PATH="$path" HOME="$work" LD_LIBRARY_PATH="$work/driver" "$tools/bash" \
        "$work/folder/gpu.sh" run "$work/folder" "$@" \
        >"$work/output" 2>&1 || rc=$?
    [[ $rc == "$expected" ]] || fail "exit status $rc, expected $expected"
}

# has FILE TEXT: a file of the results has a text.
has() { grep -qF -- "$2" "$work/folder/results/$1" || fail "$1 has no '$2'"; }

# says TEXT: the run said so.
says() { grep -qF -- "$1" "$work/output" || fail "nobody said '$1'"; }

# The log of the clocks has begun, and has been ended.
clocks_have_stopped() {
    ! kill -0 "$(cat "$work/clocks.pid")" 2>/dev/null || fail "the clocks are still logged"
    rm "$work/clocks.pid"
}

fail() {
    echo "gpu_selftest.sh: $*; the run said:" >&2
    cat "$work/output" >&2
    exit 1
}

path=$tools
mkdir -p "$work/stage/bin" "$work/stage/lib" "$work/stage/golden" "$work/folder" "$work/driver"
cp "$packed"/{gpu.sh,gpu_run.sh,gpu_plan.sh,gpu_driver.sh,gpu_torch.py,busybox} "$work/folder/"
# A container with NVIDIA's libraries, of which the one for windows finds nothing, and without their
# manifest.
touch "$work/driver/libGLX_nvidia.so.0" "$work/driver/libEGL_nvidia.so.0"
program report <<'P'
if [[ $1 == --list-adapters ]]; then
    doubles='no f64'
    [[ -e $HOME/doubles ]] && doubles=f64
    [[ $VK_DRIVER_FILES == *libEGL_nvidia* && -f $VK_DRIVER_FILES ]] && printf 'DiscreteGpu\tvulkan\tMade up GPU\tnone\t%s\n' "$doubles"
    printf 'Cpu\tvulkan\tllvmpipe\tnone\tf64\n'
fi
P
# The tests of `storage` are gone; what only has its name in it is no test of it.
program it <<'P'
case $* in
--list) printf '%s: test\n' group_accuracy::a rounding::b on_device::c other::storage::d ;;
'--show-output --exact group_accuracy::a')
    [[ $SYNCBN_TEST_ADAPTER == "Made up GPU" ]] && echo "test result: ok. 7 passed; 0 failed" ;;
'--show-output --exact rounding::b')
    echo "value 3 of seed 17 is wrong"
    echo "test result: FAILED. 6 passed; 1 failed"
    exit 101 ;;
'--show-output --exact on_device::c')
    echo "half of it"
    sleep 60 ;;
'--show-output --exact storage::') echo "test result: ok. 0 passed; 0 failed" ;;
*) echo "test result: ok. 1 passed; 0 failed, of '$*'" ;;
esac
P
program hostile <<'P'
case $* in
--list) printf '%s: test\n' a::one b::two_on_an_honest_driver c::three_on_an_honest_driver ;;
'--show-output --skip on_an_honest_driver') echo "test result: ok. 1 passed; 0 failed" ;;
'--show-output') echo "test result: ok. 3 passed; 0 failed" ;;
*) exit 101 ;;
esac
P
program bench <<'P'
if [[ -e $HOME/slow ]]; then sleep 60; fi
sleep 0.5
echo '{"workload": "tiny"}'
echo "not JSON"
P
mkdir "$work/smi"
cat >"$work/smi/nvidia-smi" <<'P'
#!/usr/bin/env bash
case $* in
--query-gpu=*' -lms 500')
    echo $$ >"$HOME/clocks.pid"
    echo "1980 MHz, 3201 MHz, P0"
    exec sleep 60 ;;
*) echo "a table" ;;
esac
P
chmod +x "$work/smi/nvidia-smi"
tar -C "$work/stage" -c . | xz -1 >"$work/folder/payload.tar.xz"
echo "programs: bench hostile it report" >"$work/folder/PACKED"

# Names are looked at before anything else: nothing is unpacked, and no results are begun.
run 2 --only group_accuracy,nonsense
says "no step is called 'nonsense'"
says "bench_f32_first"
run 2 --only conformance
says "the test 'conformance' is not in"
[[ ! -e $work/folder/unpacked && ! -e $work/folder/results ]] || fail "a wrong name left a folder"
run 0 --help
says "bench_f32_first"

run 1 --limit 9
has steps.jsonl '"name":"adapter","rc":0,"state":"passed"'
has steps.jsonl '"name":"group_accuracy","rc":0,"state":"passed"'
has steps.jsonl '"name":"rounding","rc":101,"state":"failed"'
has steps.jsonl '"name":"on_device","rc":124,"state":"timeout"'
# No time is left behind a step that hangs for all of it.
has steps.jsonl '"name":"storage","rc":null,"state":"skipped"'
has failures.log 'value 3 of seed 17 is wrong'
has failures.log 'half of it'
has summary.md 'libEGL_nvidia.so.0.json'

# This adapter has no f64: neither passed nor failed.
run 2 --only hostile
has steps.jsonl '"name":"hostile","rc":null,"state":"not applicable"'
has summary.md '| hostile | not applicable | 0.000 | needs SHADER_F64, which Made up GPU does not have |'
says 'No step that was asked for could be run.'
run 0 --only hostile,group_accuracy
has summary.md '| hostile | not applicable |'

# Where the adapter has f64 it runs, on hardware without the tests that need an honest driver.
run 0 --software --only hostile
has steps.jsonl '"name":"hostile","rc":0,"state":"passed"'
has summary.md '| test result: ok. 3 passed; 0 failed |'
touch "$work/doubles"
run 0 --only hostile,group_accuracy
has summary.md '| test result: ok. 1 passed; 0 failed; 2 more left out: they need a driver that changes no arithmetic |'
# The note of no other step says so.
has summary.md '| test result: ok. 7 passed; 0 failed |'
rm "$work/doubles"

run 1 --only storage
has steps.jsonl '"name":"storage","rc":0,"state":"failed"'
run 0 --only group_accuracy,bench_quick
[[ $(cat "$work/folder/results/bench.jsonl") == '{"workload": "tiny"}' ]] ||
    fail "bench.jsonl has other lines"

# Beside what measures times the clocks are logged, where there is nvidia-smi.
[[ ! -e $work/clocks.pid ]] || fail "there was an nvidia-smi"
path=$tools:$work/smi
run 0 --only group_accuracy,bench_quick
has all.log '== bench_quick: clocks'
has all.log '1980 MHz, 3201 MHz, P0'
! grep -qF '== group_accuracy: clocks' "$work/folder/results/all.log" || fail "clocks beside tests"
clocks_have_stopped
[[ ! -e $work/folder/results/bench_quick.clocks ]] || fail "the clocks have a file of their own"
path=$tools

# Earlier results stay.
run_again 0 --only group_accuracy
has steps.jsonl '"name":"bench_quick"'
grep -qF '"name":"group_accuracy"' "$work/folder/results-2/steps.jsonl" ||
    fail "the second run has no results of its own"
run_again 2 --results "$work/folder/results" --only group_accuracy
says 'has the results of another run'
has steps.jsonl '"name":"bench_quick"'

rm -rf "$work/folder"/results*
# Stopped from outside, it leaves a summary of what it has.
touch "$work/slow"
env -i PATH="$tools:$work/smi" HOME="$work" LD_LIBRARY_PATH="$work/driver" "$tools/bash" \
    "$work/folder/gpu.sh" \
    run "$work/folder" --only rounding,bench_quick >"$work/output" 2>&1 &
sleep 2
kill -TERM $!
rc=0
wait $! || rc=$?
[[ $rc == 143 ]] || fail "exit status $rc after SIGTERM, expected 143"
has summary.md '| rounding | failed |'
sleep 1
clocks_have_stopped
rm "$work/slow"

rm "$work/driver/libEGL_nvidia.so.0"
run 2
has all.log 'No adapter was found'
echo "== self-test: failures, hangs, empty tests, wrong names and a missing adapter are told; earlier results stay; clocks are logged"
