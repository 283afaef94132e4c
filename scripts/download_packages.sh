#!/usr/bin/env bash
# Downloads Debian packages into a folder without installing them: scripts/download_packages.sh
# FOLDER PACKAGE...
set -euo pipefail

folder=$1
shift
command -v apt-get >/dev/null ||
    { echo "apt-get was not found; it downloads Debian's $*." >&2; exit 1; }
mkdir -p "$folder"
cd "$folder"
if apt-get -qq download "$@" >/dev/null 2>&1; then exit; fi
# Package lists of this script's own, where the system's are absent or name versions that are gone
# from the mirror: renewing the system's would need root.
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
own=(-o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=)
# A list that cannot be had is a warning otherwise.
apt-get -qq "${own[@]}" -o APT::Update::Error-Mode=any update
apt-get -qq "${own[@]}" download "$@"
