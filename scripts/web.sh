#!/usr/bin/env bash
# The page of crates/syncbn-web. What is built lies in target/web, with the tools that are installed.
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
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/web
tools=$CARGO_TARGET_DIR/tools
site=$CARGO_TARGET_DIR/site
expected=$CARGO_TARGET_DIR/expected
screenshots=$CARGO_TARGET_DIR/screenshots
bindgen=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' "$crate/Cargo.toml")

ensure_bindgen() {
    need_rust target wasm32-unknown-unknown
    local found
    found=$("$tools/bin/wasm-bindgen" --version 2>/dev/null || true)
    [[ $found == "wasm-bindgen $bindgen" ]] && return
    # Without optimization: it runs for a second.
    cargo install --quiet wasm-bindgen-cli --version "$bindgen" --debug --root "$tools" \
        --target-dir "$tools/build"
    rm -rf "$tools/build"
}

build() {
    ensure_bindgen
    cargo build --release --lib --target wasm32-unknown-unknown --manifest-path "$crate/Cargo.toml"
    rm -rf "$site"
    mkdir -p "$site/photos"
    "$tools/bin/wasm-bindgen" --target web --no-typescript --out-dir "$site" \
        "$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/syncbn_web.wasm"
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
            WASM_BINDGEN_TEST_TIMEOUT=300 \
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

test_page() {
    mkdir -p "$expected" "$screenshots"
    cargo test --quiet --lib --manifest-path "$crate/Cargo.toml"
    cargo run --quiet --example expected --manifest-path "$crate/Cargo.toml" -- \
        examples/data/photos "$expected"
    packages
    node "$tools/npm/drive.mjs" "$site" "$expected" "$screenshots" "$(command -v chromium)"
}

case ${1:-} in
build)
    build
    ;;
serve)
    need node nodejs
    build
    node "$crate/tests/page/serve.mjs" "$site" "${2:-8080}"
    ;;
test)
    need node nodejs
    need npm npm
    need chromium chromium
    need chromedriver chromium-driver
    build
    test_layer
    test_page
    ;;
bench)
    need node nodejs
    need npm npm
    need chromium chromium
    build
    packages @tensorflow/tfjs@4 @tensorflow/tfjs-backend-webgpu@4
    node "$tools/npm/bench.mjs" "$site" "$tools/npm/node_modules" "$(command -v chromium)"
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
