//! Sums and ranges of runs of one channel, in lanes that lie side by side.

use super::terms::{MAGIC_BITS, RESTS, Terms, second_sum, terms};

/// Accumulators of one sum: two of the widest registers.
const LANES: usize = 16;
/// Products of 58 bits that an i64 holds: half of what fits.
pub(super) const DEPTH: usize = 16;

/// Two sums of integers over many values.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Sums {
    first: [i64; LANES],
    /// The second sum is high·2³² + low.
    low: [i64; LANES],
    high: [i64; LANES],
    third: [i64; LANES],
    /// Values summed.
    count: i64,
}

impl Sums {
    pub const ZERO: Self =
        Self { first: [0; LANES], low: [0; LANES], high: [0; LANES], third: [0; LANES], count: 0 };

    /// Adds the integers of a run of x, and of g where they are of gradients; both slices have one
    /// length.
    ///
    /// ```text
    /// for 256 values:
    ///     second ← 0                                     16 lanes of 64 bits, in registers
    ///     for 16 values:
    ///         t = x·scale + offset;   q = round(t)
    ///         first += q;   second += q·q (or q·w)
    ///     low += second mod 2³²;   high += second / 2³²
    /// ```
    ///
    /// 1. No addition waits for a rounding: integers add in any order, so nothing but the width of
    ///    the registers decides which lane a value goes to.
    /// 2. A product has 58 bits, 16 of them 62: one fold for 16 steps.
    #[inline(always)]
    pub fn add<const OP: u8>(&mut self, x: &[f32], g: &[f32], grids: [[f32; 2]; 2]) {
        self.count += x.len() as i64;
        let mut first = self.first;
        for (x, g) in x.chunks(DEPTH * LANES).zip(g.chunks(DEPTH * LANES)) {
            let mut second = [0i64; LANES];
            let (xs, x_rest) = x.as_chunks::<LANES>();
            let (gs, g_rest) = g.as_chunks::<LANES>();
            for (x, g) in xs.iter().zip(gs) {
                for i in 0..LANES {
                    let of = terms::<OP>(x[i], g[i], grids);
                    first[i] = first[i].wrapping_add(of.first);
                    second[i] = second[i].wrapping_add(of.second);
                    if OP == RESTS {
                        self.third[i] = self.third[i].wrapping_add(of.third);
                    }
                }
            }
            for (i, (x, g)) in x_rest.iter().zip(g_rest).enumerate() {
                let Terms { first: of_first, second: of_second, third } =
                    terms::<OP>(*x, *g, grids);
                first[i] = first[i].wrapping_add(of_first);
                second[i] = second[i].wrapping_add(of_second);
                self.third[i] = self.third[i].wrapping_add(third);
            }
            for (i, second) in second.into_iter().enumerate() {
                self.low[i] += second & 0xffff_ffff;
                self.high[i] += second >> 32;
            }
        }
        self.first = first;
    }

    /// Both sums over all lanes.
    pub fn totals<const OP: u8>(&self) -> [i128; 2] {
        let first = self.first.iter().fold(0i64, |sum, lane| sum.wrapping_add(*lane));
        let first = first.wrapping_sub(self.count.wrapping_mul(MAGIC_BITS));
        let wide = |lanes: &[i64]| lanes.iter().copied().map(i128::from).sum::<i128>();
        let second = (wide(&self.high) << 32) + wide(&self.low);
        [first.into(), second_sum::<OP>(second, wide(&self.third))]
    }
}

/// The smallest and the largest of many values, and the bits of the largest magnitude, by which
/// those that are not finite are known.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Extremes {
    low: [f32; LANES],
    high: [f32; LANES],
    bits: [u32; LANES],
}

/// Bits of infinity: those of a NaN are above.
const INFINITY_BITS: u32 = 0x7f80_0000;

impl Extremes {
    pub const NONE: Self =
        Self { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES], bits: [0; LANES] };

    /// Takes in the values of a run. With `SYMMETRIC` the largest magnitude alone counts.
    ///
    /// Three operations for a register of x, two for one of g. A NaN changes the bits alone, which
    /// tell it.
    #[inline(always)]
    pub fn add<const SYMMETRIC: bool>(&mut self, x: &[f32]) {
        let Self { mut low, mut high, mut bits } = self.clone();
        let (xs, rest) = x.as_chunks::<LANES>();
        for x in xs {
            for i in 0..LANES {
                Self::take::<SYMMETRIC>(x[i], &mut low[i], &mut high[i], &mut bits[i]);
            }
        }
        for (i, x) in rest.iter().enumerate() {
            Self::take::<SYMMETRIC>(*x, &mut low[i], &mut high[i], &mut bits[i]);
        }
        *self = Self { low, high, bits };
    }

    #[inline(always)]
    fn take<const SYMMETRIC: bool>(x: f32, low: &mut f32, high: &mut f32, bits: &mut u32) {
        *bits = (*bits).max(x.to_bits() & 0x7fff_ffff);
        if !SYMMETRIC {
            *low = if x < *low { x } else { *low };
            *high = if x > *high { x } else { *high };
        }
    }

    /// The ends over all lanes; NaN where a value is not finite.
    pub fn ends<const SYMMETRIC: bool>(&self) -> [f32; 2] {
        let bits = self.bits.iter().copied().fold(0, u32::max);
        if bits >= INFINITY_BITS {
            return [f32::NAN; 2];
        }
        if SYMMETRIC {
            let largest = f32::from_bits(bits);
            return [-largest, largest];
        }
        let low = self.low.iter().copied().fold(f32::INFINITY, f32::min);
        [low, self.high.iter().copied().fold(f32::NEG_INFINITY, f32::max)]
    }
}
