#!/usr/bin/env bash
# Gets a newer Mesa than the system's, whose compilers for AMD's and NVIDIA's GPUs run without any
# device, and prints the folder that it lies in: target/mesa, with all the libraries that it needs,
# the C library among them. Nothing is installed, and root is not needed. About 60 MB of packages of
# Debian 13 are downloaded the first time, whose signatures are checked.
#     scripts/newer_mesa.sh
#     scripts/newer_mesa.sh run radeon|nouveau PROGRAM [ARGUMENTS]   runs a program with it, and
#                                                                    with that driver alone
# SYNCBN_DEBIAN_MIRROR names another mirror than deb.debian.org.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

goal=$PWD/target/mesa
libraries=$goal/usr/lib/x86_64-linux-gnu
packages=(mesa-vulkan-drivers libvulkan1 mesa-drm-shim)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${SYNCBN_DEBIAN_MIRROR:-http://deb.debian.org/debian}

fail() {
    echo "A newer Mesa is needed for the compilers of GPUs: $*" >&2
    exit 1
}

get() {
    [[ "$(uname -sm)" == "Linux x86_64" ]] ||
        fail "it is got for x86-64 Linux, this is $(uname -sm)."
    for tool in apt-get dpkg-deb; do
        command -v "$tool" >/dev/null ||
            fail "$tool was not found; it is taken out of Debian's packages."
    done
    [[ -f $keyring ]] ||
        fail "$keyring was not found: sudo apt-get install -y debian-archive-keyring"
    mkdir -p target
    work=$(mktemp -d "$PWD/target/mesa.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/{lists,cache/archives}/partial "$work/goal"
    : >"$work/status"
    echo "deb [arch=amd64 signed-by=$keyring] $mirror trixie main" >"$work/sources.list"
    # A system of its own, on which nothing is installed yet: all that the packages need is
    # downloaded with them.
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State=$work" -o "Dir::State::lists=$work/lists" \
            -o "Dir::State::status=$work/status"
        -o "Dir::Cache=$work/cache" -o APT::Architecture=amd64 -o APT::Sandbox::User=
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    echo "Downloading Mesa of Debian 13 (about 60 MB)" >&2
    # A list that cannot be had is a warning otherwise.
    "${apt[@]}" -o APT::Update::Error-Mode=any update >"$work/log" 2>&1 ||
        fail "$(tail -n 5 "$work/log")"
    "${apt[@]}" install -y --no-install-recommends --download-only "${packages[@]}" \
        >"$work/log" 2>&1 ||
        fail "$(tail -n 5 "$work/log")"
    local package
    for package in "$work"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$work/goal"; done
    rm -rf "$goal"
    mv "$work/goal" "$goal"
    # The drivers' manifests, with the whole path.
    local driver
    for driver in radeon nouveau; do
        sed -E "s|(\"library_path\": *)\"([^\"]*/)?([^\"/]*)\"|\1\"$libraries/\3\"|" \
            "$goal/usr/share/vulkan/icd.d/${driver}_icd.json" >"$goal/$driver.json"
    done
}

[[ -f $goal/nouveau.json ]] || get
if (($# == 0)); then
    echo "$goal"
    exit
fi
[[ $1 == run && ${2:-} =~ ^(radeon|nouveau)$ && $# -ge 3 ]] ||
    { echo "usage: $0 [run radeon|nouveau PROGRAM...]" >&2; exit 2; }
driver=$2
shift 2
export VK_DRIVER_FILES=$goal/$driver.json VK_ICD_FILENAMES=$goal/$driver.json \
    MESA_SHADER_CACHE_DISABLE=true
preload=()
if [[ $driver == nouveau ]]; then
    # The driver talks to a kernel module that is made up.
    preload=(--preload "$libraries/libnouveau_noop_drm_shim.so")
    export NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1
fi
exec "$goal/usr/lib64/ld-linux-x86-64.so.2" ${preload[@]+"${preload[@]}"} \
    --library-path "$libraries" "$@"
