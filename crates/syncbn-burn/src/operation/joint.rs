//! A call on several tensors in Burn's graph, whose nodes have one output each.
//!
//! Between inputs and outputs lies a chain of links, of which each has up to four of the inputs as
//! parents. All outputs have the last link as their parent. Burn goes from the deepest nodes
//! towards the leaves, so that the last link has its turn after every output that the loss depends
//! on: there all gradients are computed in one pass, and each link hands its own parents theirs.

use std::any::Any;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::TensorMetadata;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::tensor::CubeTensor;

use super::{Done, InMemory};
use crate::error::Error;
use crate::pass::{self, Saved, Wanted};

/// The role of a link's parent in the call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Slot {
    /// The x of a rank.
    X(usize),
    /// The residual of a rank.
    Residual(usize),
    Weight,
    Bias,
    /// The link before, or nothing.
    Other,
}

/// State that backward of the outputs of one call shares.
pub(crate) struct Joint {
    saved: Saved,
    state: Mutex<State>,
}

/// Gradients on their way; what has a type of the backend goes as `Any`.
struct State {
    /// Of each output, a backend's tensor, where the loss depends on the output.
    reached: Vec<Option<Box<dyn Any + Send>>>,
    /// [`Made`], of the backend.
    made: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joint").field("saved", &self.saved).finish_non_exhaustive()
    }
}

impl Joint {
    pub fn new(saved: Saved, ranks: usize) -> Self {
        let reached = (0..ranks).map(|_| None).collect();
        Self { saved, state: Mutex::new(State { reached, made: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the gradient of an output.
    pub fn reach<B: InMemory>(&self, rank: usize, grad: FloatTensor<B>) {
        if let Some(place) = self.state().reached.get_mut(rank) {
            *place = Some(Box::new(grad));
        }
    }

    /// Gives a link the gradients, which the first that asks computes.
    pub fn with_gradients<B: InMemory>(
        &self,
        register: impl FnOnce(&mut Made<B>),
    ) -> Result<(), Error> {
        let mut state = self.state();
        if state.made.is_none() {
            let reached = state.reached.iter_mut().map(|place| {
                let grad = place.take()?.downcast::<FloatTensor<B>>();
                grad.ok().map(|grad| *grad)
            });
            let reached: Vec<Option<FloatTensor<B>>> = reached.collect();
            state.made = self.compute::<B>(reached)?.map(|made| Box::new(made) as _);
        }
        let made = state.made.as_mut().and_then(|made| made.downcast_mut::<Made<B>>());
        // Without an output that the loss depends on no link is asked.
        made.map(register);
        Ok(())
    }

    fn compute<B: InMemory>(
        &self,
        reached: Vec<Option<FloatTensor<B>>>,
    ) -> Result<Option<Made<B>>, Error> {
        let Some(any) = reached.iter().flatten().next().cloned() else { return Ok(None) };
        let shapes = self.saved.shapes();
        let grads = reached.into_iter().zip(shapes).map(|(grad, shape)| {
            let zeros = || B::float_zeros(shape, &any.device(), any.dtype().into());
            B::into_cube(grad.unwrap_or_else(zeros))
        });
        // The link that computes does not know which gradients the parents want.
        let wanted = Wanted { x: true, residual: true };
        let made = self.saved.backward(grads.collect(), wanted)?;
        Ok(Some(Made::new(made, any)))
    }
}

/// Gradients of a call, as tensors of a backend.
pub(crate) struct Made<B: InMemory> {
    x: Vec<Option<CubeTensor>>,
    residual: Vec<Option<CubeTensor>>,
    weight: Option<CubeTensor>,
    bias: Option<CubeTensor>,
    /// A gradient that they come from.
    of: FloatTensor<B>,
}

impl<B: InMemory> Made<B> {
    pub fn new(made: pass::Gradients, of: FloatTensor<B>) -> Self {
        let pass::Gradients { x, residual, weight, bias } = made;
        let [x, residual] = [x, residual].map(|list| list.into_iter().map(Some).collect());
        Self { x, residual, weight: Some(weight), bias: Some(bias), of }
    }

    /// Gives each parent the gradient of its slot.
    pub fn register(
        &mut self,
        parents: [Option<NodeId>; 4],
        slots: [Slot; 4],
        grads: &mut Gradients,
    ) {
        for (parent, slot) in parents.into_iter().zip(slots) {
            let Some(parent) = parent else { continue };
            let made = match slot {
                Slot::X(rank) => self.x.get_mut(rank).and_then(Option::take),
                Slot::Residual(rank) => self.residual.get_mut(rank).and_then(Option::take),
                Slot::Weight => self.weight.take(),
                Slot::Bias => self.bias.take(),
                Slot::Other => None,
            };
            let Some(made) = made else { continue };
            let [x, gamma, beta, residual] = [&self.of; 4].map(Clone::clone);
            let gradient = B::batch_norm_output(x, gamma, beta, residual, Done::made(made));
            grads.register::<B>(parent, gradient);
        }
    }
}
