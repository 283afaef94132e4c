#!/usr/bin/env bash
# Trains for minutes while layers, groups and devices come and go and ranks fail, and fails if
# memory, threads or open files grow:
#     scripts/soak.sh [--minutes 30] [--csv target/soak.csv] [--seed 1] [--bare]
# Linux alone: it reads /proc. `scripts/charts.py` draws docs/soak.svg from docs/data/soak.csv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

mkdir -p target
exec cargo run --quiet --package syncbn-bench --bin soak -- "$@"
