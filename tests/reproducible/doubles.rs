//! f64 in words (`shaders/parts/double*.wgsl`) against the processor's own f64, bit by bit.

use syncbn::low_level::shaders::expand;
use syncbn_testkit::Random;
use syncbn_testkit::adapter::adapter;
use syncbn_testkit::kernel::Gpu;
use wgpu::BufferUsages as Usage;

const SOURCE: &str = "
#import double
#import double_terms
#import double_ratio

@group(0) @binding(0) var<storage, read> given: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> found: array<vec2<u32>>;

// Of a number within the range of normal f64.
fn bits_of(a: Double) -> vec2<u32> {
    if (is_double_zero(a)) {
        return vec2<u32>(0u);
    }
    let exponent = u32(a.exponent + 1075);
    return vec2<u32>(a.low, a.sign | (exponent << 20u) | (a.high & 0xfffffu));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pair = given[id.x];
    let a = double_of_bits(pair.x, pair.y);
    let b = double_of_bits(pair.z, pair.w);
    let at = 7u * id.x;
    found[at] = bits_of(double_sum(a, b));
    found[at + 1u] = bits_of(double_difference(a, b));
    found[at + 2u] = bits_of(double_product(a, b));
    found[at + 3u] = bits_of(double_quotient(a, b));
    found[at + 4u] = bits_of(double_root(Double(0u, a.exponent, a.high, a.low)));
    found[at + 5u] = vec2<u32>(f32_of(b), 0u);
    found[at + 6u] = bits_of(double_of_f32(f32_of(b) & 0xbfffffffu));
}
";

/// A number with few or all digits, so that sums and products end in ties, too.
fn number(random: &mut Random, exponents: std::ops::Range<i64>) -> f64 {
    let digits = match random.below(4) {
        0 => random.bits() & 0xf_ffff_ffff_ffff,
        1 => (random.bits() & 0x7) << random.below(50),
        2 => (random.bits() & 0xff_ffff) << random.below(29),
        _ => 0xf_ffff_ffff_ffff - (random.bits() & 3),
    } & 0xf_ffff_ffff_ffff;
    let exponent = exponents.start + random.below(exponents.count()) as i64;
    let sign = random.bits() & 1;
    f64::from_bits(sign << 63 | ((1023 + exponent) as u64) << 52 | digits)
}

#[test]
fn operations_in_words_have_the_bits_of_the_processor() {
    let mut random = Random::new(5);
    let pairs: Vec<[f64; 2]> = (0..8192)
        .map(|at| {
            // About the ends of f32, where its numbers are subnormal or infinite; else near a.
            let b = match at % 4 {
                0 => number(&mut random, -152..-120),
                1 => number(&mut random, 120..130),
                _ => number(&mut random, -4..4),
            };
            let near = (b.to_bits() >> 52 & 0x7ff) as i64 - 1023;
            let distance = [2, 56, 70, 130][random.below(4)];
            [number(&mut random, near - distance..near + distance), b]
        })
        .collect();
    let gpu = Gpu::open(&adapter(), wgpu::Features::empty());
    let given = gpu.buffer(bytemuck::cast_slice(&pairs), Usage::STORAGE);
    let found = gpu.buffer(&vec![0; pairs.len() * 56], Usage::STORAGE | Usage::COPY_SRC);
    let pipeline = gpu.pipeline(&expand(SOURCE, &[], &[]));
    gpu.run(&pipeline, [&given, &found], [pairs.len() as u32 / 64, 1]);
    let words = gpu.words(&found);
    for ([a, b], words) in pairs.iter().zip(words.chunks(14)) {
        let found = |at: usize| u64::from(words[2 * at + 1]) << 32 | u64::from(words[2 * at]);
        let short = *b as f32;
        let widened = f64::from(f32::from_bits(short.to_bits() & 0xbfff_ffff));
        let expected = [a + b, a - b, a * b, a / b, a.abs().sqrt()];
        for (at, expected) in expected.into_iter().enumerate() {
            assert_eq!(found(at), expected.to_bits(), "{at} of {a:e} and {b:e}: {expected:e}");
        }
        assert_eq!(words[10], short.to_bits(), "{b:e} as f32");
        // Zero has no sign in words.
        let widened = if widened == 0.0 { 0.0 } else { widened };
        assert_eq!(found(6), widened.to_bits(), "{widened:e} from f32");
    }
}
