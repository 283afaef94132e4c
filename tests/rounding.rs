//! The shaders' conversions between f32 and 16 bits against the `half` crate, bit for bit, on the GPU: small kernels around
//! the very texts that the kernels of the crate are made of.
//!
//! `rounding/gpu.rs` runs them; `rounding/values.rs` lists the values at which rounding can go wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "rounding/gpu.rs"]
mod gpu;
#[path = "rounding/values.rs"]
mod values;

use gpu::{Gpu, decoding_kernel, encoding_kernel, loading_kernel};
use half::{bf16, f16};
use values::{To, every_half, exact_and_neighbours, special, ties};

const ENCODE_F16: &str = include_str!("../shaders/parts/encode_f16.wgsl");
const ENCODE_BF16: &str = include_str!("../shaders/parts/encode_bf16.wgsl");
const DECODE_F16: &str = include_str!("../shaders/parts/decode_f16.wgsl");
const LOAD_F16: &str = include_str!("../shaders/parts/load_f16.wgsl");
const LOAD_BF16: &str = include_str!("../shaders/parts/load_bf16.wgsl");
const LOAD_NATIVE_F16: &str = include_str!("../shaders/parts/load_native_f16.wgsl");

/// Random bit patterns of f32: one in 256 is not finite, and as many are subnormal.
const RANDOM_PATTERNS: usize = 4 << 20;

impl To {
    fn encode_text(self) -> &'static str {
        match self {
            Self::F16 => ENCODE_F16,
            Self::BF16 => ENCODE_BF16,
        }
    }

    /// The right answer.
    fn encoded(self, bits: u32) -> u16 {
        match self {
            Self::F16 => f16::from_f32(f32::from_bits(bits)).to_bits(),
            Self::BF16 => bf16::from_f32(f32::from_bits(bits)).to_bits(),
        }
    }

    fn decoded(self, half: u16) -> u32 {
        match self {
            Self::F16 => f16::from_bits(half).to_f32().to_bits(),
            Self::BF16 => bf16::from_bits(half).to_f32().to_bits(),
        }
    }
}

/// Whether an encoder gives the right bits for every value, or the first that it does not.
fn check_encoder(gpu: &Gpu, text: &str, to: To, values: &[u32]) -> Result<(), String> {
    let found = gpu.run(&encoding_kernel(text), values, values.len());
    for (&value, found) in values.iter().zip(found) {
        let expected = u32::from(to.encoded(value));
        if found != expected {
            let float = f32::from_bits(value);
            return Err(format!("{to:?}: {float:e} ({value:#010x}) became {found:#06x}, expected {expected:#06x}"));
        }
    }
    Ok(())
}

/// A NaN with its quiet bit set, which a conversion may set or not, since none of these NaN is ever kept: every other value
/// as it is.
fn quiet(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { bits | 0x0040_0000 } else { bits }
}

/// Whether all 65,536 patterns are decoded to the right bits, or the first that is not.
fn check_decoder(found: &[u32], to: To) -> Result<(), String> {
    assert_eq!(found.len(), 1 << 16);
    for (half, &found) in (0..=u16::MAX).zip(found) {
        let expected = to.decoded(half);
        if quiet(found) != quiet(expected) {
            return Err(format!("{to:?}: {half:#06x} became {found:#010x}, expected {expected:#010x}"));
        }
    }
    Ok(())
}

/// Every value at which an encoder of this type can go wrong.
fn critical(to: To) -> Vec<u32> {
    [exact_and_neighbours(to), ties(to), special()].concat()
}

#[test]
fn every_critical_value_is_encoded_to_the_nearest_even() {
    let gpu = Gpu::open(false);
    for to in To::ALL {
        let values = critical(to);
        check_encoder(&gpu, to.encode_text(), to, &values).unwrap();
        println!("{to:?}: {} values", values.len());
    }
}

#[test]
fn random_bit_patterns_are_encoded_to_the_nearest_even() {
    let (gpu, seed) = (Gpu::open(false), 5700);
    let mut random = common::Random(seed);
    let patterns: Vec<u32> = (0..RANDOM_PATTERNS).map(|_| random.bits() as u32).collect();
    // Of which one in 32 lies where an f16 is neither 0 nor infinite: as many again with those exponents.
    let in_range = |&bits: &u32| bits & 0x87ff_ffff | (96 + bits.rotate_left(9) % 48) << 23;
    let in_range: Vec<u32> = patterns.iter().map(in_range).collect();
    for to in To::ALL {
        check_encoder(&gpu, to.encode_text(), to, &patterns).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        check_encoder(&gpu, to.encode_text(), to, &in_range).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn every_f16_and_every_bf16_is_decoded_exactly() {
    let gpu = Gpu::open(false);
    let halves: Vec<u32> = (0..1 << 16).collect();
    check_decoder(&gpu.run(&decoding_kernel(DECODE_F16), &halves, 1 << 16), To::F16).unwrap();
    let load = |text: &str| gpu.run(&loading_kernel(text), &every_half(), 1 << 16);
    check_decoder(&load(&[DECODE_F16, LOAD_F16].concat()), To::F16).unwrap();
    check_decoder(&load(LOAD_BF16), To::BF16).unwrap();
}

#[test]
fn every_f16_is_read_exactly_by_the_device_s_own_type() {
    if !common::assert_native_f16(&common::adapter()) {
        return;
    }
    let text = format!("enable f16;\n{}", loading_kernel(LOAD_NATIVE_F16));
    check_decoder(&Gpu::open(true).run(&text, &every_half(), 1 << 16), To::F16).unwrap();
}

/// A part with one of its lines changed, which must be in it.
fn changed(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
    text.replace(from, to)
}

#[test]
fn wrong_encoders_are_caught() {
    let gpu = Gpu::open(false);
    let truncating = "fn encode(value: f32) -> u32 { return bitcast<u32>(value) >> 16u; }";
    let half_up = changed(ENCODE_BF16, "0x7fffu + ((bits >> 16u) & 1u)", "0x8000u");
    let half_down = changed(ENCODE_BF16, "0x7fffu + ((bits >> 16u) & 1u)", "0x7fffu");
    let nan_as_infinity = changed(ENCODE_BF16, "| 0x0040u", "& 0xff80u");
    let payload = changed(ENCODE_BF16, "(bits >> 16u) | 0x0040u", "0x7fc0u");
    for text in [truncating, &half_up, &half_down, &nan_as_infinity, &payload] {
        check_encoder(&gpu, text, To::BF16, &critical(To::BF16)).unwrap_err();
    }

    let f16 = [
        ("truncating", " + 0x0fffu + ((moved >> 13u) & 1u)", ""),
        ("half up", "0x0fffu + ((moved >> 13u) & 1u)", "0x1000u"),
        ("half down", "0x0fffu + ((moved >> 13u) & 1u)", "0x0fffu"),
        ("nothing finite overflows", "magnitude >= 0x477ff000u", "magnitude >= 0x7f800000u"),
        ("65519 is infinite", "magnitude >= 0x477ff000u", "magnitude >= 0x477fe000u"),
        ("subnormals as normal", "magnitude >= 0x38800000u", "magnitude >= 0x38000000u"),
        ("subnormals flushed", "exponent < 102u", "exponent < 113u"),
        ("2^-25 and more flushed", "exponent < 102u", "exponent < 103u"),
        ("subnormals truncated", "select(0u, 1u, up)", "0u"),
        ("subnormals half up", "(rest == half && (floor & 1u) == 1u)", "rest == half"),
        ("sign of 0", "return sign;", "return 0u;"),
        ("payload", "| ((magnitude >> 13u) & 0x03ffu)", ""),
    ];
    for (what, from, to) in f16 {
        let text = changed(ENCODE_F16, from, to);
        assert!(check_encoder(&gpu, &text, To::F16, &critical(To::F16)).is_err(), "{what} is not caught");
    }
}

#[test]
fn wrong_decoders_are_caught() {
    let gpu = Gpu::open(false);
    let halves: Vec<u32> = (0..1 << 16).collect();
    for (from, to) in [
        ("f32(magnitude) * 5.9604644775390625e-8", "0.0"),
        ("magnitude < 0x0400u", "magnitude < 0x03ffu"),
        ("magnitude >= 0x7c00u", "magnitude > 0x7c00u"),
        ("(half & 0x8000u) << 16u", "0u"),
    ] {
        let text = changed(DECODE_F16, from, to);
        check_decoder(&gpu.run(&decoding_kernel(&text), &halves, 1 << 16), To::F16).unwrap_err();
    }
    let swapped = changed(LOAD_BF16, "(address & 1u)", "(1u - (address & 1u))");
    check_decoder(&gpu.run(&loading_kernel(&swapped), &every_half(), 1 << 16), To::BF16).unwrap_err();
}

#[test]
fn the_list_of_critical_values_holds_what_it_says() {
    let f16 = critical(To::F16);
    // Exactly representable, next to it, ties at both ends of the range, and the limits of finite values.
    let named: [f32; 9] = [
        1.0,
        1.0f32.next_up(),
        2f32.powi(-25),
        2f32.powi(-24) * 1.5,
        65504.0,
        65519.0,
        65520.0,
        65535.99,
        2f32.powi(-149),
    ];
    for value in named {
        assert!(f16.contains(&value.to_bits()) && f16.contains(&(-value).to_bits()), "{value:e}");
    }
    for to in To::ALL {
        for tie in ties(to).chunks_exact(3).map(|tie| tie[1]) {
            let [below, above] = [tie - 1, tie + 1].map(|bits| to.encoded(bits));
            let at = to.encoded(tie);
            assert!(above == below + 1 && at.is_multiple_of(2) && (at == below || at == above), "{tie:#x}");
        }
    }
}
