//! The integers of a value, which are summed. They are made from its f32 by arithmetic that every
//! compiler can vectorize.

use crate::stats::GridParams;

/// 1.5·2⁵²: added to a number below 2⁵¹ it leaves the nearest integer, ties to even, in the lowest
/// bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// Its bits, which every sum of bits has once for each value.
pub(super) const MAGIC_BITS: i64 = MAGIC.to_bits() as i64;

/// Σq and Σq² of x.
pub(super) const MOMENTS: u8 = 0;
/// Σr, Σqr and Σr² of the rounding errors r of x, as three sums.
pub(super) const RESTS: u8 = 1;
/// Σw and Σq·w of the gradients.
pub(super) const PRODUCTS: u8 = 2;

/// Integers of one value: the first with the bits of [`MAGIC`] in it.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub first: i64,
    pub second: i64,
    pub third: i64,
}

/// A f32 whose lowest 32 bits as a f64 with [`MAGIC`] are the integer.
#[inline(always)]
fn rounded(t: f64) -> i64 {
    (t + MAGIC).to_bits() as i64
}

/// The integer of such bits.
#[inline(always)]
fn integer(bits: i64) -> i64 {
    i64::from(bits as i32)
}

/// The integers of a value of x, in units of its grid, and of g.
///
/// A conversion to f64, an addition of [`MAGIC`], two additions and a product of 32 bits for each:
/// no instruction for rounding, and none for a conversion to integers, which Rust would make safe
/// with three more. Nothing here is undefined for values that are not finite, or that do not fit
/// the grid: their integers mean nothing.
#[inline(always)]
pub(super) fn terms<const OP: u8>(x: f32, g: f32, [of_x, of_g]: [[f32; 2]; 2]) -> Terms {
    let t = f64::from(x * of_x[0] + of_x[1]);
    let q_bits = rounded(t);
    let q = integer(q_bits);
    match OP {
        MOMENTS => Terms { first: q_bits, second: q * q, third: 0 },
        RESTS => {
            // Exact: t has 24 digits, and the nearest integer is next to it.
            let taken = (t - ((t + MAGIC) - MAGIC)) * f64::from(1 << 24);
            let r_bits = rounded(taken);
            let r = integer(r_bits);
            Terms { first: r_bits, second: q * r, third: r * r }
        }
        _ => {
            let w_bits = rounded(f64::from(g * of_g[0]));
            Terms { first: w_bits, second: q * integer(w_bits), third: 0 }
        }
    }
}

/// Scale and offset of a grid.
pub(super) fn scale_and_offset(grid: &GridParams) -> [f32; 2] {
    [grid.scale, grid.offset]
}

/// The second of both sums from what [`Terms`] have: 2²⁵·Σqr + Σr², or Σq² or Σq·w as it is.
pub(super) fn second_sum<const OP: u8>(second: i128, third: i128) -> i128 {
    if OP == RESTS { (second << 25) + third } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_definition() {
        let grids = [
            GridParams { scale: 1024.0, offset: -1536.0, ..GridParams::ZERO },
            GridParams { scale: 0.5, offset: 3.0, ..GridParams::ZERO },
        ];
        for grid in grids {
            for x in [0.0f32, 1.5, -1.25, 1.000_488_3, 1.001_464_8, 3.7, -77.123, 5e5, -0.0] {
                let [q, r] = grid.integers(x).map(i64::from);
                let of = [scale_and_offset(&grid), [1.0, 0.0]];
                let moments = terms::<MOMENTS>(x, 0.0, of);
                assert_eq!([moments.first - MAGIC_BITS, moments.second], [q, q * q], "{x}");
                let rests = terms::<RESTS>(x, 0.0, of);
                let found = [rests.first - MAGIC_BITS, rests.second, rests.third];
                assert_eq!(found, [r, q * r, r * r], "{x}");
                let products = terms::<PRODUCTS>(x, -7.0, of);
                assert_eq!([products.first - MAGIC_BITS, products.second], [-7, -7 * q], "{x}");
            }
        }
    }
}
