//! SIMD: sums of runs of values in vector registers.
//!
//! Owns the two hot loops of the sums: [`Sums`] for one channel's runs, [`ColumnSums`] for rows in
//! which every column is a channel's. Each takes two sums at once, either the moments Σd and Σd²
//! with d = x − pivot, or the gradient sums Σg and Σ g·d.
//!
//! The order of additions is fixed here and not by the width of the registers: [`LANES`] partial
//! sums in f32, no deeper than [`DEPTH`] additions, then f64. So results have the same bits on
//! every instruction set.

mod columns;

use pulp::Simd;

pub(super) use columns::{ColumnSums, PatchSums, ROWS};

/// Partial sums side by side, accumulators of one sum: two of the widest registers, so that an
/// addition need not wait for the one before.
const LANES: usize = 32;
/// Additions in f32 before a partial sum goes to f64: their roundings stay far below those of the
/// result.
pub(super) const DEPTH: usize = 16;
/// Values that are summed in f32 at once.
pub(super) const RUN: usize = DEPTH * LANES;

/// Two sums over many values. The partial sums, which change most, begin a cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Sums {
    partial: [[f32; LANES]; 2],
    /// Additions that are in `partial`.
    depth: usize,
    sums: [[f64; LANES]; 2],
}

/// The index of each lane, by which those within a run are known from those behind its end.
const LANE_INDICES: [u32; LANES] = {
    let mut indices = [0; LANES];
    let mut i = 0;
    while i < LANES {
        indices[i] = i as u32;
        i += 1;
    }
    indices
};

impl Sums {
    pub const ZERO: Self = Self { partial: [[0.0; LANES]; 2], depth: 0, sums: [[0.0; LANES]; 2] };

    /// Both sums over all lanes, which are added pairwise.
    #[inline(always)]
    pub fn totals(mut self) -> [f64; 2] {
        self.fold();
        let mut totals = [0.0; 2];
        for (total, lanes) in totals.iter_mut().zip(&mut self.sums) {
            let mut half = LANES / 2;
            while half > 0 {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
                half /= 2;
            }
            *total = lanes[0];
        }
        totals
    }

    /// Adds Σ(x − pivot) and Σ(x − pivot)² over the first `n` values of x. It is fastest where as
    /// many more follow as a register holds.
    #[inline(always)]
    pub fn add_moments<S: Simd>(&mut self, simd: S, x: &[f32], n: usize, pivot: f32) {
        self.add::<S, true>(simd, x, x, n, pivot);
    }

    /// Adds Σg and Σ g·(x − pivot) in the same way.
    #[inline(always)]
    pub fn add_products<S: Simd>(&mut self, simd: S, g: &[f32], x: &[f32], n: usize, pivot: f32) {
        self.add::<S, false>(simd, g, x, n, pivot);
    }

    #[inline(always)]
    fn add<S: Simd, const MOMENTS: bool>(
        &mut self,
        simd: S,
        g: &[f32],
        x: &[f32],
        n: usize,
        pivot: f32,
    ) {
        let mut g = g;
        let mut x = x;
        let mut n = n;
        while n > RUN {
            self.add_run::<S, MOMENTS>(simd, g, x, RUN, pivot);
            g = &g[RUN..];
            x = &x[RUN..];
            n -= RUN;
        }
        self.add_run::<S, MOMENTS>(simd, g, x, n, pivot);
    }

    /// The same for at most [`RUN`] values.
    ///
    /// ```text
    /// if the partial sums would be more than DEPTH additions deep: add them to the f64 sums
    /// first, second ← partial sums                         32 lanes each, in registers
    /// for 32 values:
    ///     d = x − pivot
    ///     first += g (or d);   second += g·d (or d²)
    /// the last values under 32: the same, lanes behind the end masked to 0
    /// partial sums ← first, second
    /// ```
    ///
    /// 1. Every lane is an accumulator of its own. With AVX-512 an iteration is two loads, two
    ///    subtractions, two products and four additions into four registers. These eight
    ///    operations keep two vector units busy for four cycles, which is the latency of an
    ///    addition: no unit waits for an accumulator.
    /// 2. f32 here and f64 outside: twice the lanes of f64 and no conversion in the loop.
    /// 3. Value i of a run goes to lane i mod 32 whatever the width of a register, and a product is
    ///    never fused with an addition: the bits are those of a processor without vectors.
    /// 4. The end of a run needs no scalar loop. Lanes behind it read the values that follow, which
    ///    the mask leaves out, or a copy where none follow.
    /// 5. `MOMENTS` and the number of registers are constants, so that LLVM unrolls the inner loop
    ///    and keeps `first` and `second` in registers.
    #[inline(always)]
    fn add_run<S: Simd, const MOMENTS: bool>(
        &mut self,
        simd: S,
        g: &[f32],
        x: &[f32],
        n: usize,
        pivot: f32,
    ) {
        let registers = const { LANES / S::F32_LANES };
        let depth = n.div_ceil(LANES);
        if self.depth + depth > DEPTH {
            self.fold();
        }
        self.depth += depth;
        let pivots = simd.splat_f32s(pivot);
        let zero = simd.splat_f32s(0.0);
        let mut first = [zero; LANES];
        let mut second = [zero; LANES];
        let [to_first, to_second] = &mut self.partial;
        let to_first = S::as_mut_simd_f32s(to_first).0;
        let to_second = S::as_mut_simd_f32s(to_second).0;
        first[..registers].copy_from_slice(to_first);
        second[..registers].copy_from_slice(to_second);

        let whole = n / LANES;
        let rest = n % LANES;
        let has_all_lanes = |values: &[f32], from: usize| {
            S::as_simd_f32s(&values[from * LANES..]).0.len() >= registers
        };
        let gs = S::as_simd_f32s(g).0.chunks_exact(registers);
        let xs = S::as_simd_f32s(x).0.chunks_exact(registers);
        for (g, x) in gs.zip(xs).take(whole) {
            for i in 0..registers {
                let d = simd.sub_f32s(x[i], pivots);
                let factor = if MOMENTS { d } else { g[i] };
                first[i] = simd.add_f32s(first[i], factor);
                second[i] = simd.add_f32s(second[i], simd.mul_f32s(factor, d));
            }
        }
        if rest > 0 {
            let mut last_g;
            let mut last_x;
            let (g, x) = if has_all_lanes(g, whole) && has_all_lanes(x, whole) {
                (&g[whole * LANES..], &x[whole * LANES..])
            } else {
                last_g = [0.0; LANES];
                last_x = [0.0; LANES];
                last_g[..rest].copy_from_slice(&g[whole * LANES..n]);
                last_x[..rest].copy_from_slice(&x[whole * LANES..n]);
                (last_g.as_slice(), last_x.as_slice())
            };
            let g = S::as_simd_f32s(g).0;
            let x = S::as_simd_f32s(x).0;
            let filled = rest.div_ceil(S::F32_LANES);
            let indices = S::as_simd_u32s(&LANE_INDICES).0;
            let rest = simd.splat_u32s(rest as u32);
            for i in 0..registers.min(filled) {
                let within = simd.less_than_u32s(indices[i], rest);
                let d = simd.select_f32s(within, simd.sub_f32s(x[i], pivots), zero);
                let factor = if MOMENTS { d } else { simd.select_f32s(within, g[i], zero) };
                first[i] = simd.add_f32s(first[i], factor);
                second[i] = simd.add_f32s(second[i], simd.mul_f32s(factor, d));
            }
        }
        to_first.copy_from_slice(&first[..registers]);
        to_second.copy_from_slice(&second[..registers]);
    }

    /// Adds the partial sums in f32 to those in f64.
    #[inline(always)]
    fn fold(&mut self) {
        self.depth = 0;
        for (sums, partial) in self.sums.iter_mut().zip(&mut self.partial) {
            for (sum, partial) in sums.iter_mut().zip(partial) {
                *sum += f64::from(*partial);
                *partial = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
