//! The layer in a browser: headless Chromium with a software GPU, by `scripts/web.sh test`.
#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "browser/golden.rs"]
mod golden;
#[path = "browser/passes.rs"]
mod passes;
#[path = "browser/waiting.rs"]
mod waiting;

use syncbn::Device;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// A WebGPU device of its own: a browser gives one for each adapter that it is asked for.
async fn gpu() -> Device {
    let adapters = Device::adapters().await;
    let adapter = adapters.first().expect("a WebGPU adapter: the flags are in scripts/web.sh");
    Device::from_adapter(adapter).await.expect("a device")
}
