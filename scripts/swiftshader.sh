#!/usr/bin/env bash
# Gets SwiftShader, a second software Vulkan driver, and prints the path of its manifest (for
# VK_ICD_FILENAMES).
#
# Debian ships it with its browser, in a package of which only the driver is kept, in
# target/swiftshader: nothing is installed, and root is not needed. About 30 MB are downloaded the
# first time. SYNCBN_SWIFTSHADER_ICD names the manifest of a SwiftShader that is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

goal=$PWD/target/swiftshader
manifest=$goal/vk_swiftshader_icd.json
library=libvk_swiftshader.so
package=chromium-common

fail() {
    echo "SwiftShader is needed for the tests of mixed drivers: $*" >&2
    echo "Have another copy? SYNCBN_SWIFTSHADER_ICD=/path/to/vk_swiftshader_icd.json $0" >&2
    exit 1
}

if [[ -n "${SYNCBN_SWIFTSHADER_ICD:-}" ]]; then
    [[ -f "$SYNCBN_SWIFTSHADER_ICD" ]] ||
        fail "SYNCBN_SWIFTSHADER_ICD is $SYNCBN_SWIFTSHADER_ICD, which is no file."
    realpath "$SYNCBN_SWIFTSHADER_ICD"
    exit
fi
if [[ -f $manifest && -f $goal/$library ]]; then
    echo "$manifest"
    exit
fi

command -v dpkg-deb >/dev/null ||
    fail "dpkg-deb was not found; the driver is taken out of Debian's package $package."

mkdir -p target
work=$(mktemp -d "$PWD/target/swiftshader.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$work/log

# run COMMAND...: its output is shown only where it fails, with the line that failed.
run() {
    (cd "$work" && "$@") >"$log" 2>&1 || fail "\`$*\` failed:"$'\n'"$(tail -n 5 "$log")"
}

echo "Downloading Debian's package $package for its SwiftShader (about 30 MB)" >&2
run "$PWD/scripts/download_packages.sh" "$work" "$package"
packages=("$work"/"$package"_*.deb)
[[ -f ${packages[0]} ]] || fail "\`apt-get download $package\` left no package."
# Only these two files; tar fails where the package does not hold them.
run bash -c "set -o pipefail
    dpkg-deb --fsys-tarfile '${packages[0]}' |
        tar -x --wildcards '*/$library' '*/vk_swiftshader_icd.json'"
found=$(find "$work" -name "$library" -print -quit)

mkdir "$work/goal"
cp "$found" "$work/goal/$library"
# A relative path is one from the manifest.
sed -E 's|("library_path": *)"[^"]*"|\1"./'"$library"'"|' \
    "$(dirname "$found")/vk_swiftshader_icd.json" \
    >"$work/goal/$(basename "$manifest")"
rm -rf "$goal"
mv "$work/goal" "$goal"
echo "$manifest"
