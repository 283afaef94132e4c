#!/usr/bin/env bash
# Stands in for rustdoc where cargo tests the examples of the documentation, and makes the
# documentation as well: of the libraries that are compiled for the tests, so that nothing is
# compiled for this alone. `scripts/ci.sh docs` is the usual way.
#     RUSTDOC=$PWD/scripts/rustdoc.sh RUSTDOCFLAGS="-D warnings" cargo test --doc
set -euo pipefail

tests=false made=()
words=("$@")
while ((${#words[@]})); do
    case ${words[0]} in
        --test) tests=true ;;
        --test-run-directory | --test-args) words=("${words[@]:1}") ;;
        *) made+=("${words[0]}") ;;
    esac
    words=("${words[@]:1}")
done
if $tests; then rustdoc "${made[@]}" --out-dir "${CARGO_TARGET_DIR:-target}/doc"; fi
exec rustdoc "$@"
