//! The shaders' conversions between f32 and 16 bits against the `half` crate, bit for bit, on the
//! GPU: small kernels around the very sources that the kernels of the crate are made of.
//!
//! `rounding/gpu.rs` runs them; `rounding/values.rs` lists the values at which rounding can go
//! wrong.

mod gpu;
mod mixed;
mod values;

use crate::common;

use gpu::{By, Gpu, open, run};
use half::{bf16, f16};
use values::{To, every_half, exact_and_neighbours, special, ties};

const LOAD_F16: &[&str] = &["x_F16", "x_PACKED"];
const LOAD_BF16: &[&str] = &["x_BF16", "x_PACKED"];
const LOAD_NATIVE_F16: &[&str] = &["x_NATIVE_F16"];

/// Random bit patterns of f32: one in 256 is not finite, and as many are subnormal.
const RANDOM_PATTERNS: usize = 4 << 20;

impl To {
    fn encoder(self, by: By) -> String {
        by.part("encode", &[if self == Self::F16 { "OUTPUT_F16" } else { "OUTPUT_BF16" }])
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
fn check_encoder(gpu: &Gpu, by: By, source: &str, to: To, values: &[u32]) -> Result<(), String> {
    // Whole fours, the last filled up with zeros.
    let values: Vec<u32> =
        values.iter().copied().chain([0; 3]).take(values.len().next_multiple_of(4)).collect();
    let found = run(gpu, &by.encoding_kernel(source), &values, values.len());
    for (&value, found) in values.iter().zip(found) {
        let expected = u32::from(to.encoded(value));
        if found != expected {
            let float = f32::from_bits(value);
            return Err(format!(
                "{to:?} by {by:?}: {float:e} ({value:#010x}) became {found:#06x}, expected \
                {expected:#06x}"
            ));
        }
    }
    Ok(())
}

/// What of a NaN counts.
#[derive(Clone, Copy)]
enum Nan {
    /// Sign and payload. The quiet bit may be set or not, since none of these NaN is ever kept.
    Payload,
    /// That it is one. A device's own conversion may give every NaN the same bits, and no kernel
    /// reads a payload.
    Any,
}

impl Nan {
    /// The bits that count of a NaN: every other value as it is.
    fn counted(self, bits: u32) -> u32 {
        match self {
            _ if !f32::from_bits(bits).is_nan() => bits,
            Self::Payload => bits | 0x0040_0000,
            Self::Any => f32::NAN.to_bits(),
        }
    }
}

/// Whether all 65,536 patterns are decoded to the right bits, or the first that is not.
fn check_decoder(found: &[u32], to: To) -> Result<(), String> {
    check_decoder_with(found, to, Nan::Payload)
}

fn check_decoder_with(found: &[u32], to: To, nan: Nan) -> Result<(), String> {
    assert_eq!(found.len(), 1 << 16);
    for (half, &found) in (0..=u16::MAX).zip(found) {
        let expected = to.decoded(half);
        if nan.counted(found) != nan.counted(expected) {
            return Err(format!(
                "{to:?}: {half:#06x} became {found:#010x}, expected {expected:#010x}"
            ));
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
    let gpu = open();
    for to in To::ALL {
        let values = critical(to);
        for by in By::ALL {
            check_encoder(&gpu, by, &to.encoder(by), to, &values).unwrap();
        }
        println!("{to:?}: {} values", values.len());
    }
}

#[test]
fn random_bit_patterns_are_encoded_to_the_nearest_even() {
    let gpu = open();
    let seed = 5700;
    let mut random = common::Random::new(seed);
    let patterns: Vec<u32> = (0..RANDOM_PATTERNS).map(|_| random.bits() as u32).collect();
    // Of which one in 32 lies where an f16 is neither 0 nor infinite: as many again with those
    // exponents.
    let in_range = |&bits: &u32| bits & 0x87ff_ffff | (96 + bits.rotate_left(9) % 48) << 23;
    let in_range: Vec<u32> = patterns.iter().map(in_range).collect();
    for to in To::ALL {
        for by in By::ALL {
            for values in [&patterns, &in_range] {
                let checked = check_encoder(&gpu, by, &to.encoder(by), to, values);
                checked.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
        }
    }
}

/// Whether every value is stored as the nearest f16 by the device's own conversion, and every NaN
/// as one, or the first that is not.
fn check_stored(gpu: &Gpu, source: &str) -> Result<(), String> {
    let seed = 5701;
    let mut random = common::Random::new(seed);
    let patterns = (0..RANDOM_PATTERNS).map(|_| random.bits() as u32);
    let mut values: Vec<u32> = critical(To::F16).into_iter().chain(patterns).collect();
    values.truncate(values.len() / 4 * 4);
    let found = run(gpu, &By::storing_kernel(source), &values, values.len());
    for (&value, found) in values.iter().zip(found) {
        let expected = match f32::from_bits(value).is_nan() {
            true => 0x7e00,
            false => u32::from(To::F16.encoded(value)),
        };
        if found != expected {
            return Err(format!("{value:#010x} became {found:#06x}, expected {expected:#06x}"));
        }
    }
    Ok(())
}

/// The probe asks about every f16 and what is next to halfway; this about random values too.
#[test]
fn what_the_device_rounds_by_its_own_conversion_is_the_nearest_even() {
    let device = pollster::block_on(syncbn::Device::from_adapter(&common::adapter())).unwrap();
    let findings = device.findings().expect("a driver that was asked");
    let gpu = open();
    let source = By::Fours.part("store", &["OUTPUT_F16", "OUTPUT_ROUNDED_BY_DEVICE"]);
    let stored = check_stored(&gpu, &source);
    println!("{device}: {:?}, {stored:?}", findings.rounds_f16);
    assert_eq!(findings.rounds_f16, Some(stored.is_ok()));
    // WGSL leaves the rounding to a device. That of the tests is one that rounds well, unless
    // another was asked for by name.
    if std::env::var_os("SYNCBN_TEST_ADAPTER").is_some() && stored.is_err() {
        return;
    }
    stored.unwrap();
    for (what, from, with) in [
        ("any NaN", "0x7e007e00u", "0x7fff7fffu"),
        ("infinity as NaN", "0x03ff03ffu", "0x04000400u"),
        ("one NaN for two", "(above >> Stored(15u))", "(above >> Stored(16u))"),
    ] {
        assert!(check_stored(&gpu, &changed(&source, from, with)).is_err(), "{what}");
    }
}

#[test]
fn every_f16_and_every_bf16_is_decoded_exactly() {
    let gpu = open();
    let halves: Vec<u32> = (0..1 << 16).collect();
    for by in By::ALL {
        let decode = by.part("decode_f16", &[]);
        check_decoder(&run(&gpu, &by.decoding_kernel(&decode), &halves, 1 << 16), To::F16).unwrap();
        let load = |storage| {
            run(&gpu, &by.loading_kernel(&by.part("load(x)", storage)), &every_half(), 1 << 16)
        };
        check_decoder(&load(LOAD_F16), To::F16).unwrap();
        check_decoder(&load(LOAD_BF16), To::BF16).unwrap();
    }
}

#[test]
fn every_f16_is_read_exactly_by_the_device_s_own_conversion() {
    for by in By::ALL {
        let source = by.loading_kernel(&by.part("load(x)", LOAD_NATIVE_F16));
        let found = run(&open(), &source, &every_half(), 1 << 16);
        check_decoder_with(&found, To::F16, Nan::Any).unwrap();
    }
}

#[test]
fn of_the_device_s_own_conversion_any_nan_will_do_for_a_nan_and_nothing_else_for_a_value() {
    let exact: Vec<u32> = (0..=u16::MAX).map(|half| To::F16.decoded(half)).collect();
    let check = |change: &dyn Fn(u32) -> u32| {
        let found: Vec<u32> = exact.iter().map(|&bits| change(bits)).collect();
        [Nan::Any, Nan::Payload].map(|nan| check_decoder_with(&found, To::F16, nan).is_ok())
    };
    let of_nan = |is: u32| move |bits: u32| if f32::from_bits(bits).is_nan() { is } else { bits };
    assert_eq!(check(&|bits| bits), [true; 2]);
    assert_eq!(check(&of_nan(0x7fff_ffff)), [true, false]);
    assert_eq!(check(&of_nan(0xffc0_0000)), [true, false]);
    assert_eq!(check(&of_nan(f32::INFINITY.to_bits())), [false; 2]);
    assert_eq!(check(&of_nan(0)), [false; 2]);
    // Each of these changes one value, or one and its negative.
    for value in [0.0f32, 1.0, 65504.0, 2f32.powi(-14), 2f32.powi(-24), f32::INFINITY] {
        for wrong in [value.to_bits() + 1, value.to_bits() ^ 1 << 31, f32::NAN.to_bits()] {
            let planted = |bits| if bits == value.to_bits() { wrong } else { bits };
            assert_eq!(check(&planted), [false; 2], "{value:e} as {wrong:#010x}");
        }
    }
    let flushed = |bits: u32| if f32::from_bits(bits).abs() < 2f32.powi(-14) { 0 } else { bits };
    assert_eq!(check(&flushed), [false; 2]);
}

/// A part with one of its lines changed, which must be in it.
fn changed(source: &str, from: &str, to: &str) -> String {
    assert_eq!(source.matches(from).count(), 1, "{from:?} in {source}");
    source.replace(from, to)
}

#[test]
fn wrong_encoders_are_caught() {
    let gpu = open();
    let bf16 = [
        ("truncating", "U(0x7fffu) + ((bits >> U(16u)) & U(1u))", "U(0u)"),
        ("half up", "U(0x7fffu) + ((bits >> U(16u)) & U(1u))", "U(0x8000u)"),
        ("half down", "U(0x7fffu) + ((bits >> U(16u)) & U(1u))", "U(0x7fffu)"),
        ("NaN as infinity", "bits | U(0x00400000u)", "bits & U(0xff800000u)"),
        ("payload", "bits | U(0x00400000u)", "U(0x7fc00000u)"),
    ];
    let f16 = [
        ("truncating", "U(0x0fffu) + ((bits >> U(13u)) & U(1u))", "U(0u)"),
        ("half up", "U(0x0fffu) + ((bits >> U(13u)) & U(1u))", "U(0x1000u)"),
        ("half down", "U(0x0fffu) + ((bits >> U(13u)) & U(1u))", "U(0x0fffu)"),
        (
            "65536 and more finite",
            "U(0x38800000u)) >= U(0x0f000000u)",
            "U(0x38800000u)) >= U(0x0f800000u)",
        ),
        ("nothing finite overflows", "magnitude >= U(0x47800000u)", "magnitude >= U(0x7f800000u)"),
        (
            "65519 is infinite",
            "bits + U(0x0fffu)",
            "bits + choose_element(U(0x0fffu), U(0x1fffu), (bits << U(1u)) > U(0x8effc000u))",
        ),
        (
            "subnormals as normal",
            "U(0x38800000u)) >= U(0x0f000000u)",
            "U(0x38000000u)) >= U(0x0f800000u)",
        ),
        ("subnormals flushed", "choose_element(small, large,", "choose_element(U(0u), large,"),
        (
            "2^-25 and more flushed",
            "choose_element(small, large,",
            "choose_element(choose_element(small, U(0u), magnitude < U(0x33800000u)), large,",
        ),
        (
            "subnormals truncated",
            "(significand + below_half + ((significand >> shift) & U(1u)))",
            "significand",
        ),
        ("subnormals half up", "((significand >> shift) & U(1u))", "U(1u)"),
        (
            "sign of 0",
            "((rounded >> U(16u)) & U(0xc000u))",
            "choose_element(U(0u), (rounded >> U(16u)) & U(0xc000u), bits != U(0x80000000u))",
        ),
        ("sign of what is rare", "| ((bits >> U(16u)) & U(0x8000u))", ""),
        ("f32's subnormals as 0", "(magnitude != U(0u))", "(magnitude >= U(0x00800000u))"),
        ("payload", "U(0x7e00u) | ((magnitude >> U(13u)) & U(0x03ffu))", "U(0x7e00u)"),
    ];
    for by in By::ALL {
        for (to, changes) in [(To::F16, &f16[..]), (To::BF16, &bf16[..])] {
            for (what, from, with) in changes {
                let source = changed(&to.encoder(by), from, with);
                assert!(
                    check_encoder(&gpu, by, &source, to, &critical(to)).is_err(),
                    "{what} is not caught by {by:?}"
                );
            }
        }
    }
}

#[test]
fn wrong_decoders_are_caught() {
    let gpu = open();
    let halves: Vec<u32> = (0..1 << 16).collect();
    for by in By::ALL {
        for (from, to) in [
            ("V(magnitude) * 5.9604644775390625e-8", "V(0.0)"),
            ("magnitude >= U(0x7c00u)", "magnitude > U(0x7c00u)"),
            ("U(0x0400u)) >= U(0x7800u)", "U(0x0400u)) >= U(0x7c00u)"),
            ("5.192296858534828e33", "5.1922963e33"),
            ("(half & U(0x8000u)) << U(16u)", "U(0u)"),
        ] {
            let source = changed(&by.part("decode_f16", &[]), from, to);
            check_decoder(&run(&gpu, &by.decoding_kernel(&source), &halves, 1 << 16), To::F16)
                .unwrap_err();
        }
    }
    let swapped =
        changed(&By::Ones.part("load(x)", LOAD_BF16), "(address & 1u)", "(1u - (address & 1u))");
    check_decoder(&run(&gpu, &By::Ones.loading_kernel(&swapped), &every_half(), 1 << 16), To::BF16)
        .unwrap_err();
    let swapped = changed(
        &By::Fours.part("load(x)", LOAD_BF16),
        "words.x & 0xffffu, words.x",
        "words.x, words.y",
    );
    check_decoder(
        &run(&gpu, &By::Fours.loading_kernel(&swapped), &every_half(), 1 << 16),
        To::BF16,
    )
    .unwrap_err();
}

#[test]
fn the_list_of_critical_values_holds_what_it_says() {
    let f16 = critical(To::F16);
    // Exactly representable, next to it, ties at both ends of the range, and the limits of finite
    // values.
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
            assert!(
                above == below + 1 && at.is_multiple_of(2) && (at == below || at == above),
                "{tie:#x}"
            );
        }
    }
}
