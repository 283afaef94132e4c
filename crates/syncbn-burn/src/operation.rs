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

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::error::raise;
use crate::layer::Saved;

/// An output that has been computed, and where it is one of forward, what its gradient needs.
#[derive(Clone, Debug)]
pub struct Done {
    tensor: CubeTensor,
    saved: Option<Arc<Saved>>,
}

impl Done {
    pub(crate) fn forward(y: CubeTensor, saved: Saved) -> Self {
        Self { tensor: y, saved: Some(Arc::new(saved)) }
    }

    fn gradient(tensor: CubeTensor) -> Self {
        Self { tensor, saved: None }
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
pub trait SyncBatchNormOps: Backend {
    /// `done`, as an output of `x`, `gamma` and `beta`.
    #[fusion(meta = |_x, _gamma, _beta, done| done.spec())]
    fn sync_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        done: Done,
    ) -> FloatTensor<Self>;
}

impl SyncBatchNormOps for CubeBackend {
    fn sync_batch_norm(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _beta: FloatTensor<Self>,
        done: Done,
    ) -> FloatTensor<Self> {
        done.tensor
    }
}

/// A backend whose tensors lie in CubeCL's memory.
pub trait InMemory: SyncBatchNormOps {
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
struct SyncBatchNormBackward;

impl<B: InMemory> Backward<B, 3> for SyncBatchNormBackward {
    type State = Option<Arc<Saved>>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, gamma, beta] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let Some(saved) = ops.state else { return };
        let made = saved
            .backward(B::into_cube(grad.clone()), x.is_some())
            .unwrap_or_else(|error| raise(error));
        let mut register = |parent: Option<_>, made: Option<CubeTensor>| {
            if let (Some(parent), Some(made)) = (parent, made) {
                let gradient = B::sync_batch_norm(
                    grad.clone(),
                    grad.clone(),
                    grad.clone(),
                    Done::gradient(made),
                );
                grads.register::<B>(parent, gradient);
            }
        };
        register(x.map(|node| node.id), made.x);
        register(gamma.map(|node| node.id), Some(made.weight));
        register(beta.map(|node| node.id), Some(made.bias));
    }
}

impl<B: InMemory, C: CheckpointStrategy> SyncBatchNormOps for Autodiff<B, C> {
    fn sync_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mut done: Done,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (gamma, gamma_node), (beta, beta_node)) =
            (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let saved = done.saved.take();
        let y = B::sync_batch_norm(x, gamma, beta, done);
        // The activation is kept as it lies: one that was computed again would lie elsewhere.
        match SyncBatchNormBackward
            .prepare::<C>([x_node, gamma_node, beta_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(saved, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}
