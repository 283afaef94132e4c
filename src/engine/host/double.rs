//! Double backward on the host.

use super::{layer, upstream, values, values_mut};
use crate::dtype::with_element;
use crate::engine::DoubleRank;
use crate::host::{self, DoubleOutputs, Threads};
use crate::stats::{DoubleCentering, GradCentering};

pub(in crate::engine) fn double_sums(
    rank: &DoubleRank<'_>,
    centering: &[GradCentering],
    threads: &Threads,
) -> Vec<[f64; 3]> {
    with_element!(rank.x.dtype(), X => {
        let read = host::DoubleRank {
            upstream: upstream::<X>(rank.x, &rank.shape, rank.residual, rank.mask.as_ref()),
            g: values(rank.g),
            v: rank.v.map(values),
            layer: layer(rank.layer),
        };
        host::local_double_sums(read, centering, threads)
    })
}

pub(in crate::engine) fn double_gradients(
    rank: &mut DoubleRank<'_>,
    centering: &[DoubleCentering],
    threads: &Threads,
) {
    with_element!(rank.x.dtype(), X => {
        let read = host::DoubleRank {
            upstream: upstream::<X>(rank.x, &rank.shape, rank.residual, rank.mask.as_ref()),
            g: values(rank.g),
            v: rank.v.map(values),
            layer: layer(rank.layer),
        };
        let outputs = DoubleOutputs {
            input: rank.input.as_deref_mut().map(values_mut),
            grad_output: rank.grad_output.as_deref_mut().map(values_mut),
        };
        host::double_input(read, outputs, centering, threads);
    });
}
