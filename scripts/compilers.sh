#!/usr/bin/env bash
# Other compilers than the tests' drivers have judge every shader variant, without any GPU
# (docs/COMPILERS.md).
#     scripts/compilers.sh                four minutes or so; of the compilers of Direct3D a sample
#                                         is asked
#     scripts/compilers.sh --all          they are asked about everything
#     scripts/compilers.sh --sample       all are asked about a sample, those of Direct3D about a
#                                         smaller one
#     scripts/compilers.sh --registers    as well the compilers of AMD's and NVIDIA's drivers, which
#                                         may spill nothing
#     scripts/compilers.sh --self-test    only whether each of them refuses what is planted, which
#                                         is asked first in any case
# Installs what it needs, where it may; what is downloaded and written lies in target/compilers and
# target/mesa. A judge that cannot be asked, or says nothing of a shader, has failed. Ends with
# `compilers: P passed, F failed`, and 1 if F is not 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
script=scripts/${BASH_SOURCE[0]##*/}
exec </dev/null

work=$PWD/target/compilers
judges=$PWD/crates/syncbn-compilers/judges
program=${CARGO_TARGET_DIR:-$PWD/target}/debug/syncbn-compilers
webgpu_version=0.6.2
webgpu=$work/npm/node_modules/webgpu
# Seconds that one judge may take.
limit=1800
# Failures of which the message is shown, per judge.
shown=4

# The comment at the head of this file.
usage() {
    local line
    while IFS= read -r line; do
        [[ $line == '#!'* ]] && continue
        [[ $line == '#'* ]] || break
        line=${line#'#'}
        echo "${line# }"
    done <"$script"
}

[[ "$(uname -sm)" == "Linux x86_64" ]] ||
    { echo "$script is for x86-64 Linux, this is $(uname -sm)" >&2; exit 1; }

asked=() asks_registers=false asks_variants=true
for word in "$@"; do
    case $word in
        --all | --sample) asked=("$word") ;;
        --registers) asks_registers=true ;;
        --self-test) asks_variants=false ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "$word is not known; --help lists the options." >&2
            exit 2
            ;;
    esac
done

passed=0 failed=0 finished=false

finish() {
    finished=true
    echo "compilers: $passed passed, $failed failed"
    ((failed == 0)) || exit 1
    exit 0
}

export WINEPREFIX=$work/wine WINEDEBUG=-all
# Not wine's own replacement, and no offers to install more.
export WINEDLLOVERRIDES="d3dcompiler_47,dxcompiler=n;mscoree,mshtml,winemenubuilder.exe="

# The last line is never left out: what ended before the end has failed.
trap 'wineserver -k 2>/dev/null || true; $finished || { failed=$((failed + 1)); finish; }' EXIT

# --- What is needed.

# Packages that are missing, one a line.
missing_packages() {
    local tool packages
    while read -r tool packages; do
        command -v "$tool" >/dev/null || printf '%s\n' $packages
    done <<'TOOLS'
node nodejs
npm npm
spirv-val spirv-tools
glslangValidator glslang-tools
wine wine wine64
x86_64-w64-mingw32-g++ g++-mingw-w64-x86-64
TOOLS
    compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' >/dev/null ||
        printf '%s\n' mesa-vulkan-drivers libvulkan1
}

install_judges() {
    local packages
    mapfile -t packages < <(missing_packages)
    [[ ${packages[*]} ]] || return 0
    if apt_install "${packages[@]}"; then
        mapfile -t packages < <(missing_packages)
        [[ ${packages[*]} ]] || return 0
    fi
    echo "Not all compilers are there. Install these packages, then run this again:" >&2
    apt_line "${packages[@]}" >&2
    return 1
}

# Dawn, which has Tint within it, and beside its build for Windows the two compilers of Direct3D.
get_webgpu() {
    [[ -f $webgpu/package.json ]] &&
        [[ $(node -p "require('$webgpu/package.json').version") == "$webgpu_version" ]] && return
    echo "Downloading webgpu $webgpu_version from npm"
    npm install --silent --no-audit --no-fund --no-save --prefix "$work/npm" \
        "webgpu@$webgpu_version"
}

# Debian's server ends with its last program, and a program that starts at that moment loses it: one
# server stays here until the end.
build_direct3d() {
    mkdir -p "$work/direct3d" &&
        cp "$webgpu"/dist/win32-x64/{d3dcompiler_47,dxcompiler}.dll "$work/direct3d/" &&
        x86_64-w64-mingw32-g++ -std=c++17 -O1 -Wall -Wextra -Wno-cast-function-type -static \
            -o "$work/direct3d/direct3d.exe" "$judges/direct3d.cpp" &&
        timeout "$limit" wine wineboot --init && wineserver -w && wineserver -p
}

# --- Judges: each prints its verdicts on what a folder's list names.

naga() { cat "$2/naga.$1.verdicts"; }
tint() { timeout "$limit" node "$judges/tint.mjs" "$1" "$webgpu"; }
spirv_val() { timeout "$limit" "$program" spirv-val "$3" "$1" "$2"; }
glslang() { timeout "$limit" "$program" glslang "$2" "$1"; }

# One process per processor, each with every so many-th job.
direct3d() {
    local judge=$1 folder=$2 processes at running=() status=0
    processes=$(nproc)
    for ((at = 0; at < processes; at++)); do
        timeout "$limit" wine "$work/direct3d/direct3d.exe" "$judge" "$folder" "$at" "$processes" \
            >"$work/part.$at" &
        running+=($!)
    done
    for at in "${running[@]}"; do wait "$at" || status=$?; done
    for ((at = 0; at < processes; at++)); do tr -d '\r' <"$work/part.$at"; done
    return "$status"
}

radv() {
    RADV_FORCE_FAMILY=$1 timeout "$limit" \
        scripts/newer_mesa.sh run radeon "$program" compile "$2" "$1"
}
nvk() {
    NOUVEAU_CHIPSET=$1 timeout "$limit" \
        scripts/newer_mesa.sh run nouveau "$program" compile "$3" "$2"
}

# --- Counting.

# count LIST VERDICTS: sets `good` and `bad`, and prints the first failures. What is named bad- must
# be refused, everything else must be taken, and nothing must be left out.
count() {
    local list=$1 verdicts=$2
    if [[ ! -s $list ]]; then
        good=0 bad=1
        echo "    nothing to ask about: $list is missing or empty"
        return
    fi
    # The list first: it is not empty.
    awk -F '\t' -v shown="$shown" -v counts="$work/counts" '
        FNR == NR { names[++total] = $1; next }
        { said[$2] = $1; why[$2] = $3 }
        END {
            for (i = 1; i <= total; i++) {
                name = names[i]
                wanted = name ~ /^bad-/ ? "fail" : "pass"
                if (said[name] == wanted) { good++; continue }
                if (++bad > shown) continue
                message = said[name] == "" ? "no verdict" : said[name] == "pass" ? \
                    "planted, but taken" : why[name]
                printf "    %s: %s\n", name, substr(message, 1, 400)
            }
            if (bad > shown) printf "    and %d more\n", bad - shown
            print good + 0, bad + 0 >counts
        }' "$list" "$verdicts"
    read -r good bad <"$work/counts"
}

# Whether counting itself can tell: of six shaders one is refused, one taken that must be refused,
# and of one nothing is said.
check_counting() {
    local good bad said=$work/log/counting
    printf '%s\n' fine good refused bad-refused bad-taken silent >"$said.list"
    printf '%s\t%s\twhy\n' pass fine pass good fail refused fail bad-refused pass bad-taken >"$said"
    count "$said.list" "$said" >/dev/null
    check "counting" "$good $bad" "3 3"
    count "$work/log/nothing.list" "$said" >/dev/null
    check "counting of nothing" "$good $bad" "0 1"
}

# check NAME FOUND EXPECTED: one check of this script's own.
check() {
    if [[ $2 == "$3" ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "    $1: $2 instead of $3"
    fi
}

# judge NAME LIST COMMAND...: asks about what is planted, then about the variants, with the folder
# as the last argument.
judge() {
    local name=$1 list=$2 start=$SECONDS folder good bad status line=""
    shift 2
    local verdicts=$work/log/${name//[^A-Za-z0-9.]/-}
    echo "$name"
    for folder in planted variants; do
        if [[ $folder == variants ]] && ! $asks_variants; then continue; fi
        status=0
        "$@" "$work/$folder" >"$verdicts" 2>"$verdicts.log" || status=$?
        count "$work/$folder/$list.list" "$verdicts"
        if ((status)); then
            bad=$((bad + 1))
            echo "    ended with status $status: $(tail -n 3 "$verdicts.log")"
        fi
        line+=", $folder: $good of $((good + bad))"
        passed=$((passed + good)) failed=$((failed + bad))
    done
    echo "    ${line#, } ($((SECONDS - start)) s)"
}

# Tests on lavapipe with subgroups of another size than its own choice.
lavapipe() {
    local size=$1 start=$SECONDS log=$work/log/lavapipe.$1 good bad found
    echo "lavapipe, subgroups of $size"
    export LP_NATIVE_VECTOR_WIDTH=$((32 * size))
    found=$("$program" subgroups 2>&1) || true
    check "their size" "${found##*: }" "$size to $size"
    if $asks_variants; then
        timeout "$limit" cargo test ${SYNCBN_MEMBERS:-} --no-fail-fast --test it \
            -- group_forward:: group_backward:: >"$log" 2>&1 || true
        # The program must have come to its end, and have run something.
        read -r good bad < <(awk '/^test result:/ { good += $4; bad += $6 }
            END { print good + 0, bad + (good + bad < 1) }' "$log")
        ((bad == 0)) || grep -E '^test .* FAILED|^error|panicked' "$log" | head -n "$shown" || true
        passed=$((passed + good)) failed=$((failed + bad))
        echo "    tests: $good of $((good + bad)) ($((SECONDS - start)) s)"
    fi
    unset LP_NATIVE_VECTOR_WIDTH
}

# setup NAME COMMAND...: what judges need; where it fails they fail by themselves. Says every few
# seconds that it goes on.
setup() {
    local name=$1 start=$SECONDS
    shift
    echo "$name ..."
    # A sleep outlives its loop, and must not hold this script's output open.
    while sleep 20 >/dev/null 2>&1; do echo "    $name: $((SECONDS - start)) s so far"; done &
    local ticker=$!
    "$@" >"$work/log/setup" 2>&1 || { echo "    $name: failed"; tail -n 12 "$work/log/setup"; }
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    echo "$name ($((SECONDS - start)) s)"
}

mkdir -p "$work/log"
# What an earlier run left is not judged, and does not judge.
rm -rf "$work/variants" "$work/planted" "$work/direct3d" "$program"
check_counting
setup "installing" install_judges
setup "npm's webgpu" get_webgpu
setup "the program for wine" build_direct3d
# With an example, where all members are chosen: without one their tests' features do not count, and
# wgpu is compiled anew.
setup "compiling" cargo build --quiet ${SYNCBN_MEMBERS:---package syncbn-compilers} \
    --bin syncbn-compilers \
    ${SYNCBN_MEMBERS:+--example quickstart}
setup "planting" "$program" plant "$work/planted"
if $asks_variants; then
    setup "writing" "$program" write ${asked[@]+"${asked[@]}"} "$work/variants"
fi

for language in spirv-1.3 spirv-1.5 spirv-1.6 hlsl-5.1 hlsl-6.0 hlsl-6.6 msl-2.4 msl-3.2 \
    glsl-es-310 glsl-430 glsl-450; do
    judge "naga to $language" "naga.$language" naga "$language"
done
judge "Tint" tint tint
judge "spirv-val, Vulkan 1.1" spirv-val.spirv-1.3 spirv_val spirv-1.3 vulkan1.1
judge "spirv-val, Vulkan 1.2" spirv-val.spirv-1.5 spirv_val spirv-1.5 vulkan1.2
judge "spirv-val, Vulkan 1.3" spirv-val.spirv-1.6 spirv_val spirv-1.6 vulkan1.3
judge "glslang, OpenGL ES 3.1" glslang.glsl-es-310 glslang glsl-es-310
judge "glslang, OpenGL 4.3" glslang.glsl-430 glslang glsl-430
judge "glslang, OpenGL 4.5" glslang.glsl-450 glslang glsl-450
judge "DXC" dxc direct3d dxc
judge "FXC" fxc direct3d fxc
for size in 4 16; do lavapipe "$size"; done

if $asks_registers; then
    setup "a newer Mesa" scripts/newer_mesa.sh
    chips=(navi21 navi31 gfx1201 vega10)
    for chip in "${chips[@]}"; do judge "AMD $chip" mesa radv "$chip"; done
    judge "NVIDIA GA102" mesa nvk 172 ga102
    if $asks_variants; then
        "$program" registers "$work/variants" "${chips[@]}" ga102 || failed=$((failed + 1))
    fi
fi
finish
