//! Elements of rare and of common values: the conversions compute what is rare for all values of an
//! element where one of them needs it, and for none where none does.

use super::gpu::{By, open, run};
use super::values::To;
use super::{changed, check_encoder};

/// What each encoder keeps behind a branch.
fn rare(to: To) -> Vec<u32> {
    let nan = [0x7f80_0001, 0x7fc0_0000, 0x7fff_ffff];
    let values: &[f32] = match to {
        To::F16 => &[
            2f32.powi(-14).next_down(),
            1e-5,
            2f32.powi(-24),
            2f32.powi(-25).next_up(),
            2f32.powi(-25),
            1e-30,
            1e-40,
            f32::from_bits(1),
            65536.0,
            98304.0,
            1e30,
            f32::MAX,
            f32::INFINITY,
        ],
        To::BF16 => &[],
    };
    values.iter().map(|value| value.to_bits()).chain(nan).flat_map(both_signs::<31>).collect()
}

/// What no encoder does, at the ends of the range too.
const COMMON: [f32; 8] = [0.0, -0.0, 1.0, -1.000_488_3, 2.0, 6.103_515_6e-5, 65519.996, -65535.996];

/// What the decoder keeps behind a branch.
const RARE_HALVES: [u32; 6] = [0x0001, 0x0200, 0x03ff, 0x7c00, 0x7e00, 0x7fff];

/// What it does not.
const COMMON_HALVES: [u32; 6] = [0x0000, 0x8000, 0x0400, 0x3c00, 0xbfff, 0x7bff];

fn both_signs<const SIGN: u32>(bits: u32) -> [u32; 2] {
    [bits, bits | 1 << SIGN]
}

/// Fours of one value with another at each place.
fn fours(most: &[u32], others: &[u32]) -> Vec<u32> {
    let mut values = Vec::new();
    for &value in most {
        for &other in others {
            for place in 0..4 {
                values.extend((0..4).map(|at| if at == place { other } else { value }));
            }
        }
    }
    values
}

/// One rare value among common ones, and one common among rare.
fn mixed(rare: &[u32], common: &[u32]) -> Vec<u32> {
    [fours(common, rare), fours(rare, common)].concat()
}

fn mixed_for(to: To) -> Vec<u32> {
    mixed(&rare(to), &COMMON.map(f32::to_bits))
}

fn mixed_halves() -> Vec<u32> {
    let rare: Vec<u32> = RARE_HALVES.into_iter().flat_map(both_signs::<15>).collect();
    mixed(&rare, &COMMON_HALVES)
}

fn check_decoder(source: &str, by: By) -> Result<(), String> {
    let halves = mixed_halves();
    let found = run(&open(), &by.decoding_kernel(source), &halves, halves.len());
    for (at, (&half, found)) in halves.iter().zip(found).enumerate() {
        let expected = To::F16.decoded(half as u16);
        if found != expected {
            return Err(format!("{at}: {half:#06x} became {found:#x}, expected {expected:#x}"));
        }
    }
    Ok(())
}

#[test]
fn a_rare_value_changes_nothing_of_its_neighbours_nor_they_of_it() {
    let gpu = open();
    for by in By::ALL {
        for to in To::ALL {
            check_encoder(&gpu, by, &to.encoder(by), to, &mixed_for(to)).unwrap();
        }
        check_decoder(&by.part("decode_f16", &[]), by).unwrap();
    }
}

#[test]
fn a_branch_that_asks_three_values_of_four_is_caught() {
    let gpu = open();
    for three in ["yzw", "xzw", "xyw", "xyz"] {
        for (to, asked) in [(To::F16, "is_rare"), (To::BF16, "is_nan")] {
            let source = changed(
                &to.encoder(By::Fours),
                &format!("any({asked})"),
                &format!("any({asked}.{three})"),
            );
            check_encoder(&gpu, By::Fours, &source, to, &mixed_for(to)).unwrap_err();
        }
        let decoder = By::Fours.part("decode_f16", &[]);
        let source = changed(&decoder, "any(is_rare)", &format!("any(is_rare.{three})"));
        check_decoder(&source, By::Fours).unwrap_err();
    }
}

#[test]
fn what_is_rare_for_one_value_is_kept_from_the_others() {
    let gpu = open();
    for (to, from) in [(To::F16, "rare, is_rare)"), (To::BF16, "U(0x00400000u), is_nan)")] {
        let (kept, _) = from.rsplit_once(' ').expect("two arguments");
        let source = changed(&to.encoder(By::Fours), from, &format!("{kept} U(1u) == U(1u))"));
        check_encoder(&gpu, By::Fours, &source, to, &mixed_for(to)).unwrap_err();
    }
    let decoder = By::Fours.part("decode_f16", &[]);
    let source = changed(&decoder, "rare, is_rare)", "rare, U(1u) == U(1u))");
    check_decoder(&source, By::Fours).unwrap_err();
}

#[test]
fn f16_subnormals_are_decoded_where_the_device_flushes_those_of_f32() {
    for by in By::ALL {
        let product = "* 5.192296858534828e33);";
        let flushing =
            format!("{product} bits = choose_element(bits, U(0u), magnitude < U(0x0400u));");
        let source = changed(&by.part("decode_f16", &[]), product, &flushing);
        check_decoder(&source, by).unwrap();
        let from = "U(0x0400u)) >= U(0x7800u)";
        let with = "U(0x03ffu)) >= U(0x7801u)";
        check_decoder(&changed(&source, from, with), by).unwrap_err();
    }
}
