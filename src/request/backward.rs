//! The request of a backward pass.

use std::marker::PhantomData;

use super::{Inputs, Named, Source};
use crate::tensor::{List, ListMut, Output, Ranks, RanksMut, Target, Tensor};
#[cfg(feature = "gpu")]
use crate::workspace::Workspace;

/// The tensors that a backward pass reads, and the targets of the gradients.
///
/// Without a target the call computes all gradients, allocates them and returns them. With at least
/// one target it computes only what has a target. A target may be an `Option`, because an autograd
/// knows at run time what it wants. The exchange takes place in any case.
#[derive(Debug)]
#[must_use = "a request does nothing until a layer gets it"]
pub struct Backward<'a, O: Output = Tensor> {
    pub(crate) parts: BackwardParts<'a>,
    kind: PhantomData<fn() -> O>,
}

/// A [`Backward`] without the type of its result.
#[derive(Debug)]
pub(crate) struct BackwardParts<'a> {
    pub inputs: Inputs<'a>,
    pub grad_output: Source<'a>,
    /// `None` where all gradients are to be made.
    pub targets: Option<Targets<'a>>,
    pub accumulate: bool,
}

impl BackwardParts<'_> {
    /// The tensors that are only read.
    pub fn read(&self) -> Named<'_> {
        let Inputs { x, residual, .. } = &self.inputs;
        let residual = residual.iter().flat_map(|list| list.iter()).collect();
        let read = [("x", x.iter().collect()), ("residual", residual)];
        let grad_output = match &self.grad_output {
            Source::Read(list) => Some(("grad_output", list.iter().collect())),
            Source::InPlace(_) => None,
        };
        read.into_iter().chain(grad_output).collect()
    }

    /// The caller's tensors that are written.
    pub fn written(&self) -> Named<'_> {
        let in_place = match &self.grad_output {
            Source::InPlace(list) => Some(list),
            Source::Read(_) => None,
        };
        let targets = self.targets.iter().flat_map(|targets| {
            let named = [("input_gradient", &targets.input), ("weight_gradient", &targets.weight)];
            let more = [("bias_gradient", &targets.bias), ("residual_gradient", &targets.residual)];
            named.into_iter().chain(more).filter_map(|(name, list)| Some((name, list.as_ref()?)))
        });
        let written = in_place.map(|list| ("grad_output", list)).into_iter().chain(targets);
        written.map(|(name, list)| (name, list.iter().collect())).collect()
    }
}

/// The targets of gradients; `None` for a gradient that is not wanted.
#[derive(Debug, Default)]
pub(crate) struct Targets<'a> {
    pub input: Option<ListMut<'a>>,
    pub weight: Option<ListMut<'a>>,
    pub bias: Option<ListMut<'a>>,
    pub residual: Option<ListMut<'a>>,
}

impl<'a> Backward<'a> {
    /// Takes the x of forward, unchanged, and grad_output, the gradient of y. grad_output has the
    /// dimensions of x. It may have the other layout. It may be f32 with an x of 16 bits, or the
    /// other way round.
    pub fn of<X: Ranks<'a>>(
        x: X,
        grad_output: impl Ranks<'a, Output = X::Output>,
    ) -> Backward<'a, X::Output> {
        Backward::new(x.list(), Source::Read(grad_output.list()), None)
    }

    /// Overwrites grad_output, which has the layout and storage type of x, with the gradient of x.
    /// Other gradients go to their targets.
    pub fn in_place(x: impl Ranks<'a>, grad_output: impl RanksMut<'a>) -> Backward<'a, ()> {
        Backward::new(x.list(), Source::InPlace(grad_output.list()), Some(Targets::default()))
    }
}

impl<'a, O: Output> Backward<'a, O> {
    fn new(x: List<'a>, grad_output: Source<'a>, targets: Option<Targets<'a>>) -> Self {
        let inputs = Inputs::of(x);
        let parts = BackwardParts { inputs, grad_output, targets, accumulate: false };
        Self { parts, kind: PhantomData }
    }

    fn with_target(self, name: impl FnOnce(&mut Targets<'a>)) -> Backward<'a, ()> {
        let mut parts = self.parts;
        name(parts.targets.get_or_insert_default());
        Backward { parts, kind: PhantomData }
    }

    /// The residual of forward. It is needed if
    /// [`Saved::needs_residual`](crate::Saved::needs_residual) says so.
    pub fn residual(mut self, residual: impl Ranks<'a>) -> Self {
        self.parts.inputs.residual = Some(residual.list());
        self
    }

    /// Says that x and the residual are other tensors than those of forward, with the same values:
    /// loaded again, or computed again.
    ///
    /// Without it another tensor is refused, because it usually is a mistake. With it only
    /// dimensions, layout and storage type are compared. Other values then give wrong gradients.
    pub fn recomputed(mut self) -> Self {
        self.parts.inputs.recomputed = true;
        self
    }

    /// The target of the gradient of x, with the dimensions, layout and storage type of x.
    pub fn input_gradient(self, target: impl Target<'a>) -> Backward<'a, ()> {
        self.with_target(|targets| targets.input = target.target())
    }

    /// The target of the gradient of the weight, (C) f32 on each rank.
    pub fn weight_gradient(self, target: impl Target<'a>) -> Backward<'a, ()> {
        self.with_target(|targets| targets.weight = target.target())
    }

    /// The target of the gradient of the bias, (C) f32 on each rank.
    pub fn bias_gradient(self, target: impl Target<'a>) -> Backward<'a, ()> {
        self.with_target(|targets| targets.bias = target.target())
    }

    /// The target of the gradient of the residual, with the dimensions, layout and storage type of
    /// x.
    pub fn residual_gradient(self, target: impl Target<'a>) -> Backward<'a, ()> {
        self.with_target(|targets| targets.residual = target.target())
    }

    /// Records the pass into an encoder of the application: see
    /// [`Forward::encode`](super::Forward::encode).
    #[cfg(feature = "gpu")]
    pub fn encode(
        mut self,
        encoder: &'a mut wgpu::CommandEncoder,
        workspace: &'a mut Workspace,
    ) -> Self {
        self.parts.inputs.encode = Some((encoder, workspace));
        self
    }
}

impl Backward<'_, ()> {
    /// Adds the gradients of weight and bias to the values of their targets, instead of replacing
    /// them.
    /// Each gradient is rounded to f32 first. The gradients of x and of the residual are replaced
    /// as usual. A gradient without a target is not computed, here as elsewhere.
    pub fn accumulate(mut self) -> Self {
        self.parts.accumulate = true;
        self
    }
}
