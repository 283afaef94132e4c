//! Every kernel is rewritten to a text that is valid.

use syncbn::shaders::Variant;

use super::common::first_seed;
use super::rewrite::rewritten;

#[test]
fn every_kernel_is_rewritten_to_a_valid_text() {
    let variants = Variant::all();
    assert!(!variants.is_empty());
    let seed = first_seed();
    // It panics where a text, or what becomes of it, is not valid; and naga must read again what it wrote.
    for variant in &variants {
        let text = rewritten(&variant.source(), seed);
        if let Err(error) = naga::front::wgsl::parse_str(&text) {
            panic!("{variant:?}, seed {seed}: {}", error.emit_to_string(&text));
        }
    }
}
