#!/usr/bin/env bash
# Packs the report, the bench tool and the tests for a machine that has a GPU and nothing else, and
# runs them there.
#
#   scripts/gpu.sh pack [FOLDER]              # here: builds and packs, at most 60 MB
#                                             [target/gpu/packed]
#   FOLDER/gpu.sh run FOLDER [OPTIONS]        # there: at most ten minutes; results in
#                                             FOLDER/results (--help for options)
#   scripts/gpu.sh rehearse [OPTIONS]         # pack, then run on a software driver with nothing but
#                                             bash and coreutils
#
# The other machine needs x86-64 Linux, bash, coreutils, and the GPU's driver: no Rust, no Vulkan
# loader, no network. This one needs Debian's apt-get, from whose packages the loader comes, and xz.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec </dev/null

max_bytes=60000000
# The test binaries that matter on a new driver; gpu_plan.sh names the tests in them.
tests=(it conformance hostile)
# The loader, and what NVIDIA's driver links to and a container often lacks.
libraries=(libvulkan1 libgcc-s1 libglvnd0 libx11-6 libxext6 libxcb1 libxau6 libxdmcp6 libbsd0
    libmd0)

fail() {
    echo "gpu.sh: $*" >&2
    exit 2
}

usage() {
    cat <<'HELP'
scripts/gpu.sh pack [FOLDER]          build and pack, at most 60 MB [target/gpu/packed]
FOLDER/gpu.sh run FOLDER [OPTIONS]    on the machine with the GPU; --help lists the options
scripts/gpu.sh rehearse [OPTIONS]     pack, then run on a software driver with nothing but bash and
                                      coreutils
HELP
}

pack() {
    cd "$here/.."
    local folder=${1:-target/gpu/packed} tool name path
    for tool in cargo xz tar dpkg-deb; do
        command -v "$tool" >/dev/null || fail "$tool was not found; \`pack\` needs it."
    done
    mkdir -p target/gpu
    work=$(mktemp -d "$PWD/target/gpu/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    local stage=$work/stage log=$work/log
    mkdir -p "$stage/bin" "$stage/lib"

    echo "== building (profile pack)"
    cargo build --profile pack --package syncbn-bench --bins
    local targets=()
    for name in "${tests[@]}"; do targets+=(--test "$name"); done
    cargo test --profile pack --no-run "${targets[@]}" 2>&1 | tee "$log"
    # Cargo tells where it put each test: "Executable tests/it/main.rs (target/pack/deps/it-1f…)".
    while read -r name path; do
        cp "$path" "$stage/bin/$name"
    done < <(sed -nE 's@^ *Executable tests/([a-z_]+)(/main)?\.rs \((.*)\)$@\1 \3@p' "$log")
    for name in "${tests[@]}"; do
        [[ -x $stage/bin/$name ]] || fail "cargo did not say where it put the test $name."
    done
    local built=${CARGO_TARGET_DIR:-target}/pack
    cp "$built/report" "$built/bench" "$stage/bin/"
    cp -r tests/golden "$stage/golden"

    echo "== libraries"
    scripts/download_packages.sh "$work/packages" "${libraries[@]}" busybox-static
    for path in "$work"/packages/*.deb; do dpkg-deb -x "$path" "$work/root"; done
    find "$work/root" -name 'lib*.so.*' ! -path '*/vulkan/*' -exec cp -P {} "$stage/lib/" \;

    rm -rf "$folder"
    mkdir -p "$folder"
    # One archive: the binaries share most of their code, which a dictionary larger than all of them
    # finds.
    tar --sort=name --owner=0 --group=0 -C "$stage" -c . |
        xz --lzma2=preset=1,dict=64MiB >"$folder/payload.tar.xz"
    cp "$work/root/bin/busybox" "$folder/busybox"
    cp scripts/gpu.sh scripts/gpu_run.sh scripts/gpu_plan.sh scripts/gpu_driver.sh \
        scripts/gpu_torch.py "$folder/"
    manifest "$stage/bin" >"$folder/PACKED"

    local bytes
    bytes=$(du -sb "$folder" | cut -f1)
    cat "$folder/PACKED"
    echo "== packed $folder: $bytes bytes of at most $max_bytes, in $SECONDS s"
    ((bytes <= max_bytes)) ||
        fail "$folder is too large: leave a test out, or look at what has grown."
}

# What is in the folder, and what the other machine's C library must be.
manifest() {
    local commit version needs
    commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
    version=$(sed -nE 's/^version = "(.*)"$/\1/p' Cargo.toml | head -n1)
    echo "syncbn $version, commit $commit, packed $(date -u +%F)"
    echo "programs: $(cd "$1" && echo *)"
    if command -v objdump >/dev/null; then
        # objdump is of the same machine, the symbols' versions are not.
        needs=$(for path in "$1"/*; do objdump -T "$path"; done |
            grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n1)
        echo "needs: $needs"
    fi
}

# First with planted failures, then in earnest: in a folder outside of the repository, with a PATH
# of bash and coreutils alone.
rehearse() {
    local tool path rc=0
    pack
    rehearsal=$(mktemp -d) # Not local: the trap runs behind this function.
    trap 'rm -rf "$work" "$rehearsal"' EXIT
    cp -r target/gpu/packed "$rehearsal/packed"
    mkdir "$rehearsal/bin"
    for path in bash $(coreutils); do
        tool=$(command -v "$path") && ln -s "$tool" "$rehearsal/bin/${path##*/}"
    done
    scripts/gpu_selftest.sh "$rehearsal/packed" "$rehearsal/bin"
    (cd / && env -i PATH="$rehearsal/bin" HOME="$rehearsal" \
        bash "$rehearsal/packed/gpu.sh" run "$rehearsal/packed" --software "$@") || rc=$?
    rm -rf target/gpu/results
    cp -r "$rehearsal/packed/results" target/gpu/results
    echo "== results: target/gpu/results"
    return $rc
}

# The commands that gpu_run.sh uses, all of coreutils.
coreutils() { echo cat chmod dirname ln mkdir rm sleep tail tee timeout uname; }

case ${1:-} in
pack) pack "${@:2}" ;;
run) exec bash "$here/gpu_run.sh" "${@:2}" ;;
rehearse) rehearse "${@:2}" ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
