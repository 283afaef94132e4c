//! Which memory on the device each role of a plan is.

use crate::engine::{BackwardRank, DoubleRank, ForwardRank, Layer, Mask};
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::Role;
use crate::tensor::Tensor;

/// The memory of one rank of a pass. An absent one gets a dummy buffer.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Slices<'a> {
    gpu: &'a Gpu,
    x: Option<&'a BufferSlice>,
    y: Option<&'a BufferSlice>,
    g: Option<&'a BufferSlice>,
    cotangent: Option<&'a BufferSlice>,
    residual: Option<&'a BufferSlice>,
    mask: Option<&'a BufferSlice>,
    weight: Option<&'a BufferSlice>,
    bias: Option<&'a BufferSlice>,
    weight_cotangent: Option<&'a BufferSlice>,
    bias_cotangent: Option<&'a BufferSlice>,
    grad_input: Option<&'a BufferSlice>,
    grad_residual: Option<&'a BufferSlice>,
    grad_weight: Option<&'a BufferSlice>,
    grad_bias: Option<&'a BufferSlice>,
    /// The coefficients of every channel.
    centering: Option<&'a BufferSlice>,
    /// How values become integers.
    grids: Option<&'a BufferSlice>,
    /// Of padded samples.
    lengths: Option<&'a BufferSlice>,
}

impl<'a> Slices<'a> {
    fn new(gpu: &'a Gpu, layer: Layer<'a>, mask: Option<&'a Mask>) -> Self {
        Self {
            gpu,
            x: None,
            y: None,
            g: None,
            cotangent: None,
            residual: None,
            mask: mask.and_then(Mask::slice),
            weight: of(layer.weight),
            bias: of(layer.bias),
            weight_cotangent: None,
            bias_cotangent: None,
            grad_input: None,
            grad_residual: None,
            grad_weight: None,
            grad_bias: None,
            centering: None,
            grids: None,
            lengths: None,
        }
    }

    /// The slices of the kernel that writes y.
    pub fn forward(gpu: &'a Gpu, rank: &'a ForwardRank<'_>) -> Self {
        Self {
            x: of(rank.x),
            y: of(rank.y.as_deref()),
            residual: of(rank.residual),
            lengths: rank.lengths.as_ref(),
            ..Self::new(gpu, rank.layer, rank.mask.as_ref())
        }
    }

    /// The slices of the kernel that sums x, also in a pass in place.
    pub fn statistics(gpu: &'a Gpu, rank: &'a ForwardRank<'_>) -> Self {
        let lengths = rank.lengths.as_ref();
        Self { x: of(rank.x()), lengths, ..Self::new(gpu, rank.layer, None) }
    }

    /// The slices of the kernel that writes gradients.
    pub fn backward(gpu: &'a Gpu, rank: &'a BackwardRank<'_>) -> Self {
        Self {
            x: of(Some(rank.x)),
            g: of(rank.g),
            residual: of(rank.residual),
            grad_input: of(rank.grad_input.as_deref()),
            grad_residual: of(rank.grad_residual.as_deref()),
            grad_weight: of(rank.grad_weight.as_deref()),
            grad_bias: of(rank.grad_bias.as_deref()),
            lengths: rank.lengths.as_ref(),
            ..Self::new(gpu, rank.layer, rank.mask.as_ref())
        }
    }

    /// The slices of the kernel that sums gradients, also in a pass in place.
    pub fn gradient_sums(gpu: &'a Gpu, rank: &'a BackwardRank<'_>) -> Self {
        Self { g: of(rank.g()), ..Self::backward(gpu, rank) }
    }

    /// The slices of all kernels of double backward.
    pub fn double(gpu: &'a Gpu, rank: &'a DoubleRank<'_>) -> Self {
        let [weight_cotangent, bias_cotangent] = rank.parameters.map(of);
        Self {
            weight_cotangent,
            bias_cotangent,
            grad_weight: of(rank.weight.as_deref()),
            x: of(Some(rank.x)),
            g: of(Some(rank.g)),
            cotangent: of(rank.v),
            residual: of(rank.residual),
            ..Self::new(gpu, rank.layer, rank.mask.as_ref())
        }
    }

    /// The same with the gradient that is written.
    pub fn with_output(self, gradient: Option<&'a Tensor>) -> Self {
        Self { grad_input: of(gradient), ..self }
    }

    /// The same with the coefficients of every channel.
    pub fn with_centering(self, centering: &'a BufferSlice) -> Self {
        Self { centering: Some(centering), ..self }
    }

    /// The same with the grids of every channel.
    pub fn with_grids(self, grids: &'a BufferSlice) -> Self {
        Self { grids: Some(grids), ..self }
    }

    /// The same with memory for a gradient of x that nobody wants.
    pub fn with_unwanted(self, unwanted: Option<&'a BufferSlice>) -> Self {
        Self { grad_input: self.grad_input.or(unwanted), ..self }
    }

    /// The slice of a role.
    pub fn role(&self, role: Role) -> &'a BufferSlice {
        let (slice, dummy) = match role {
            Role::Lengths => return self.lengths.unwrap_or(self.gpu.no_lengths()),
            Role::Residual => (self.residual, 0),
            Role::Weight => (self.weight, 1),
            Role::Bias => (self.bias, 2),
            Role::WeightCotangent => (self.weight_cotangent, 1),
            Role::BiasCotangent => (self.bias_cotangent, 2),
            Role::Cotangent => (self.cotangent, 3),
            Role::Input => (self.x, 3),
            Role::GradOutput => (self.g, 3),
            Role::Output => (self.y, 3),
            Role::Mask => (self.mask, 3),
            Role::GradInput => (self.grad_input, 3),
            Role::GradResidual => (self.grad_residual, 3),
            Role::GradWeight => (self.grad_weight, 0),
            Role::GradBias => (self.grad_bias, 3),
            Role::Grids => (self.grids, 3),
            _ => (self.centering, 3),
        };
        slice.unwrap_or(self.gpu.dummy(dummy))
    }
}

fn of(tensor: Option<&Tensor>) -> Option<&BufferSlice> {
    tensor.and_then(Tensor::slice)
}
