#!/usr/bin/env bash
# Runs every test, or the parts that are named:
#     scripts/test.sh                 all of them
#     scripts/test.sh driver hostile  those of the library on the system's driver, and the hostile
#                                     compiler with more seeds
# Where all are run, `driver` has those of the tools as well.
# Needs Rust and a C linker; installs a software Vulkan driver and MPI where there are none and it
# may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
# Nothing here asks questions, and a closed stdin would give its number to the next file opened.
exec </dev/null
shopt -s nullglob

log=$(mktemp)
trap 'end_beside; rm -f "$log"' EXIT

is_linux() { [[ "$(uname -s)" == Linux ]]; }

has_loader() {
    [[ "$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)" == *libvulkan.so.1* ]] &&
        return
    local found=(/usr/lib*/libvulkan.so.1 /usr/lib/*/libvulkan.so.1 /usr/local/lib/libvulkan.so.1)
    ((${#found[@]}))
}

# It comes from a package that Debian alone has, where no other copy is named.
has_swiftshader() {
    is_linux && [[ -n ${SYNCBN_SWIFTSHADER_ICD:-} || $(. /etc/os-release && echo "${ID:-}") == debian ]]
}

has_driver() {
    [[ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]] && return
    local software=({/usr/local/share,/usr/share,/etc}/vulkan/icd.d/lvp_icd*.json)
    local any=({/usr/local/share,/usr/share,/etc}/vulkan/icd.d/*.json)
    local hardware=(/dev/dri/renderD* /dev/nvidia[0-9]* /dev/dxg)
    # A manifest of a GPU's driver is often installed where there is no such GPU.
    ((${#software[@]})) || { ((${#any[@]})) && ((${#hardware[@]})); }
}

ensure_vulkan() {
    # Metal and DX12 come with the system.
    is_linux || return 0
    if has_loader && has_driver; then return 0; fi
    if apt_install mesa-vulkan-drivers libvulkan1 && has_loader && has_driver; then return 0; fi
    cat >&2 <<'HELP'
No Vulkan driver was found, and no test is skipped without one. Install the software driver, then
run this again:
    sudo apt-get update && sudo apt-get install -y mesa-vulkan-drivers libvulkan1    # Debian, Ubuntu
    sudo dnf install -y mesa-vulkan-drivers vulkan-loader                            # Fedora
    sudo pacman -S --needed vulkan-swrast vulkan-icd-loader                          # Arch
HELP
    return 1
}

# Lavapipe's manifest: the one asked for, or else where distributions put it.
lavapipe_manifest() {
    local asked found
    IFS=: read -ra asked <<<"${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}"
    for found in ${asked[@]+"${asked[@]}"} \
        {/usr/local/share,/usr/share,/etc}/vulkan/icd.d/lvp_icd*.json; do
        [[ $found == *lvp_icd* && -f $found ]] && echo "$found" && return
    done
    echo "The tests of two drivers need lavapipe beside SwiftShader:" >&2
    echo "    sudo apt-get install -y mesa-vulkan-drivers" >&2
    return 1
}

# some COMMAND...: the command, which must run at least one test: a filter that no test's name
# passes would find nothing wrong.
some() {
    "$@" | tee "$log"
    grep -qE '^test result: .* [1-9][0-9]* passed' "$log" ||
        { echo "No test ran: $*" >&2; return 1; }
}

# A second driver, which truncates f16 and has other limits: beside lavapipe and the host in one
# group, then by itself. One process for all tests, because compiling kernels costs this driver more
# than most tests do. tests/swiftshader.rs goes through every storage.
test_two_drivers() {
    local lavapipe swiftshader
    lavapipe=$(lavapipe_manifest)
    swiftshader=$(scripts/swiftshader.sh)
    export VK_DRIVER_FILES=$lavapipe:$swiftshader VK_ICD_FILENAMES=$lavapipe:$swiftshader
    step "lavapipe, SwiftShader and the host in one group" \
        cargo test ${SYNCBN_MEMBERS:-} --no-fail-fast --test swiftshader
    local portable=(group_forward:: group_backward:: group_accuracy:: storage:: rounding::)
    SYNCBN_TEST_ADAPTER=SwiftShader step "SwiftShader alone" \
        some cargo test ${SYNCBN_MEMBERS:-} --no-fail-fast --test it \
            -- "${portable[@]}" --skip every_combination
    # Its subgroups are of another size than lavapipe's.
    SYNCBN_TEST_ADAPTER=SwiftShader step "subgroups on SwiftShader" \
        some cargo test ${SYNCBN_MEMBERS:-} --test it -- epilogue::fast::merging_within
}

# The conformance runner has a report of its own, which nextest would hide, and the tests of two
# drivers need both: every other target is named instead.
test_driver() {
    # Of the examples, those that have tests; scripts/ci.sh examples runs them all.
    local targets=(--lib --bins --example quickstart) file name
    if [[ ${SYNCBN_MEMBERS:-} ]]; then targets+=(--example mpi_scaling); fi
    for file in tests/*.rs tests/*/main.rs; do
        name=${file#tests/}
        name=${name%/main.rs}
        name=${name%.rs}
        case $name in
            conformance | swiftshader) continue ;;
            # It needs f64 in shaders, which wgpu has on Vulkan alone.
            hostile) is_linux || continue ;;
        esac
        targets+=(--test "$name")
    done
    step "Vulkan driver" ensure_vulkan
    if [[ ${SYNCBN_MEMBERS:-} ]]; then step "MPI" scripts/mpi.sh install; fi
    step "compiling" cargo test ${SYNCBN_MEMBERS:-} --no-run "${targets[@]}"
    if cargo nextest --version >/dev/null 2>&1; then
        step "tests" cargo nextest run ${SYNCBN_MEMBERS:-} --no-fail-fast "${targets[@]}"
    else
        step "tests" cargo test ${SYNCBN_MEMBERS:-} --no-fail-fast "${targets[@]}"
    fi
}

# Other seeds than those that the tests start with; each device has one of its own. What takes
# longest is left to the nightly workflow, which takes other seeds every night.
test_hostile() {
    local seed=${SYNCBN_HOSTILE_SEED:-11} left=() name
    for name in planted kernels epilogues double padded; do left+=(--skip "$name::"); done
    SYNCBN_HOSTILE_SEED=$seed step "hostile compiler, seeds from $seed" \
        some cargo test ${SYNCBN_MEMBERS:-} --no-fail-fast --test hostile -- "${left[@]}"
}

# Named, because they are no default members.
test_tools() {
    step "tools" cargo test --no-fail-fast --package syncbn-bench --package syncbn-compilers \
        --package syncbn-reference --package syncbn-testkit
}

# The report of the tests over MPI tells how long each fault took.
test_mpi() {
    step "MPI" scripts/mpi.sh install
    if [[ ${SYNCBN_MEMBERS:-} ]]; then
        step "tests over MPI" cargo test $SYNCBN_MEMBERS --no-fail-fast --test mpirun
    else
        step "tests over MPI" cargo test --no-fail-fast --package syncbn-mpi
    fi
}

test_conformance() {
    step "conformance" cargo test ${SYNCBN_MEMBERS:-} --test conformance | tee "$log"
    if ! grep -q '^conformance: [1-9]' "$log"; then
        echo "The conformance runner ran no case: its target must have harness = false." >&2
        return 1
    fi
}

known=(driver mpi two-drivers hostile documents tools burn conformance)
for part in "$@"; do
    [[ " ${known[*]} " == *" $part "* ]] ||
        { echo "usage: $0 [PART...]; parts: ${known[*]}" >&2; exit 2; }
done
parts=(${@+"$@"})
if (($# == 0)); then
    # Cargo compiles a dependency once more for other features. What chooses all members has the
    # same ones in every step.
    export SYNCBN_MEMBERS=--workspace
    parts=() left_out=()
    for part in "${known[@]}"; do
        case $part in
            # Among those of `driver`, where all members are chosen.
            tools) continue ;;
            two-drivers) has_swiftshader || { left_out+=("$part"); continue; } ;;
            hostile) is_linux || { left_out+=("$part"); continue; } ;;
        esac
        parts+=("$part")
    done
    if ((${#left_out[@]})); then echo "Not run, because this system cannot: ${left_out[*]}."; fi
fi

for part in "${parts[@]}"; do
    case $part in
        driver) test_driver ;;
        # In a shell of its own, for its environment.
        two-drivers) (test_two_drivers) ;;
        hostile) test_hostile ;;
        documents) step "examples in the documentation" cargo test ${SYNCBN_MEMBERS:-} --doc ;;
        tools) test_tools ;;
        # It waits most of the time, so others run meanwhile.
        mpi) if ((${#parts[@]} > 1)); then beside test_mpi; else test_mpi; fi ;;
        # With Burn's fusion, as its default features are; scripts/burn.sh has the rest.
        burn) step "Burn" scripts/burn.sh test ;;
        conformance) test_conformance ;;
    esac
done
wait_for_all

echo "Tests passed in $SECONDS s: ${parts[*]}.${left_out[*]+ Not run here: ${left_out[*]}.}"
awk '!/^==/ && NF { last = $0 } END { if (last) print last }' "$log"
