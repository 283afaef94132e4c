//! The operation as Burn's backends see it: a node of the autodiff graph whose output is there
//! already.
//!
//! The layer exchanges with the other ranks on the thread that calls `forward` or `backward`,
//! before anything is registered: an exchange inside an operation would stall the thread that
//! serves the device, which with fusion runs operations later and for all callers. What is
//! registered only hands over the tensor.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::error::raise;
use crate::pass::{Saved, Wanted};

/// An output that has been computed, and where it is one of forward, what its gradient needs.
#[derive(Clone, Debug)]
pub struct Done {
    tensor: CubeTensor,
    saved: Option<Arc<Saved>>,
    adds_residual: bool,
}

impl Done {
    pub(crate) fn forward(y: CubeTensor, saved: Saved, adds_residual: bool) -> Self {
        Self { tensor: y, saved: Some(Arc::new(saved)), adds_residual }
    }

    /// A tensor that has no gradient.
    pub(crate) fn made(tensor: CubeTensor) -> Self {
        Self { tensor, saved: None, adds_residual: false }
    }

    /// What fusion must know of a tensor that it will get later.
    #[cfg(feature = "fusion")]
    fn spec(&self) -> burn::backend::fusion::custom::TensorSpec {
        use burn::backend::TensorMetadata;
        burn::backend::fusion::custom::TensorSpec::new(self.tensor.shape(), self.tensor.dtype)
    }
}

/// The operation.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait BatchNormOps: Backend {
    /// `done`, as an output of `x`, `gamma`, `beta` and, where one was added, of `residual`.
    #[fusion(meta = |_x, _gamma, _beta, _residual, done| done.spec())]
    fn batch_norm_output(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        done: Done,
    ) -> FloatTensor<Self>;
}

impl BatchNormOps for CubeBackend {
    fn batch_norm_output(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _beta: FloatTensor<Self>,
        _residual: FloatTensor<Self>,
        done: Done,
    ) -> FloatTensor<Self> {
        done.tensor
    }
}

/// A backend whose tensors lie in CubeCL's memory.
pub trait InMemory: BatchNormOps {
    /// The tensor there, with everything done that it depends on, or queued before whatever is
    /// submitted next.
    fn into_cube(tensor: FloatTensor<Self>) -> CubeTensor;
}

impl InMemory for CubeBackend {
    fn into_cube(tensor: FloatTensor<Self>) -> CubeTensor {
        tensor
    }
}

#[cfg(feature = "fusion")]
impl InMemory for burn::backend::fusion::Fusion<CubeBackend> {
    fn into_cube(tensor: FloatTensor<Self>) -> CubeTensor {
        tensor.client.clone().resolve_tensor_float::<CubeBackend>(tensor)
    }
}

#[derive(Debug)]
struct BatchNormBackward;

/// What backward needs of a forward call.
#[derive(Clone, Debug)]
struct State {
    saved: Arc<Saved>,
    adds_residual: bool,
}

impl<B: InMemory> Backward<B, 4> for BatchNormBackward {
    type State = Option<State>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, gamma, beta, residual] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let Some(State { saved, adds_residual }) = ops.state else { return };
        let wanted = Wanted { x: x.is_some(), residual: residual.is_some() && adds_residual };
        let made =
            saved.backward(B::into_cube(grad.clone()), wanted).unwrap_or_else(|error| raise(error));
        let mut register = |parent: Option<NodeId>, made: Option<CubeTensor>| {
            if let (Some(parent), Some(made)) = (parent, made) {
                let [x, gamma, beta, residual] = [&grad; 4].map(Clone::clone);
                let gradient = B::batch_norm_output(x, gamma, beta, residual, Done::made(made));
                grads.register::<B>(parent, gradient);
            }
        };
        register(x.map(|node| node.id), made.x);
        register(gamma.map(|node| node.id), Some(made.weight));
        register(beta.map(|node| node.id), Some(made.bias));
        register(residual.map(|node| node.id), made.residual);
    }
}

impl<B: InMemory, C: CheckpointStrategy> BatchNormOps for Autodiff<B, C> {
    fn batch_norm_output(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        mut done: Done,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (gamma, gamma_node) = gamma.into_parts();
        let (beta, beta_node) = beta.into_parts();
        let (residual, residual_node) = residual.into_parts();
        let adds_residual = done.adds_residual;
        let state = done.saved.take().map(|saved| State { saved, adds_residual });
        let y = B::batch_norm_output(x, gamma, beta, residual, done);
        // The activation is kept as it lies: one that was computed again would lie elsewhere.
        match BatchNormBackward
            .prepare::<C>([x_node, gamma_node, beta_node, residual_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(state, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}
