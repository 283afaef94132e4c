//! Elements of rare and of common values: the encoders compute what is rare for all values of an
//! element where one of them needs it, and for none where none does.

use super::gpu::{By, open};
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
    values.iter().map(|value| value.to_bits()).chain(nan).flat_map(both_signs).collect()
}

/// What no encoder does, at the ends of the range too.
const COMMON: [f32; 8] = [0.0, -0.0, 1.0, -1.000_488_3, 2.0, 6.103_515_6e-5, 65519.996, -65535.996];

fn both_signs(bits: u32) -> [u32; 2] {
    [bits, bits | 1 << 31]
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

#[test]
fn a_rare_value_changes_nothing_of_its_neighbours_nor_they_of_it() {
    let gpu = open(false);
    for by in By::ALL {
        for to in To::ALL {
            check_encoder(&gpu, by, &to.encoder(by), to, &mixed_for(to)).unwrap();
        }
    }
}

#[test]
fn a_branch_that_asks_three_values_of_four_is_caught() {
    let gpu = open(false);
    for three in ["yzw", "xzw", "xyw", "xyz"] {
        for (to, asked) in [(To::F16, "is_rare"), (To::BF16, "is_nan")] {
            let source = changed(
                &to.encoder(By::Fours),
                &format!("any({asked})"),
                &format!("any({asked}.{three})"),
            );
            check_encoder(&gpu, By::Fours, &source, to, &mixed_for(to)).unwrap_err();
        }
    }
}

#[test]
fn what_is_rare_for_one_value_is_kept_from_the_others() {
    let gpu = open(false);
    for (to, from) in [(To::F16, "rare, is_rare)"), (To::BF16, "U(0x00400000u), is_nan)")] {
        let (kept, _) = from.rsplit_once(' ').expect("two arguments");
        let source = changed(&to.encoder(By::Fours), from, &format!("{kept} U(1u) == U(1u))"));
        check_encoder(&gpu, By::Fours, &source, to, &mixed_for(to)).unwrap_err();
    }
}
