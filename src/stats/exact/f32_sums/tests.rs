//! Exact sums against wide integers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

fn random_values(count: usize, spread: u32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    (0..count)
        .map(|_| {
            let [digits, exponent] = [random.next_u32(), random.next_u32()];
            let exponent = (127 - spread / 2 + exponent % spread) << 23;
            f32::from_bits(digits & 0x807f_ffff | exponent)
        })
        .collect()
}

#[test]
fn sums_are_those_of_wide_integers_in_any_order() {
    for spread in [1, 20, 60] {
        let values = random_values(1000, spread);
        // Digits of the smallest are 2⁻⁵⁴ and more; sums are below 2⁴¹.
        let unit = 2f64.powi(80);
        let exact: i128 = values.iter().map(|&value| (f64::from(value) * unit) as i128).sum();
        let mut sums = ExactSums::new(1);
        values.iter().for_each(|&value| sums.add(&[value]).unwrap());
        // Both round once: the integer has the digits of the sum.
        assert_eq!(sums.to_f32(), [nearest(exact, -80)], "{spread}");
        let mut backwards = ExactSums::new(1);
        values.iter().rev().for_each(|&value| backwards.add(&[value]).unwrap());
        assert_eq!(backwards.to_f32(), sums.to_f32());
    }
}

/// The f32 nearest to an integer times 2^exponent: by two f32 beside it.
fn nearest(value: i128, exponent: i32) -> f32 {
    let magnitude = value.unsigned_abs();
    let drop = (128 - magnitude.leading_zeros()).saturating_sub(24);
    let kept = magnitude >> drop;
    let cut = magnitude - (kept << drop);
    let half = if drop == 0 { 1 } else { 1 << (drop - 1) };
    let up = drop > 0 && (cut > half || cut == half && kept & 1 == 1);
    let found = (kept + u128::from(up)) as f64 * 2f64.powi(exponent + drop as i32);
    if value < 0 { -found as f32 } else { found as f32 }
}

#[test]
fn the_ends_of_the_range_and_what_is_not_finite_are_kept() {
    let sum = |values: &[f32]| {
        let mut sums = ExactSums::new(1);
        values.iter().for_each(|&value| sums.add(&[value]).unwrap());
        let decoded = ExactSums::decode(1, &sums.encode()).unwrap();
        assert_eq!(decoded.to_f32()[0].to_bits(), sums.to_f32()[0].to_bits());
        sums.to_f32()[0]
    };
    let smallest = f32::from_bits(1);
    assert_eq!(sum(&[smallest, smallest]), f32::from_bits(2));
    assert_eq!(sum(&[f32::MAX, smallest, -f32::MAX]), smallest);
    assert_eq!(sum(&[-f32::MAX, -f32::MAX]), f32::NEG_INFINITY);
    assert_eq!(sum(&[f32::MAX, f32::MAX, -f32::MAX]), f32::MAX);
    assert_eq!(sum(&[f32::INFINITY, 1.0]), f32::INFINITY);
    assert!(sum(&[f32::INFINITY, f32::NEG_INFINITY]).is_nan());
    assert!(sum(&[f32::NAN]).is_nan());
    assert_eq!(sum(&[1.0, -1.0]).to_bits(), 0);
    assert_eq!(sum(&[-1.5]), -1.5);
    assert_eq!(sum(&[1.0, 2f32.powi(-24)]), 1.0);
    assert_eq!(sum(&[1.0, 2f32.powi(-24), smallest]), 1.0 + f32::EPSILON);
}

#[test]
fn bytes_carry_every_sum_and_damaged_ones_are_refused() {
    let mut sums = ExactSums::new(60);
    for spread in [1, 40, 60] {
        sums.add(&random_values(60, spread)).unwrap();
        sums.add(&vec![-2f32.powi(100); 60]).unwrap();
        sums.add(&vec![2f32.powi(100); 60]).unwrap();
    }
    let bytes = sums.encode();
    let decoded = ExactSums::decode(60, &bytes).unwrap();
    assert_eq!(decoded.to_f32(), sums.to_f32());
    let mut twice = sums.clone();
    twice.merge(&decoded).unwrap();
    let doubled: Vec<f32> = sums.to_f32().iter().map(|value| 2.0 * value).collect();
    assert_eq!(twice.to_f32(), doubled);
    assert!(ExactSums::decode(61, &bytes).is_err());
    assert!(ExactSums::decode(59, &bytes).is_err());
    assert!(ExactSums::decode(60, &bytes[1..]).is_err());
    assert!(ExactSums::decode(1, &[0, 200, 200]).is_err());
    assert!(sums.add(&[1.0]).is_err());
}
