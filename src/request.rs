//! What a pass takes and what it gives back. The requests are the same for both layers.

use std::marker::PhantomData;

use crate::saved::Saved;
use crate::stats::BackwardReport;
use crate::tensor::{Allocated, List, ListMut, Output, Ranks, RanksMut, Target, Tensor, Tensors};
#[cfg(feature = "gpu")]
use crate::workspace::Workspace;

/// An encoder of the application's, and the memory of calls recorded into it.
#[cfg(feature = "gpu")]
pub(crate) type Encode<'a> = Option<(&'a mut wgpu::CommandEncoder, &'a mut Workspace)>;
/// There is none.
#[cfg(not(feature = "gpu"))]
pub(crate) type Encode<'a> = Option<&'a mut std::convert::Infallible>;

/// Tensors that a call only reads, or that it writes its result over.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Read(List<'a>),
    Over(ListMut<'a>),
}

impl Source<'_> {
    /// The tensors in rank order.
    pub fn tensors(&self) -> Tensors<'_> {
        match self {
            Self::Read(list) => list.iter().collect(),
            Self::Over(list) => list.iter().collect(),
        }
    }
}

/// Tensors of a request by the name of their argument.
pub(crate) type Named<'t> = Vec<(&'static str, Vec<&'t Tensor>)>;

impl ForwardParts<'_> {
    /// Ranks of the request.
    pub fn ranks(&self) -> usize {
        match &self.x {
            Source::Read(list) => list.len(),
            Source::Over(list) => list.len(),
        }
    }

    /// Bytes of every x together.
    pub fn bytes(&self) -> u64 {
        self.x.tensors().iter().map(|x| x.size_bytes()).sum()
    }

    /// What is only read.
    pub fn read(&self) -> Named<'_> {
        let x = match &self.x {
            Source::Read(list) => Some(("x", list.iter().collect())),
            Source::Over(_) => None,
        };
        let residual = self.residual.as_ref().map(|list| ("residual", list.iter().collect()));
        x.into_iter().chain(residual).collect()
    }

    /// What is written of the caller's tensors.
    pub fn written(&self) -> Named<'_> {
        let over = match &self.x {
            Source::Over(list) => Some(("x", list)),
            Source::Read(_) => None,
        };
        let output = self.output.as_ref().map(|list| ("output", list));
        over.into_iter().chain(output).map(|(name, list)| (name, list.iter().collect())).collect()
    }
}

/// What a forward pass reads and where it writes.
///
/// A request is made of one tensor, which is one rank, or of a list with one tensor per rank: `&x`,
/// `&[x, …]`, `&vec`, `[&x, …]`. If nothing else has to be said, these are requests themselves:
/// `layer.forward_train(&x)`. The type `O` is what comes back: a [`Tensor`] for one tensor, a
/// `Vec<Tensor>` for a list, `()` if the caller gave the targets.
///
/// ```
/// use syncbn::{BatchNormConfig, Device, Forward, SyncBatchNorm};
///
/// # pollster::block_on(async {
/// let host = Device::host();
/// let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?;
/// let (x, mut y) = (host.upload(&[2, 1], &[1.0f32, 3.0])?, host.zeros(&[2, 1])?);
/// let allocated = bn.forward_train(&x).await?.output;
/// bn.forward_train(Forward::of(&x).write_to(&mut y)).await?;
/// assert_eq!(y.to_vec().await?, allocated.to_vec().await?);
/// # Ok::<(), syncbn::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a request does nothing until a layer gets it"]
pub struct Forward<'a, O: Output = Tensor> {
    pub(crate) parts: ForwardParts<'a>,
    kind: PhantomData<fn() -> O>,
}

/// A [`Forward`] without the type of what comes back.
#[derive(Debug)]
pub(crate) struct ForwardParts<'a> {
    pub x: Source<'a>,
    pub residual: Option<List<'a>>,
    pub output: Option<ListMut<'a>>,
    pub encode: Encode<'a>,
    pub untracked: bool,
}

impl<'a> Forward<'a> {
    /// Normalizes x into tensors that the call allocates. x is of shape (N, C, spatial…) or (N,
    /// spatial…, C) on each rank.
    pub fn of<X: Ranks<'a>>(x: X) -> Forward<'a, X::Output> {
        Forward::new(Source::Read(x.list()))
    }

    /// Writes y over x. Backward refuses what such a call has saved, because x is gone. Use it for
    /// a call that is never differentiated, or if the program can make x again.
    pub fn in_place(x: impl RanksMut<'a>) -> Forward<'a, ()> {
        Forward::new(Source::Over(x.list()))
    }
}

impl<'a, O: Output> Forward<'a, O> {
    fn new(x: Source<'a>) -> Self {
        let parts =
            ForwardParts { x, residual: None, output: None, encode: None, untracked: false };
        Self { parts, kind: PhantomData }
    }

    /// The residual, which the epilogue adds before the activation. It has the dimensions, layout
    /// and storage type of x.
    pub fn residual(mut self, residual: impl Ranks<'a>) -> Self {
        self.parts.residual = Some(residual.list());
        self
    }

    /// Leaves the running statistics and their counter as they are. Activation checkpointing uses
    /// it when it runs the forward pass again. All ranks must say so.
    pub fn untracked(mut self) -> Self {
        self.parts.untracked = true;
        self
    }

    /// Records the pass into an encoder of the application instead of submitting it.
    ///
    /// Only [`BatchNorm`](crate::BatchNorm) takes it. A [`SyncBatchNorm`](crate::SyncBatchNorm) has
    /// to read results back, and refuses it. The encoder must belong to the layer's device, and so
    /// to its `wgpu::Instance`: otherwise wgpu ends the program.
    #[cfg(feature = "gpu")]
    pub fn encode(
        mut self,
        encoder: &'a mut wgpu::CommandEncoder,
        workspace: &'a mut Workspace,
    ) -> Self {
        self.parts.encode = Some((encoder, workspace));
        self
    }
}

impl<'a, O: Allocated> Forward<'a, O> {
    /// The tensors that y is written to. They have the dimensions, layout and device of x, and
    /// memory of their own. Their storage type is that of x or f32; if x is f32, any.
    pub fn write_to(self, output: impl RanksMut<'a>) -> Forward<'a, ()> {
        let parts = ForwardParts { output: Some(output.list()), ..self.parts };
        Forward { parts, kind: PhantomData }
    }
}

impl<'a, X: Ranks<'a>> From<X> for Forward<'a, X::Output> {
    fn from(x: X) -> Self {
        Forward::new(Source::Read(x.list()))
    }
}

/// What a backward pass reads and where the gradients go.
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

/// A [`Backward`] without the type of what comes back.
#[derive(Debug)]
pub(crate) struct BackwardParts<'a> {
    pub x: List<'a>,
    pub grad_output: Source<'a>,
    pub residual: Option<List<'a>>,
    /// `None` where all gradients are to be made.
    pub targets: Option<Targets<'a>>,
    pub accumulate: bool,
    pub recomputed: bool,
    pub encode: Encode<'a>,
}

impl BackwardParts<'_> {
    /// Bytes of every x together.
    pub fn bytes(&self) -> u64 {
        self.x.iter().map(Tensor::size_bytes).sum()
    }

    /// What is only read.
    pub fn read(&self) -> Named<'_> {
        let residual = self.residual.iter().flat_map(|list| list.iter()).collect();
        let read = [("x", self.x.iter().collect()), ("residual", residual)];
        let grad_output = match &self.grad_output {
            Source::Read(list) => Some(("grad_output", list.iter().collect())),
            Source::Over(_) => None,
        };
        read.into_iter().chain(grad_output).collect()
    }

    /// What is written of the caller's tensors.
    pub fn written(&self) -> Named<'_> {
        let over = match &self.grad_output {
            Source::Over(list) => Some(list),
            Source::Read(_) => None,
        };
        let targets = self.targets.iter().flat_map(|targets| {
            let named = [("input_gradient", &targets.input), ("weight_gradient", &targets.weight)];
            let more = [("bias_gradient", &targets.bias), ("residual_gradient", &targets.residual)];
            named.into_iter().chain(more).filter_map(|(name, list)| Some((name, list.as_ref()?)))
        });
        let written = over.map(|list| ("grad_output", list)).into_iter().chain(targets);
        written.map(|(name, list)| (name, list.iter().collect())).collect()
    }
}

/// Where gradients go; what is `None` is not wanted.
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

    /// Writes the gradient of x over grad_output, which has the layout and storage type of x. Other
    /// gradients go to their targets.
    pub fn in_place(x: impl Ranks<'a>, grad_output: impl RanksMut<'a>) -> Backward<'a, ()> {
        Backward::new(x.list(), Source::Over(grad_output.list()), Some(Targets::default()))
    }
}

impl<'a, O: Output> Backward<'a, O> {
    fn new(x: List<'a>, grad_output: Source<'a>, targets: Option<Targets<'a>>) -> Self {
        let (accumulate, recomputed) = (false, false);
        let parts = BackwardParts {
            x,
            grad_output,
            residual: None,
            targets,
            accumulate,
            recomputed,
            encode: None,
        };
        Self { parts, kind: PhantomData }
    }

    fn with_target(self, name: impl FnOnce(&mut Targets<'a>)) -> Backward<'a, ()> {
        let mut parts = self.parts;
        name(parts.targets.get_or_insert_default());
        Backward { parts, kind: PhantomData }
    }

    /// The residual of forward. It is needed if [`Saved::needs_residual`] says so.
    pub fn residual(mut self, residual: impl Ranks<'a>) -> Self {
        self.parts.residual = Some(residual.list());
        self
    }

    /// Says that x and the residual are other tensors than those of forward, with the same values:
    /// loaded again, or computed again.
    ///
    /// Without it another tensor is refused, because it usually is a mistake. With it only
    /// dimensions, layout and storage type are compared. Other values then give wrong gradients.
    pub fn recomputed(mut self) -> Self {
        self.parts.recomputed = true;
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

    /// Records the pass into an encoder of the application: see [`Forward::encode`].
    #[cfg(feature = "gpu")]
    pub fn encode(
        mut self,
        encoder: &'a mut wgpu::CommandEncoder,
        workspace: &'a mut Workspace,
    ) -> Self {
        self.parts.encode = Some((encoder, workspace));
        self
    }
}

impl Backward<'_, ()> {
    /// Adds the gradients of weight and bias to what their targets hold, instead of replacing it.
    /// Each gradient is rounded to f32 first. The gradients of x and of the residual are replaced
    /// as usual.
    pub fn accumulate(mut self) -> Self {
        self.parts.accumulate = true;
        self
    }
}

/// What a forward pass returns.
#[derive(Debug)]
#[non_exhaustive]
pub struct Normalized<O = Tensor> {
    /// y, with the dimensions, layout, storage type and device of x; `()` if the caller gave the
    /// targets.
    pub output: O,
    /// What backward needs of this call.
    pub saved: Saved,
}

/// What a backward pass returns.
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
