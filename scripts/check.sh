#!/usr/bin/env bash
# The check of the inner loop: format, lints of the library and its examples, unit tests, module
# rules. Under two minutes where the dependencies are built. scripts/test.sh and .ci/run do the
# rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
exec </dev/null

step "format" cargo fmt --all --check
step "clippy" cargo clippy --lib --examples -- -D warnings
step "module rules" cargo test --quiet --test architecture
step "unit tests" cargo test --quiet --lib
step "tests of the frames and of the host's pools" cargo test --quiet --test frames \
    --test host_pools
