//! Sums of runs of one channel, in lanes that lie side by side.

mod registers;

use pulp::Simd;

use super::registers::run;
use super::terms::{MAGIC_BITS, RESTS, Terms, second_sum, terms};
use registers::{AddRun, Waiting};

/// Accumulators of one sum: two of the widest registers.
const LANES: usize = 16;
/// Products of 58 bits that an i64 holds: half of what fits.
pub(super) const DEPTH: usize = 16;

/// Two sums of integers over many values.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Sums {
    /// Sums that are not yet added to the others.
    waiting: Waiting,
    first: [i64; LANES],
    /// The second sum is high·2³² + low.
    low: [i64; LANES],
    high: [i64; LANES],
    third: [i64; LANES],
    /// Values whose bits of [`MAGIC`](super::terms) `first` has.
    count: i64,
}

impl Sums {
    pub const ZERO: Self = Self {
        waiting: Waiting::NONE,
        first: [0; LANES],
        low: [0; LANES],
        high: [0; LANES],
        third: [0; LANES],
        count: 0,
    };

    /// Adds the integers of the first `n` values of x, and of g where they are of gradients. It is
    /// fastest where as many more follow as a register holds.
    #[inline(always)]
    pub fn add<S: Simd, const OP: u8>(
        &mut self,
        simd: S,
        [x, g]: [&[f32]; 2],
        n: usize,
        grids: [[f32; 2]; 2],
    ) {
        let kernel = AddRun::<OP> { sums: self, x, g, n, grids };
        if let Err(AddRun { sums, .. }) = run(simd, kernel) {
            sums.add_portably::<OP>(&x[..n], &g[..n], grids);
        }
    }

    /// The same by plain arithmetic on arrays, which LLVM makes vector code of.
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
    fn add_portably<const OP: u8>(&mut self, x: &[f32], g: &[f32], grids: [[f32; 2]; 2]) {
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
    #[inline(always)]
    pub fn totals<const OP: u8>(mut self) -> [i128; 2] {
        self.hand_over();
        // A tile has at most 2¹⁶ values of a channel: sums of lanes stay in i64. Terms of `third`
        // are below 2⁴⁶, so that a lane stays there too.
        let sum = |lanes: &[i64]| lanes.iter().fold(0i64, |sum, lane| sum.wrapping_add(*lane));
        let first = sum(&self.first).wrapping_sub(self.count.wrapping_mul(MAGIC_BITS));
        let second = (i128::from(sum(&self.high)) << 32) + i128::from(sum(&self.low));
        let third = self.third.iter().map(|&lane| i128::from(lane)).sum();
        [first.into(), second_sum::<OP>(second, third)]
    }
}
