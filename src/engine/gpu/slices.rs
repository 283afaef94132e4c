//! Which memory on the device each role of a plan is.

use crate::engine::{self, Mask, Source, device_slice};
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::{Activation, LayerFlags, Role};

/// A layer's parameters as slices, the mask of the call, and what kernels are told of both.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Layer<'a> {
    weight: Option<&'a BufferSlice>,
    bias: Option<&'a BufferSlice>,
    mask: Option<&'a BufferSlice>,
    flags: LayerFlags,
}

impl<'a> Layer<'a> {
    pub fn of(layer: engine::Layer<'a>, mask: Option<&'a Mask>) -> Self {
        let (weight, bias) = (device_slice(layer.weight), device_slice(layer.bias));
        let (mask, order) = match mask {
            Some(Mask::Gpu(lease, order)) => (Some(&***lease), Some(*order)),
            _ => (None, None),
        };
        let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
        let flags = LayerFlags { weight: has_weight, bias: has_bias, epilogue: layer.epilogue, mask: order };
        Self { weight, bias, mask, flags }
    }

    /// What kernels are told.
    pub fn flags(&self) -> LayerFlags {
        self.flags
    }

    /// The slice of a role that is the layer's or the call's; what is absent is bound to memory that no kernel looks at.
    pub fn slice(&self, gpu: &'a Gpu, role: Role, residual: Option<&'a BufferSlice>) -> Option<&'a BufferSlice> {
        match role {
            Role::Residual => Some(residual.unwrap_or(gpu.spare(0))),
            Role::Weight => Some(self.weight.unwrap_or(gpu.spare(1))),
            Role::Bias => Some(self.bias.unwrap_or(gpu.spare(2))),
            Role::Mask => self.mask,
            _ => None,
        }
    }
}

/// What backward reads, as slices.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Reads<'a> {
    /// `None` where the gradient of x is written over grad_output.
    pub(super) g: Option<&'a BufferSlice>,
    pub(super) g_activation: Activation<'a>,
    pub(super) x: (&'a BufferSlice, Activation<'a>),
    residual: Option<&'a BufferSlice>,
}

impl<'a> Reads<'a> {
    /// `None` where a tensor does not lie on a GPU.
    pub fn of(g: Source<'a>, upstream: engine::Upstream<'a>) -> Option<Self> {
        let x = (device_slice(Some(upstream.x.tensor))?, upstream.x.activation());
        let g_activation = g.activation(x.1.dtype);
        let g = match g {
            Source::Apart(view) => Some(device_slice(Some(view.tensor))?),
            Source::Over(_) => None,
        };
        Some(Self { g, g_activation, x, residual: device_slice(upstream.residual) })
    }
}

/// The slice of a role that backward reads.
pub(in crate::engine) fn backward_slice<'a>(
    gpu: &'a Gpu,
    role: Role,
    reads: Reads<'a>,
    centering: &'a BufferSlice,
    layer: Layer<'a>,
) -> &'a BufferSlice {
    match role {
        Role::GradOutput => reads.g.unwrap_or(gpu.spare(3)),
        Role::Input => reads.x.0,
        _ => layer.slice(gpu, role, reads.residual).unwrap_or(centering),
    }
}
