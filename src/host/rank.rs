//! One rank of a pass in host memory: the slices that a call reads and writes, and its layer.

use super::apply::{self, Affine, GradCoefficients};
use super::block_io::Gradients;
use crate::dtype::Element;
use crate::epilogue::Epilogue;
use crate::shape::Shape;
use crate::stats::{Centering, GradCentering};

/// Bytes of results of all ranks from which on they are large. They are written with non-temporal
/// stores then: they would not stay in the caches until somebody reads them, and the memory that
/// they replace is not read first. And inputs are prefetched by software.
pub(super) const LARGE_BYTES: usize = 4 << 20;

/// A layer on the host: parameters, (C) each, and its epilogue.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue,
    /// Ranks of the host that one caller processes in sequence, each assumed to have as many
    /// results.
    pub ranks: usize,
}

impl Layer<'_> {
    /// Whether so many bytes of results of one rank, with those of the others, are large.
    pub(super) fn is_large(self, bytes: usize) -> bool {
        bytes >= LARGE_BYTES / self.ranks.max(1)
    }

    /// The affine coefficients of a channel: pivot, scale = weight·inv_std and shift = bias −
    /// rest·scale.
    pub(in crate::host) fn affine(self, channel: usize, center: &Centering) -> Affine {
        let weight = self.weight.map_or(1.0, |weight| weight[channel]);
        let bias = self.bias.map_or(0.0, |bias| bias[channel]);
        let scale = weight * (center.inv_std * center.unit);
        let shift = bias - center.rest / center.unit * scale;
        [center.pivot / center.unit, scale, shift]
    }

    /// The affine coefficients of the channels from `first` on.
    pub(super) fn affines(self, first: usize, centering: &[Centering]) -> Vec<Affine> {
        let affine = |(channel, center)| self.affine(channel, center);
        (first..).zip(centering).map(affine).collect()
    }

    /// The gradient coefficients of the channels from `first` on.
    pub(super) fn grad_coefficients(
        self,
        first: usize,
        centering: &[GradCentering],
    ) -> Vec<GradCoefficients> {
        let coefficients = |(channel, of): (usize, &GradCentering)| {
            let [pivot, scale, shift] = self.affine(channel, &of.center);
            let unit = of.center.unit;
            [pivot, scale, shift, of.center.rest / unit, of.mean_dy, of.projection * unit]
        };
        (first..).zip(centering).map(coefficients).collect()
    }
}

/// A rank of forward.
pub(crate) struct ForwardRank<'a, X, Y> {
    /// `None` in place: y holds it.
    pub x: Option<&'a [X]>,
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
    pub layer: Layer<'a>,
    pub y: &'a mut [Y],
    /// Zeros, a bit for each value of x.
    pub mask: Option<&'a mut [u32]>,
}

/// A rank of backward.
pub(crate) struct BackwardRank<'a, G, X> {
    /// `None` in place: dx holds it.
    pub g: Option<GradOutput<'a, G>>,
    pub upstream: Upstream<'a, X>,
    pub layer: Layer<'a>,
    /// Whether the statistics depend on x.
    pub batch_statistics: bool,
    pub dx: Option<&'a mut [X]>,
    pub grad_residual: Option<&'a mut [X]>,
}

/// grad_output, in a layout of its own.
#[derive(Clone, Copy)]
pub(crate) struct GradOutput<'a, G> {
    pub values: &'a [G],
    pub shape: &'a Shape,
}

impl<'a, G: Element> GradOutput<'a, G> {
    /// In the order of an x.
    pub(super) fn like(self, x: &Shape) -> Gradients<'a, G> {
        Gradients::new(self.values, self.shape, x)
    }
}

/// The inputs of backward besides grad_output: x, and the mask or the residual, which decide where
/// the activation is active.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a, X> {
    pub x: &'a [X],
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
    pub mask: Option<&'a [u32]>,
}

impl<'a, X: Element> Upstream<'a, X> {
    /// As kernels take it.
    pub(super) fn with(self, epilogue: Epilogue) -> apply::Upstream<'a, X> {
        apply::Upstream { x: self.x, residual: self.residual, mask: self.mask, epilogue }
    }
}
