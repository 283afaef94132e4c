#!/usr/bin/env bash
# The crates for Burn, which are a workspace of their own:
#     scripts/burn.sh test                      the tests, with Burn's fusion of kernels
#     scripts/burn.sh test plain                without; most of what lies below is compiled once
#                                               more for this
#     scripts/burn.sh check                     format and clippy
#     scripts/burn.sh train_digits [OPTIONS]    the example
#     scripts/burn.sh compare [OPTIONS]         times of Burn's layer and this one, with Burn's
#                                               fusion and without
# What is built lies in target/burn, for all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/burn
burn=(--manifest-path crates/syncbn-burn/Cargo.toml)

usage() {
    echo "usage: $0 test [plain] | check | train_digits [OPTIONS] | compare [OPTIONS]" >&2
    exit 2
}

(($# >= 1)) || usage
command=$1
shift
case $command in
    test)
        [[ $# == 0 || $* == plain ]] || usage
        if [[ ${1:-} != plain ]]; then burn+=(--features fusion); fi
        # The example's network is among the tests, and `check` compiles the example itself.
        targets=(--workspace --lib --bins --test burn --test trainer)
        step "Burn, compiling" cargo test --no-run "${burn[@]}" "${targets[@]}"
        step "Burn, tests" cargo test --no-fail-fast "${burn[@]}" "${targets[@]}"
        step "Burn, examples in the documentation" cargo test --doc --workspace "${burn[@]}"
        ;;
    check)
        (($# == 0)) || usage
        step "Burn, format" cargo fmt "${burn[@]}" --all --check
        # Clippy as the compiler of these crates alone: `cargo clippy` would check all that lies
        # below, which takes as long as a third of compiling it, and here that is compiled for the
        # tests in any case.
        RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings step "Burn, clippy" \
            cargo build "${burn[@]}" --features fusion --workspace --all-targets
        ;;
    train_digits)
        exec cargo run --release "${burn[@]}" --example train_digits -- "$@"
        ;;
    compare)
        for features in "" fusion; do
            cargo run --release "${burn[@]}" --package syncbn-compare-burn --features "$features" \
                -- "$@"
        done
        ;;
    *) usage ;;
esac
