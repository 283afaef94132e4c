//! Every kernel is rewritten to a source that is valid, and those that are small enough to run by
//! themselves do what they do.

use syncbn::low_level::shaders::Variant;

use super::common::kernel::dispatch;
use super::common::{self, first_seed};
use super::rewrite::rewritten;

#[path = "../it/kernels/centers.rs"]
mod centers;
#[path = "../it/kernels/covering.rs"]
mod covering;
#[path = "../it/kernels/gradients.rs"]
mod gradients;
#[path = "../it/kernels/mask_words.rs"]
mod mask_words;

/// Of the shapes that a test goes through, one in so many: each is compiled several times.
const ONE_SHAPE_IN: usize = 7;

/// The sources that a kernel is compiled from: some that the compiler makes of it.
fn sources(own: &str) -> Vec<String> {
    (first_seed()..first_seed() + 8).map(|seed| rewritten(own, seed)).collect()
}

/// Of the variants, which differ in little from their neighbours, every fourth, or every 32nd where
/// no seed is asked for; which ones depends on the seed.
#[test]
fn kernels_are_rewritten_to_valid_wgsl() {
    let seed = first_seed();
    let step = 4 * common::one_in(8);
    let variants = Variant::all().into_iter().skip(seed as usize % step).step_by(step);
    let variants: Vec<_> = variants.collect();
    assert!(!variants.is_empty());
    // It panics where a source, or what becomes of it, is not valid; and naga must read again what
    // it wrote.
    for variant in &variants {
        let source = rewritten(&variant.source(), seed);
        if let Err(error) = naga::front::wgsl::parse_str(&source) {
            panic!("{variant:?}, seed {seed}: {}", error.emit_to_string(&source));
        }
    }
}
