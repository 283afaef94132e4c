//! The host (CPU): the phases of a pass on host memory, for a rank without a GPU driver and for a
//! rank beside GPUs. Knows no wgpu.
//!
//! Memory-bound: every phase reads and writes each value once, on all threads of a pool, with the
//! SIMD instructions that the processor turns out to have (AVX-512, AVX2, NEON, or none). Sums are
//! f32 for a few values and f64 beyond. Outputs are computed as on a GPU, from pivot and rest in
//! f32, and rounded once to their storage type. Results have the same bits on any number of threads
//! and on every instruction set.
//!
//! `docs/host.md` has a page about it. The way through a call:
//!
//! | module | owns |
//! |---|---|
//! | `rank` | the arguments of a call |
//! | `traversal` | how an activation is cut into tiles |
//! | `statistics`, `gradient` | sums of tiles |
//! | `simd` | sums in vector registers |
//! | `double` | double backward: its sums, and the gradients that it writes |
//! | `exact` | sums of integers, which have no order |
//! | `reduce` | from tiles to channels |
//! | `channel_params` | parameters of channels as kernels read them |
//! | `apply` | the kernels that write |
//! | `curves` | activations that are no two straight lines |
//! | `block_io`, `convert` | storage types to f32 and back, block by block |
//! | `fused` | both halves of a pass, some channels at a time |
//! | `threads` | tasks on the threads of a pool |
//! | `intrinsics` | non-temporal stores, prefetching and everything else that is unsafe |

mod apply;
mod block_io;
mod channel_params;
mod convert;
mod curves;
mod double;
mod exact;
mod fused;
mod gradient;
mod intrinsics;
mod rank;
mod reduce;
mod simd;
mod statistics;
mod threads;
mod traversal;

pub(crate) use double::{DoubleOutputs, DoubleRank, double_input, local_double_sums};
pub(crate) use exact::{ChannelRange, GradientRank, local_integers, local_ranges};
pub(crate) use fused::{backward, backward_exact, forward, forward_exact};
pub(crate) use intrinsics::prefer_large_pages;
pub(crate) use rank::{BackwardRank, ForwardRank, GradOutput, Layer, Upstream};
pub(crate) use statistics::local_stats;
pub(crate) use threads::Threads;

use apply::{GradInput, Normalize, RUN_VALUES};
use block_io::Scratch;
use channel_params::ChannelParams;
use traversal::{Spans, Traversal};

use crate::dtype::Element;
use crate::stats::{Centering, GradCentering, GradientSums, Normalization};

/// y = act((x − pivot)·scale + shift + residual). Where there is a mask, of zeros, the bit of every
/// address becomes 1 where what enters the activation is above 0. In place, without x, y holds the
/// input and is of its type.
pub(crate) fn normalize<X: Element, Y: Element>(
    rank: ForwardRank<'_, X, Y>,
    centering: &[Centering],
    threads: &Threads,
) {
    let ForwardRank { x, shape, residual, layer, y, mask } = rank;
    if y.is_empty() {
        return;
    }
    let affine = layer.affines(0, centering);
    let params = ChannelParams::new(Traversal::of(shape), &affine);
    let bytes = size_of_val(y);
    // Each run has whole words of the mask to itself.
    let masks = mask.map(|mask| mask.chunks_mut(RUN_VALUES / 32));
    let spans = Spans::of(shape);
    let is_large = layer.is_large(bytes);
    let runs = y.chunks_mut(RUN_VALUES).zip(optional_chunks(masks)).enumerate();
    // From the end: what the sums read last is still in the caches.
    let tasks = runs.collect::<Vec<_>>().into_iter().rev();
    threads.for_each(2 * bytes, tasks, |(i, (y, mask))| {
        let at = i * RUN_VALUES;
        let x = x.map(|x| &x[at..]);
        let residual = residual.map(|residual| &residual[at..]);
        let task = Normalize { x, residual, y, mask, first_bit: 0, at };
        Scratch::lend(|scratch| task.run_spans(spans, &params, layer.epilogue, is_large, scratch));
    });
}

/// Each chunk as `Some`, or `None` forever if there is no slice.
fn optional_chunks<T>(chunks: Option<impl Iterator<Item = T>>) -> impl Iterator<Item = Option<T>> {
    let mut chunks = chunks;
    std::iter::repeat_with(move || chunks.as_mut().and_then(Iterator::next))
}

/// Local gradient sums of every channel.
pub(crate) fn local_gradient_sums<G: Element, X: Element>(
    g: GradOutput<'_, G>,
    upstream: Upstream<'_, X>,
    normalization: &Normalization,
    layer: Layer<'_>,
    threads: &Threads,
) -> Vec<GradientSums> {
    let shape = upstream.shape;
    if shape.values_per_channel() == 0 {
        return vec![GradientSums::EMPTY; shape.channels()];
    }
    let affine = layer.affines(0, &normalization.centering());
    let upstream = upstream.with(layer.epilogue);
    let sums = gradient::sums(g.like(shape), upstream, shape, &affine, threads);
    about_means(sums, normalization)
}

/// Gradient sums about the means of their channels from such about their pivots.
fn about_means(sums: Vec<[f64; 2]>, normalization: &Normalization) -> Vec<GradientSums> {
    let about_mean = |([sum_dy, sum_dy_x], rest): ([f64; 2], f64)| {
        GradientSums::from_pivot(sum_dy, sum_dy_x, rest)
    };
    sums.into_iter().zip(normalization.rest()).map(about_mean).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), and g itself for
/// the residual. In place, without g, dx holds grad_output, which is of the type and layout of x.
///
/// Where the statistics are constants, x is left out, so that a value that is not finite keeps to
/// itself.
pub(crate) fn grad_input<G: Element, X: Element>(
    rank: BackwardRank<'_, G, X>,
    centering: &[GradCentering],
    threads: &Threads,
) {
    let BackwardRank { g, upstream, layer, batch_statistics, dx, grad_residual } = rank;
    let dx = dx.unwrap_or_default();
    if dx.is_empty() {
        return;
    }
    let g = g.map(|g| g.like(upstream.shape));
    let coefficients = layer.grad_coefficients(0, centering);
    let params = ChannelParams::new(Traversal::of(upstream.shape), &coefficients);
    let rank_shape = upstream.shape;
    let upstream = upstream.with(layer.epilogue);
    let bytes = size_of_val(dx);
    let spans = Spans::of(rank_shape);
    let residuals = grad_residual.map(|values| values.chunks_mut(RUN_VALUES));
    let runs = dx.chunks_mut(RUN_VALUES).zip(optional_chunks(residuals)).enumerate();
    let tasks = runs.collect::<Vec<_>>().into_iter().rev();
    threads.for_each(3 * bytes, tasks, |(i, (dx, grad_residual))| {
        let task = GradInput { g, upstream, dx, grad_residual, at: i * RUN_VALUES };
        let is_large = layer.is_large(bytes);
        Scratch::lend(|scratch| {
            task.run_spans(spans, &params, batch_statistics, is_large, scratch)
        });
    });
}
