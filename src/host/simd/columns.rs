//! SIMD sums of columns: each row is added to those before it, elementwise.

use pulp::Simd;

use crate::host::traversal::PATCH_COLUMNS;

/// Two sums of every column over many rows, in f64.
#[derive(Debug)]
pub(in crate::host) struct ColumnSums {
    /// The number subtracted from x, by column.
    pub pivots: Vec<f32>,
    /// The sums, by column.
    pub sums: [Vec<f64>; 2],
}

/// Rows that may be summed side by side: loading and storing the partial sums a quarter as often
/// pays where memory is not what takes the time. It changes no bit.
pub(in crate::host) const ROWS: usize = 4;

/// The sums of some neighbouring columns over at most [`DEPTH`](super::DEPTH) rows.
#[derive(Debug)]
pub(in crate::host) struct PatchSums {
    column: usize,
    len: usize,
    partial: [[f32; PATCH_COLUMNS]; 2],
}

impl PatchSums {
    /// Nothing yet, of `len` columns from `column` on.
    pub fn new(column: usize, len: usize) -> Self {
        Self { column, len, partial: [[0.0; PATCH_COLUMNS]; 2] }
    }
}

impl ColumnSums {
    pub fn new(pivots: Vec<f32>) -> Self {
        let sums = [vec![0.0; pivots.len()], vec![0.0; pivots.len()]];
        Self { pivots, sums }
    }

    /// Adds x − pivot and its square to the sums of a patch, over at most [`ROWS`] rows of it.
    #[inline(always)]
    pub fn add_moments<S: Simd>(&self, simd: S, patch: &mut PatchSums, x: &[&[f32]]) {
        self.add::<S, true>(simd, patch, x, x);
    }

    /// Adds g and g·(x − pivot) in the same way.
    #[inline(always)]
    pub fn add_products<S: Simd>(
        &self,
        simd: S,
        patch: &mut PatchSums,
        g: &[&[f32]],
        x: &[&[f32]],
    ) {
        self.add::<S, false>(simd, patch, g, x);
    }

    #[inline(always)]
    fn add<S: Simd, const MOMENTS: bool>(
        &self,
        simd: S,
        patch: &mut PatchSums,
        g: &[&[f32]],
        x: &[&[f32]],
    ) {
        let pivots = &self.pivots[patch.column..patch.column + patch.len];
        let [first, second] = &mut patch.partial;
        let first = &mut first[..patch.len];
        let second = &mut second[..patch.len];
        if let (Ok(g), Ok(x)) = (<[_; ROWS]>::try_from(g), <[_; ROWS]>::try_from(x)) {
            return rows::<S, MOMENTS, ROWS>(simd, g, x, pivots, [first, second]);
        }
        for (g, x) in g.iter().zip(x) {
            rows::<S, MOMENTS, 1>(simd, [*g], [*x], pivots, [&mut *first, &mut *second]);
        }
    }

    /// Adds the sums of a patch to those in f64.
    #[inline(always)]
    pub fn take(&mut self, patch: &PatchSums) {
        for (sums, partial) in self.sums.iter_mut().zip(&patch.partial) {
            for (sum, partial) in
                sums[patch.column..patch.column + patch.len].iter_mut().zip(partial)
            {
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
///
/// ```text
/// for a register's width of columns:
///     a, b ← partial sums of these columns             in the first cache
///     for R rows:
///         d = x − pivot
///         a += g (or d);   b += g·d (or d²)
///     partial sums ← a, b
/// ```
///
/// 1. Rows are added elementwise: no sum across a register, and full width for any number of
///    channels.
/// 2. One accumulator per sum and column is enough. The additions of a column wait for each other,
///    but those of the next columns do not, and the processor runs them out of order.
/// 3. Four rows at once load and store the partial sums a quarter as often as one by one. The
///    additions of a column are in the order of the rows either way, so that it changes no bit.
/// 4. All slices have one length, by which LLVM takes the checks of bounds out of the loop, but for
///    one in some kernels. `R` is a constant, so that the inner loop is unrolled.
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
        gs[r] = &S::as_simd_f32s(g[r]).0[..count];
        xs[r] = &S::as_simd_f32s(x[r]).0[..count];
    }
    let firsts = &mut S::as_mut_simd_f32s(first).0[..count];
    let seconds = &mut S::as_mut_simd_f32s(second).0[..count];
    let pivot_registers = &S::as_simd_f32s(pivots).0[..count];
    for i in 0..count {
        let mut a = firsts[i];
        let mut b = seconds[i];
        for r in 0..R {
            let d = simd.sub_f32s(xs[r][i], pivot_registers[i]);
            let factor = if MOMENTS { d } else { gs[r][i] };
            a = simd.add_f32s(a, factor);
            b = simd.add_f32s(b, simd.mul_f32s(factor, d));
        }
        firsts[i] = a;
        seconds[i] = b;
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
