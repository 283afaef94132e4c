//! The kernels that write: y from x, and the gradients of x and of the residual.
//!
//! Each works on one run of memory, block by block, and knows by a value's address of which channel it is.

use pulp::{Arch, Simd, WithSimd};

use super::blocks::{Aligned, Block, Gradients, Output, bits_above, bits_at, cut, read, set_bits};
use super::intrinsics::{Stores, fenced};
use super::table::{BLOCK, Numbers, Table};
use crate::dtype::Element;
use crate::epilogue::Epilogue;

/// Elements of a run that one thread takes at once: 128 KB of f32, so that handing it out costs nothing beside it.
pub(super) const RUN_VALUES: usize = 32 << 10;

/// pivot, scale and shift of v = (x − pivot)·scale + shift.
pub(super) type Line = [f32; 3];
/// A [`Line`], and what the gradient needs beyond it: rest, A/N and the projection.
pub(super) type GradientLine = [f32; 6];

/// v without the residual.
#[inline(always)]
fn line(x: &Block, [pivot, scale, shift]: [&Block; 3], v: &mut Block) {
    for i in 0..BLOCK {
        v[i] = (x[i] - pivot[i]) * scale[i] + shift[i];
    }
}

#[inline(always)]
fn add(v: &mut Block, residual: &Block) {
    for i in 0..BLOCK {
        v[i] += residual[i];
    }
}

/// Runs a kernel with the best instructions of the processor, with stores past the caches if they are wanted.
///
/// A kernel is a type and not a closure: only what is inlined into it is compiled for those instructions.
fn with_stores<K: WithSimd<Output = ()>>(past_caches: bool, kernel: impl FnOnce(Option<Stores>) -> K) {
    if past_caches {
        fenced(|stores| Arch::new().dispatch(kernel(Some(stores))));
    } else {
        Arch::new().dispatch(kernel(None));
    }
}

/// A run of x, of the residual and of y, from address `at` on.
pub(super) struct Normalize<'a, X, Y> {
    /// `None` where y holds it.
    pub x: Option<&'a [X]>,
    pub residual: Option<&'a [X]>,
    pub y: &'a mut [Y],
    /// Bits of 0, from the run's first value on.
    pub mask: Option<&'a mut [u32]>,
    pub at: usize,
}

impl<X: Element, Y: Element> Normalize<'_, X, Y> {
    /// y = act(v).
    pub fn run(self, numbers: &Numbers<'_, 3>, epilogue: Epilogue, past_caches: bool) {
        with_stores(past_caches, |stores| NormalizeKernel { run: self, numbers, epilogue, stores });
    }
}

struct NormalizeKernel<'k, 'a, X, Y> {
    run: Normalize<'a, X, Y>,
    numbers: &'k Numbers<'k, 3>,
    epilogue: Epilogue,
    stores: Option<Stores>,
}

impl<X: Element, Y: Element> WithSimd for NormalizeKernel<'_, '_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Normalize { x, residual, y, mut mask, at } = self.run;
        let mut table = self.numbers.table();
        let len = y.len();
        let mut y = Output::new(y, self.stores);
        let head = y.head();
        let (mut scratch, mut v) = ([0.0; BLOCK], Aligned::ZERO);
        for run in cut(len, head) {
            let numbers = table.block(at + run.start, run.len());
            let values = match x {
                Some(x) => read(&x[run.clone()], &mut scratch),
                None => y.read(run.clone(), &mut scratch),
            };
            line(values, numbers, &mut v.0);
            if let Some(residual) = residual {
                add(&mut v.0, read(&residual[run.clone()], &mut scratch));
            }
            if let Some(mask) = &mut mask {
                set_bits(mask, run.start, run.len(), bits_above(&v.0));
            }
            activate(&mut v.0, self.epilogue);
            y.write(run, &v);
        }
    }
}

/// act(v): v above 0, slope·v elsewhere, and 0 for a slope of 0 also where v is infinite. The comparison is so that a NaN
/// stays.
#[inline(always)]
fn activate(v: &mut Block, epilogue: Epilogue) {
    let slope = epilogue.slope();
    if !epilogue.activates() {
        return;
    }
    if slope == 0.0 {
        for v in v {
            *v = if *v <= 0.0 { 0.0 } else { *v };
        }
    } else {
        for v in v {
            *v = if *v <= 0.0 { slope * *v } else { *v };
        }
    }
}

/// g·(v > 0 ? 1 : slope), and 0 for a slope of 0 also where g is infinite.
#[inline(always)]
fn gate(g: &mut Block, is_above: impl Fn(usize) -> bool, epilogue: Epilogue) {
    let slope = epilogue.slope();
    if slope == 0.0 {
        for (i, g) in g.iter_mut().enumerate() {
            *g = if is_above(i) { *g } else { 0.0 };
        }
    } else {
        for (i, g) in g.iter_mut().enumerate() {
            *g = if is_above(i) { *g } else { slope * *g };
        }
    }
}

/// x, and what decides on the side of the activation.
#[derive(Clone, Copy)]
pub(super) struct Upstream<'a, X> {
    pub x: &'a [X],
    /// Where it decides on v.
    pub residual: Option<&'a [X]>,
    /// Forward's, which decides where there is one.
    pub mask: Option<&'a [u32]>,
    pub epilogue: Epilogue,
}

impl<X: Element> Upstream<'_, X> {
    /// Closes the activation's gate for a block of g, of the values from address `at` on.
    #[inline(always)]
    fn gate(&self, at: usize, n: usize, x: &Block, numbers: [&Block; 3], g: &mut Block) {
        if let Some(mask) = self.mask {
            let bits = bits_at(mask, at);
            let halves = [bits as u32, (bits >> 32) as u32];
            return gate(g, |i| halves[i / 32] >> (i % 32) & 1 != 0, self.epilogue);
        }
        let (mut v, mut scratch) = ([0.0; BLOCK], [0.0; BLOCK]);
        line(x, numbers, &mut v);
        if let Some(residual) = self.residual {
            add(&mut v, read(&residual[at..at + n], &mut scratch));
        }
        gate(g, |i| v[i] > 0.0, self.epilogue);
    }

    /// g before the activation of the `n` values from address `at` on, where there is an activation.
    #[inline(always)]
    pub fn gated<'s, G: Element>(
        &self,
        g: Gradients<'_, G>,
        at: usize,
        n: usize,
        table: &mut Table<'_, 3>,
        to: &'s mut [f32],
    ) -> &'s [f32] {
        let (mut g_scratch, mut x_scratch) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (run, to) in cut(n, 0).zip(to.chunks_mut(BLOCK)) {
            let (at, n) = (at + run.start, run.len());
            let mut g = *g.block(at, n, &mut g_scratch);
            self.gate(at, n, read(&self.x[at..at + n], &mut x_scratch), table.block(at, n), &mut g);
            // The last block of `to` may hold more than is asked for, or just that.
            let n = to.len();
            to.copy_from_slice(&g[..n]);
        }
        &to[..n]
    }
}

/// A run of the gradients of x and of the residual, from address `at` on.
pub(super) struct GradInput<'a, G, X> {
    /// `None` where dx holds them.
    pub g: Option<Gradients<'a, G>>,
    pub upstream: Upstream<'a, X>,
    pub dx: &'a mut [X],
    pub grad_residual: Option<&'a mut [X]>,
    pub at: usize,
}

impl<G: Element, X: Element> GradInput<'_, G, X> {
    /// dx = scale·(g − (A/N + ((x − pivot) − rest)·projection)), and g itself for the residual.
    pub fn run(self, numbers: &Numbers<'_, 6>, batch_statistics: bool, past_caches: bool) {
        with_stores(past_caches, |stores| GradInputKernel { run: self, numbers, batch_statistics, stores });
    }
}

struct GradInputKernel<'k, 'a, G, X> {
    run: GradInput<'a, G, X>,
    numbers: &'k Numbers<'k, 6>,
    batch_statistics: bool,
    stores: Option<Stores>,
}

impl<G: Element, X: Element> WithSimd for GradInputKernel<'_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let GradInput { g: gradients, upstream, dx, grad_residual, at } = self.run;
        let mut table = self.numbers.table();
        let len = dx.len();
        let mut dx = Output::new(dx, self.stores);
        let head = dx.head();
        // Of another alignment than dx it has no whole lines at the same places, and is stored as usual.
        let mut grad_residual = grad_residual.map(|values| Output::new(values, self.stores));
        let (mut x_scratch, mut g_scratch) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (mut gated, mut gradient) = (Aligned::ZERO, Aligned::ZERO);
        for run in cut(len, head) {
            let (start, n) = (at + run.start, run.len());
            let [pivot, scale, shift, rest, mean_dy, projection] = table.block(start, n);
            let x = read(&upstream.x[start..start + n], &mut x_scratch);
            let mut g = match gradients {
                Some(gradients) => gradients.block(start, n, &mut g_scratch),
                None => dx.read(run.clone(), &mut g_scratch),
            };
            if upstream.epilogue.activates() {
                gated.0 = *g;
                upstream.gate(start, n, x, [pivot, scale, shift], &mut gated.0);
                g = &gated.0;
            }
            if let Some(grad_residual) = &mut grad_residual {
                grad_residual.write(run.clone(), &Aligned(*g));
            }
            if self.batch_statistics {
                for i in 0..BLOCK {
                    let from_mean = (x[i] - pivot[i]) - rest[i];
                    gradient.0[i] = scale[i] * (g[i] - (mean_dy[i] + from_mean * projection[i]));
                }
            } else {
                // Constants: x is left out, so that a value that is not finite keeps to itself.
                for i in 0..BLOCK {
                    gradient.0[i] = scale[i] * (g[i] - mean_dy[i]);
                }
            }
            dx.write(run, &gradient);
        }
    }
}
