//! The requests and results of passes, the same for both layers.

mod backward;
mod double;
mod forward;
mod inputs;
mod lengths;

pub use backward::Backward;
pub(crate) use backward::{BackwardParts, Targets};
pub use double::DoubleBackward;
pub(crate) use double::DoubleParts;
pub use forward::Forward;
pub(crate) use forward::ForwardParts;
#[cfg(feature = "gpu")]
pub(crate) use forward::RunningTensors;
pub(crate) use inputs::Inputs;
pub use lengths::Lengths;

use crate::saved::Saved;
use crate::stats::BackwardReport;
use crate::tensor::{List, ListMut, Tensor, Tensors};
#[cfg(feature = "gpu")]
use crate::workspace::Workspace;

/// An encoder of the application's, and the memory of calls recorded into it.
#[cfg(feature = "gpu")]
pub(crate) type Encode<'a> = Option<(&'a mut wgpu::CommandEncoder, &'a mut Workspace)>;
/// There is none.
#[cfg(not(feature = "gpu"))]
pub(crate) type Encode<'a> = Option<&'a mut std::convert::Infallible>;

/// Tensors that a call only reads, or that it overwrites with its result.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Read(List<'a>),
    InPlace(ListMut<'a>),
}

impl Source<'_> {
    /// The tensors in rank order.
    pub fn tensors(&self) -> Tensors<'_> {
        match self {
            Self::Read(list) => list.iter().collect(),
            Self::InPlace(list) => list.iter().collect(),
        }
    }
}

/// Tensors of a request by the name of their argument.
pub(crate) type Named<'t> = Vec<(&'static str, Vec<&'t Tensor>)>;

/// The result of a forward pass.
#[derive(Debug)]
#[non_exhaustive]
pub struct Normalized<O = Tensor> {
    /// y, with the dimensions, layout, storage type and device of x; `()` if the caller gave the
    /// targets.
    pub output: O,
    /// The data of this call for backward.
    pub saved: Saved,
}

/// The result of a backward pass.
#[derive(Debug)]
#[non_exhaustive]
pub struct Gradients<O = Tensor> {
    /// The gradient of x, with its dimensions; `()` if the caller gave targets.
    pub input: O,
    /// The gradient of the weight, (C) f32. `None` if the layer has no weight, if it is frozen, or
    /// if the caller gave targets.
    pub weight: Option<O>,
    /// The gradient of the bias, (C) f32. `None` in the same cases as for the weight.
    pub bias: Option<O>,
    /// The gradient of the residual, with the dimensions of x. `None` if there is no residual, or
    /// if the caller gave targets.
    pub residual: Option<O>,
    /// Sums and times of the call. `None` if nothing was read back.
    pub report: Option<BackwardReport>,
}

/// The result of double backward: the gradients of Σ cotangent·result over the results of a
/// backward pass on all ranks.
#[derive(Debug)]
#[non_exhaustive]
pub struct DoubleGradients<O = Tensor> {
    /// The gradient with respect to x, with its dimensions, layout and storage type.
    pub input: O,
    /// The gradient with respect to grad_output, likewise.
    pub grad_output: O,
    /// The gradient with respect to the weight, (C) f32. `None` if the layer has no weight, or if
    /// it is frozen.
    pub weight: Option<O>,
}
