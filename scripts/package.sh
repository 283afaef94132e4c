#!/usr/bin/env bash
# What is published: the crates syncbn, syncbn-mpi and syncbn-burn.
#
#   scripts/package.sh                   packs them, then builds and tests what was packed, by
#                                        itself
#   scripts/package.sh semver            compares the API with the last release
#   scripts/package.sh published         the newest version on crates.io, nothing if there is none
#   scripts/package.sh repository URL    sets the repository, in every workspace
#   scripts/package.sh release           checks that a release may be made, and says the commands;
#                                        publishes nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
exec </dev/null

# The root of every workspace. The crates of the last two are not published.
manifests=(Cargo.toml crates/syncbn-burn/Cargo.toml crates/syncbn-web/Cargo.toml fuzz/Cargo.toml)
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$PWD/$target
packed=$target/package

fail() {
    echo "package.sh: $*" >&2
    exit 1
}

# The [workspace.package] of a manifest, or the [package] of one that has a single crate.
fields='/^\[\(workspace\.\)\{0,1\}package\]/,/^\[/'

# field NAME MANIFEST: a value in these lines.
field() { sed -n "${fields}s/^$1 = \"\(.*\)\"\$/\1/p" "$2"; }

# expect_same NAME MANIFEST: that the value is the root's.
expect_same() {
    local expected found
    expected=$(field "$1" Cargo.toml) found=$(field "$1" "$2")
    [[ -n $expected && $found == "$expected" ]] ||
        fail "$1 is '$found' in $2, '$expected' in Cargo.toml"
}

# The workspaces must agree, and the published crates must depend on the current version.
check_workspaces() {
    local manifest name found
    for manifest in "${manifests[@]:1}"; do
        for name in edition license repository; do expect_same "$name" "$manifest"; done
    done
    expect_same version crates/syncbn-burn/Cargo.toml
    # The crates for Burn have Burn's.
    for manifest in crates/syncbn-web/Cargo.toml fuzz/Cargo.toml; do
        expect_same rust-version "$manifest"
    done
    local version
    version=$(field version Cargo.toml)
    for found in crates/syncbn-{mpi,burn}/Cargo.toml; do
        grep -q "^syncbn = { version = \"$version\"," "$found" ||
            fail "$found does not ask for syncbn $version"
    done
}

# check_files CRATE FILE...: that a package holds these files, and the text of both licences.
check_files() {
    local crate=$1 file list
    shift
    list=$(tar -tzf "$packed/$crate.crate")
    for file in LICENSE-MIT LICENSE-APACHE README.md src/lib.rs "$@"; do
        grep -qx "$crate/$file" <<<"$list" || fail "$crate.crate lacks $file"
    done
    # Links would be of no use there.
    tar -xOzf "$packed/$crate.crate" "$crate/LICENSE-MIT" |
        grep -q 'Permission is hereby granted' ||
        fail "LICENSE-MIT of $crate.crate is not the licence"
    echo "$crate.crate: $(wc -l <<<"$list") files, $(wc -c <"$packed/$crate.crate") bytes"
}

# unpack CRATE: into a folder that is a workspace of its own; prints it.
unpack() {
    local folder=$packed/unpacked
    mkdir -p "$folder"
    rm -rf "${folder:?}/$1"
    tar -xzf "$packed/$1.crate" -C "$folder"
    printf '\n[workspace]\n' >>"$folder/$1/Cargo.toml"
    echo "$folder/$1"
}

pack() {
    check_workspaces
    local version folder patch dirty=()
    version=$(field version Cargo.toml)
    [[ ${1:-} == clean ]] || dirty=(--allow-dirty)
    scripts/mpi.sh install
    # Each is built below, from what is packed.
    step "packing" cargo publish --workspace --dry-run --no-verify ${dirty[@]+"${dirty[@]}"}
    mkdir -p "$packed"
    cp "$packed"/tmp-registry/*.crate "$packed/"
    # Until syncbn is published, that of Burn finds it where it was unpacked.
    folder=$(unpack "syncbn-$version")
    # Some unit tests compare with the definition in f64, which is not published.
    printf '\n[dev-dependencies.syncbn-reference]\npath = "%s"\n' "$PWD/crates/syncbn-reference" \
        >>"$folder/Cargo.toml"
    patch="patch.crates-io.syncbn.path=\"$folder\""
    # The patch goes into the lock file, which is put back.
    cp crates/syncbn-burn/Cargo.lock "$packed/burn.lock"
    trap 'cp "$packed/burn.lock" crates/syncbn-burn/Cargo.lock' EXIT
    step "packing for Burn" cargo package --no-verify --target-dir "${packed%/package}" \
        --config "$patch" \
        --manifest-path crates/syncbn-burn/Cargo.toml ${dirty[@]+"${dirty[@]}"}
    cp "$packed/burn.lock" crates/syncbn-burn/Cargo.lock
    check_files "syncbn-$version" CHANGELOG.md docs/GUIDE.md
    check_files "syncbn-mpi-$version"
    check_files "syncbn-burn-$version"
    export CARGO_TARGET_DIR=$packed/target
    step "unit tests of the package" cargo test --lib --manifest-path "$folder/Cargo.toml"
    step "examples in its documentation" cargo test --doc --manifest-path "$folder/Cargo.toml"
    folder=$(unpack "syncbn-mpi-$version")
    step "examples of syncbn-mpi" cargo test --doc --config "$patch" \
        --manifest-path "$folder/Cargo.toml"
}

# The newest version of syncbn on crates.io; nothing where there is none.
published() {
    local answer
    answer=$(curl --silent --show-error --location --max-time 30 --write-out '\n%{http_code}' \
        --user-agent "syncbn scripts/package.sh" https://index.crates.io/sy/nc/syncbn) ||
        fail "crates.io does not answer"
    case ${answer##*$'\n'} in
        200) sed -n 's/.*"vers":"\([^"]*\)".*/\1/p' <<<"$answer" | tail -n 1 ;;
        404) ;;
        *) fail "crates.io answers ${answer##*$'\n'}" ;;
    esac
}

# Nothing to compare with is no success.
compare() {
    local version
    version=$(published)
    [[ -n $version ]] ||
        fail "no version of syncbn is on crates.io: there is nothing to compare with"
    cargo semver-checks --version >/dev/null 2>&1 ||
        fail "cargo-semver-checks was not found: cargo install --locked cargo-semver-checks"
    cargo semver-checks --package syncbn --all-features
    cargo semver-checks --package syncbn-mpi
}

set_repository() {
    [[ ${1:-} =~ ^https://[^\"\ ]+$ ]] ||
        fail "a URL that begins with https:// is expected, found '${1:-}'"
    local manifest
    for manifest in "${manifests[@]}"; do
        sed -i.old "${fields}s|^repository = .*|repository = \"$1\"|" "$manifest"
        rm "$manifest.old"
    done
    check_workspaces
}

# Everything that would be found out too late.
check_release() {
    check_workspaces
    local version repository found
    version=$(field version Cargo.toml) repository=$(field repository Cargo.toml)
    [[ $repository == https://* ]] ||
        fail "repository is '$repository': scripts/package.sh repository URL sets it"
    grep -q "^## $version, [0-9]\{4\}-[0-9][0-9]-[0-9][0-9]$" CHANGELOG.md ||
        fail "CHANGELOG.md has no '## $version, YYYY-MM-DD'"
    [[ -z $(git status --porcelain) ]] || fail "there are uncommitted changes"
    found=$(published)
    [[ $found != "$version" ]] || fail "version $version is on crates.io already"
    pack clean
    cat <<HELP
All is ready for $version. In this order:
    cargo publish --workspace
    cargo publish --manifest-path crates/syncbn-burn/Cargo.toml
    git tag v$version && git push origin v$version
HELP
}

case ${1:-} in
    "") pack ;;
    published) published ;;
    semver) compare ;;
    repository) set_repository "${2:-}" ;;
    release) check_release ;;
    *)
        sed -n '4,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2
        exit 2
        ;;
esac
