#!/usr/bin/env bash
# The page of crates/syncbn-web. What is built lies in target/web, with the tools that are
# installed.
#
#   scripts/web.sh build          # a folder of static files: target/web/site
#   scripts/web.sh serve [PORT]   # the same, served on http://localhost:8080/
#   scripts/web.sh test           # the page and the crate in headless Chromium, on a software GPU
#   scripts/web.sh bench          # a step of the layer beside TensorFlow.js, there as well
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

root=$PWD
crate=$root/crates/syncbn-web
target=${CARGO_TARGET_DIR:-target}
# Programs are started in other folders: the path is absolute.
[[ $target == /* || $target == [A-Za-z]:* ]] || target=$root/$target
export CARGO_TARGET_DIR=$target/web
tools=$CARGO_TARGET_DIR/tools
site=$CARGO_TARGET_DIR/site
expected=$CARGO_TARGET_DIR/expected
screenshots=$CARGO_TARGET_DIR/screenshots
bindgen=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' "$crate/Cargo.toml")

# has_bindgen FOLDER: whether both programs of wasm-bindgen are there, in the version of the crate.
has_bindgen() {
    local program
    for program in wasm-bindgen wasm-bindgen-test-runner; do
        [[ $("$1/$program" --version 2>/dev/null) == "$program $bindgen" ]] || return 1
    done
}

# Those that somebody installed.
link_bindgen() {
    local found
    found=$(dirname "$(command -v wasm-bindgen)") && has_bindgen "$found" || return 1
    mkdir -p "$tools/bin"
    ln -sf "$found"/wasm-bindgen{,-test-runner} "$tools/bin"
}

# Those that the makers compiled.
download_bindgen() {
    local platform name
    case $(uname -sm) in
    "Linux x86_64") platform=x86_64-unknown-linux-musl ;;
    "Linux aarch64") platform=aarch64-unknown-linux-musl ;;
    "Darwin x86_64") platform=x86_64-apple-darwin ;;
    "Darwin arm64") platform=aarch64-apple-darwin ;;
    *) return 1 ;;
    esac
    name=wasm-bindgen-$bindgen-$platform.tar.gz
    mkdir -p "$tools/bin"
    curl --fail --silent --location --connect-timeout 10 --max-time 120 \
        "https://github.com/wasm-bindgen/wasm-bindgen/releases/download/$bindgen/$name" |
        tar -xz -C "$tools/bin" --strip-components=1 2>/dev/null && has_bindgen "$tools/bin"
}

# Compiled here, which takes minutes; without optimization, as they run for a second.
compile_bindgen() {
    CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet wasm-bindgen-cli --version "$bindgen" \
        --debug \
        --force --root "$tools" --target-dir "$tools/build"
    rm -rf "$tools/build"
}

ensure_bindgen() {
    need_rust target wasm32-unknown-unknown
    has_bindgen "$tools/bin" && return
    rm -rf "${tools:?}/bin"
    link_bindgen || download_bindgen || compile_bindgen
}

# build PROFILE: the page, of the profile `release` as it is published, or of `dev`. With that the
# tests are chosen as well: so what lies below has the features that it was compiled with for them.
build() {
    local folder=${1/dev/debug} targets=(--lib)
    if [[ $1 == dev ]]; then targets+=(--test browser); fi
    ensure_bindgen
    cargo build --profile "$1" "${targets[@]}" --target wasm32-unknown-unknown \
        --manifest-path "$crate/Cargo.toml"
    rm -rf "$site"
    mkdir -p "$site/photos"
    "$tools/bin/wasm-bindgen" --target web --no-typescript --remove-name-section \
        --remove-producers-section \
        --out-dir "$site" \
        "$CARGO_TARGET_DIR/wasm32-unknown-unknown/$folder/syncbn_web.wasm"
    cp "$crate"/static/* "$site"
    cp examples/data/photos/*.png "$site/photos"
    local file
    for file in "$site"/*.wasm "$site"/*.js; do
        printf '%9d bytes, %8d with gzip  %s\n' \
            "$(wc -c <"$file")" "$(gzip -9 -c "$file" | wc -c)" "${file##*/}"
    done
}

# The layer itself in the browser, by the tests of the crate.
test_layer() {
    cat >"$CARGO_TARGET_DIR/webdriver.json" <<JSON
{
  "goog:chromeOptions": {
    "binary": "$(command -v chromium)",
    "args": ["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
  }
}
JSON
    (
        cd "$crate"
        CHROMEDRIVER=$(command -v chromedriver) \
            WASM_BINDGEN_TEST_WEBDRIVER_JSON=$CARGO_TARGET_DIR/webdriver.json \
            WASM_BINDGEN_TEST_TIMEOUT=900 \
            CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$tools/bin/wasm-bindgen-test-runner \
            cargo test --target wasm32-unknown-unknown --test browser
    )
}

# packages NAME...: packages of npm for programs that run beside them, where node looks.
packages() {
    mkdir -p "$tools/npm"
    npm install --silent --no-audit --no-fund --prefix "$tools/npm" playwright-core@1 "$@"
    cp "$crate"/tests/page/*.mjs "$tools/npm"
}

# The same computed natively, for comparison.
expect() {
    mkdir -p "$expected"
    cargo test --quiet --lib --manifest-path "$crate/Cargo.toml"
    cargo run --quiet --example expected --manifest-path "$crate/Cargo.toml" -- \
        examples/data/photos "$expected"
}

test_page() {
    mkdir -p "$screenshots"
    node "$tools/npm/drive.mjs" "$site" "$expected" "$screenshots" "$(command -v chromium)"
}

case ${1:-} in
build)
    build release
    ;;
serve)
    need node nodejs
    build release
    node "$crate/tests/page/serve.mjs" "$site" "${2:-8080}"
    ;;
test)
    need node nodejs
    need npm npm
    need chromium chromium
    need chromedriver chromium-driver
    step "tools of wasm-bindgen" ensure_bindgen
    # Most of what lies below is compiled once for both.
    step "the layer in the browser" test_layer
    step "the page is built" build dev
    step "what the page must show" expect
    step "packages of npm" packages
    # The last line is the count of the page's tests.
    test_page
    ;;
bench)
    need node nodejs
    need npm npm
    need chromium chromium
    build release
    packages @tensorflow/tfjs@4 @tensorflow/tfjs-backend-webgpu@4
    node "$tools/npm/bench.mjs" "$site" "$tools/npm/node_modules" "$(command -v chromium)"
    ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
