//! Sums of columns: each row is added to those before it, in registers.

use pulp::Simd;

use crate::host::order::PATCH_COLUMNS;

/// Two sums in every column of many rows.
#[derive(Debug)]
pub(in crate::host) struct ColumnSums {
    /// What is subtracted from x, by column.
    pub pivots: Vec<f32>,
    /// The sums, by column.
    pub sums: [Vec<f64>; 2],
    /// Whether rows are taken [`ROWS`] at a time, which changes no bit.
    in_fours: bool,
}

/// Rows that are summed side by side where values come fast enough: the sums are read and written a quarter as often.
const ROWS: usize = 4;

impl ColumnSums {
    /// With `in_fours` rows are read some at a time, which pays where they are in a cache, else one run of memory after
    /// the other.
    pub fn new(pivots: Vec<f32>, in_fours: bool) -> Self {
        let sums = [vec![0.0; pivots.len()], vec![0.0; pivots.len()]];
        Self { pivots, sums, in_fours }
    }

    /// Adds x − pivot and its square, column by column from `column` on, over at most [`DEPTH`] rows of `n` columns.
    /// `ahead` is called for the number of every row before the row is read.
    #[inline(always)]
    pub fn add_moments<S: Simd>(&mut self, simd: S, column: usize, n: usize, x: &[&[f32]], ahead: impl Fn(usize)) {
        self.add::<S, true>(simd, column, n, x, x, ahead);
    }

    /// Adds g and g·(x − pivot) in the same way.
    #[inline(always)]
    pub fn add_products<S: Simd>(
        &mut self,
        simd: S,
        column: usize,
        n: usize,
        g: &[&[f32]],
        x: &[&[f32]],
        ahead: impl Fn(usize),
    ) {
        self.add::<S, false>(simd, column, n, g, x, ahead);
    }

    #[inline(always)]
    fn add<S: Simd, const MOMENTS: bool>(
        &mut self,
        simd: S,
        column: usize,
        n: usize,
        g: &[&[f32]],
        x: &[&[f32]],
        ahead: impl Fn(usize),
    ) {
        let pivots = &self.pivots[column..column + n];
        let mut partial = [[0.0; PATCH_COLUMNS]; 2];
        let [first, second] = &mut partial;
        let fours = if self.in_fours { x.len() / ROWS * ROWS } else { 0 };
        let ((g_fours, g_rest), (x_fours, x_rest)) = (g.split_at(fours), x.split_at(fours));
        let (g_fours, x_fours) = (g_fours.as_chunks::<ROWS>().0, x_fours.as_chunks::<ROWS>().0);
        let (first, second) = (&mut first[..n], &mut second[..n]);
        let mut row = 0;
        for (g, x) in g_fours.iter().zip(x_fours) {
            (row..row + ROWS).for_each(&ahead);
            row += ROWS;
            rows::<S, MOMENTS, ROWS>(simd, *g, *x, pivots, [first, second]);
        }
        for (g, x) in g_rest.iter().zip(x_rest) {
            ahead(row);
            row += 1;
            rows::<S, MOMENTS, 1>(simd, [*g], [*x], pivots, [first, second]);
        }
        for (sums, partial) in self.sums.iter_mut().zip(&partial) {
            for (sum, partial) in sums[column..column + n].iter_mut().zip(partial) {
                *sum += f64::from(*partial);
            }
        }
    }

    /// Begins anew, about the pivots that it has now.
    pub fn clear(&mut self) {
        self.sums.iter_mut().for_each(|sums| sums.fill(0.0));
    }
}

/// Adds `R` rows to the sums of their columns, in the order of the rows.
#[inline(always)]
fn rows<S: Simd, const MOMENTS: bool, const R: usize>(
    simd: S,
    g: [&[f32]; R],
    x: [&[f32]; R],
    pivots: &[f32],
    [first, second]: [&mut [f32]; 2],
) {
    let count = pivots.len() / S::F32_LANES;
    let mut gs: [&[S::f32s]; R] = [&[]; R];
    let mut xs = gs;
    for r in 0..R {
        // All of one length, so that nothing is checked in the loop.
        (gs[r], xs[r]) = (&S::as_simd_f32s(g[r]).0[..count], &S::as_simd_f32s(x[r]).0[..count]);
    }
    let (firsts, seconds) = (&mut S::as_mut_simd_f32s(first).0[..count], &mut S::as_mut_simd_f32s(second).0[..count]);
    let registers = &S::as_simd_f32s(pivots).0[..count];
    for i in 0..count {
        let (mut a, mut b) = (firsts[i], seconds[i]);
        for r in 0..R {
            let d = simd.sub_f32s(xs[r][i], registers[i]);
            let factor = if MOMENTS { d } else { gs[r][i] };
            a = simd.add_f32s(a, factor);
            b = simd.add_f32s(b, simd.mul_f32s(factor, d));
        }
        (firsts[i], seconds[i]) = (a, b);
    }
    for i in count * S::F32_LANES..pivots.len() {
        for (g, x) in g.iter().zip(&x) {
            let d = x[i] - pivots[i];
            let factor = if MOMENTS { d } else { g[i] };
            first[i] += factor;
            second[i] += factor * d;
        }
    }
}
