#!/usr/bin/env bash
# Plants ten thousand random faults twice, and prints them by kind with the slowest error of each:
# one fault in the calls of a step, then one or two in calls of every kind.
#     scripts/faults.sh
# SYNCBN_FAULTS=N is another number, SYNCBN_FAULTS_SEED=N the first of their seeds. What goes wrong
# is run again with its seed and SYNCBN_FAULTS=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

export SYNCBN_FAULTS=${SYNCBN_FAULTS:-10000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --test it -- --nocapture --test-threads 1 \
    faults::random::thousands faults::mixed::random | tee "$log"
grep -q '^test result: ok. 2 passed' "$log" || { echo "not both of the tests ran" >&2; exit 1; }
