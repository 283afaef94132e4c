//! The operation as Burn's backends see it: a node of the autodiff graph whose output is there
//! already.
//!
//! The layer exchanges with the other ranks on the thread that calls `forward` or `backward`,
//! before anything is registered: an exchange inside an operation would stall the thread that
//! serves the device, which with fusion runs operations later and for all callers. The registered
//! operation only returns the tensor.

mod joint;
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

pub(crate) use joint::Joint;
use joint::Made;
pub(crate) use joint::Slot;

use crate::error::raise;
use crate::pass::{Saved, Wanted};

/// A tensor that has been computed, and its place in the graph.
#[derive(Clone, Debug)]
pub struct Done {
    tensor: CubeTensor,
    node: Option<Node>,
}

/// The node of an output in the autodiff graph.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// The output of a call on one tensor.
    Forward { saved: Arc<Saved>, adds_residual: bool },
    /// A place between the inputs of a call on several tensors and its outputs.
    Link { joint: Arc<Joint>, slots: [Slot; 4] },
    /// The output of a rank of such a call.
    Joint { joint: Arc<Joint>, rank: usize },
}

impl Done {
    pub(crate) fn forward(y: CubeTensor, saved: Saved, adds_residual: bool) -> Self {
        Self::at(y, Node::Forward { saved: Arc::new(saved), adds_residual })
    }

    pub(crate) fn at(tensor: CubeTensor, node: Node) -> Self {
        Self { tensor, node: Some(node) }
    }

    /// A tensor that has no gradient.
    pub(crate) fn made(tensor: CubeTensor) -> Self {
        Self { tensor, node: None }
    }

    /// The description that fusion needs of a tensor that it gets later.
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

impl<B: InMemory> Backward<B, 4> for BatchNormBackward {
    type State = Option<Node>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Ops { parents, node, state } = ops;
        match state {
            None => {}
            Some(Node::Forward { saved, adds_residual }) => {
                let grad = grads.consume::<B>(&node);
                let [x, _, _, residual] = &parents;
                let wanted =
                    Wanted { x: x.is_some(), residual: residual.is_some() && adds_residual };
                let made = saved.backward(vec![B::into_cube(grad.clone())], wanted);
                let made = made.unwrap_or_else(|error| raise(error));
                let mut made = Made::<B>::new(made, grad);
                let slots = [Slot::X(0), Slot::Weight, Slot::Bias, Slot::Residual(0)];
                made.register(parents.map(|parent| parent.map(|node| node.id)), slots, grads);
            }
            Some(Node::Joint { joint, rank }) => joint.reach::<B>(rank, grads.consume::<B>(&node)),
            Some(Node::Link { joint, slots }) => {
                let parents = parents.map(|parent| parent.map(|node| node.id));
                let done = joint.with_gradients::<B>(|made| made.register(parents, slots, grads));
                done.unwrap_or_else(|error| raise(error));
            }
        }
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
        let state = done.node.take();
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
