//! Every kernel is rewritten to a text that is valid, and those that are small enough to run by
//! themselves do what they do.

use syncbn::low_level::shaders::Variant;

use super::common::{self, first_seed};
use super::rewrite::rewritten;

#[path = "../it/kernels/centers.rs"]
mod centers;
#[path = "../it/kernels/gradients.rs"]
mod gradients;
#[path = "../it/kernels/machine.rs"]
mod machine;

/// The texts that a kernel is compiled from: some that the compiler makes of it.
fn texts(source: &str) -> Vec<String> {
    (first_seed()..first_seed() + 8).map(|seed| rewritten(source, seed)).collect()
}

#[test]
fn every_kernel_is_rewritten_to_a_valid_text() {
    let variants = Variant::all();
    assert!(!variants.is_empty());
    let seed = first_seed();
    // It panics where a text, or what becomes of it, is not valid; and naga must read again what it
    // wrote.
    for variant in &variants {
        let text = rewritten(&variant.source(), seed);
        if let Err(error) = naga::front::wgsl::parse_str(&text) {
            panic!("{variant:?}, seed {seed}: {}", error.emit_to_string(&text));
        }
    }
}
