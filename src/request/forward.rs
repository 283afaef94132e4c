//! The request of a forward pass.

use std::marker::PhantomData;

use super::{Encode, Lengths, Named, Source};
use crate::tensor::{Allocated, List, ListMut, Output, Ranks, RanksMut, Tensor};
#[cfg(feature = "gpu")]
use crate::workspace::Workspace;

/// The tensors that a forward pass reads, and the targets that it writes.
///
/// A request is made of one tensor, which is one rank, or of a list with one tensor per rank: `&x`,
/// `&[x, …]`, `&vec`, `[&x, …]`. If nothing else has to be said, these are requests themselves:
/// `layer.forward_train(&x)`. The type `O` is that of the result: a [`Tensor`] for one tensor, a
/// `Vec<Tensor>` for a list, `()` if the caller gave the targets.
///
/// ```
/// use syncbn::{BatchNormConfig, Device, Forward, SyncBatchNorm};
///
/// # pollster::block_on(async {
/// let host = Device::host();
/// let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?;
/// let x = host.upload(&[2, 1], &[1.0f32, 3.0])?;
/// let mut y = host.zeros(&[2, 1])?;
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

/// A [`Forward`] without the type of its result.
#[derive(Debug)]
pub(crate) struct ForwardParts<'a> {
    pub x: Source<'a>,
    pub residual: Option<List<'a>>,
    /// Of padded samples, one list per rank.
    pub lengths: Option<Vec<Vec<u32>>>,
    pub output: Option<ListMut<'a>>,
    pub encode: Encode<'a>,
    pub untracked: bool,
    pub running: RunningTensors<'a>,
}

/// Running statistics of the caller's, mean and variance; `next` gets them after the batch.
#[derive(Debug, Default)]
pub(crate) struct RunningTensors<'a> {
    pub now: Option<[&'a Tensor; 2]>,
    pub next: Option<[&'a mut Tensor; 2]>,
}

impl<'a> Forward<'a> {
    /// Normalizes x into tensors that the call allocates. x is of shape (N, C, spatial…) or (N,
    /// spatial…, C) on each rank.
    pub fn of<X: Ranks<'a>>(x: X) -> Forward<'a, X::Output> {
        Forward::new(Source::Read(x.list()))
    }

    /// Overwrites x with y. Backward refuses the `saved` of such a call, because x is gone. Use it
    /// for a call that is never differentiated, or if the program can make x again.
    pub fn in_place(x: impl RanksMut<'a>) -> Forward<'a, ()> {
        Forward::new(Source::InPlace(x.list()))
    }
}

impl<'a, O: Output> Forward<'a, O> {
    fn new(x: Source<'a>) -> Self {
        let parts = ForwardParts {
            x,
            residual: None,
            lengths: None,
            output: None,
            encode: None,
            untracked: false,
            running: RunningTensors::default(),
        };
        Self { parts, kind: PhantomData }
    }

    /// The residual, which the layer adds before the activation. It has the dimensions, layout
    /// and storage type of x.
    pub fn residual(mut self, residual: impl Ranks<'a>) -> Self {
        self.parts.residual = Some(residual.list());
        self
    }

    /// Says that samples are padded: of sample n only the first `lengths[n]` positions of the first
    /// spatial axis count, T in (N, C, T, …) and (N, T, …, C), with 0 ≤ `lengths[n]` ≤ T.
    ///
    /// `&[3, 0, 5]` is of one rank; a list with one slice per rank is of several. The call copies
    /// them. Only positions that count enter counts, statistics and gradient sums. Elsewhere y, the
    /// gradient of x and that of the residual are 0, in evaluation too, whatever lies there in x,
    /// grad_output and the residual, NaN included. [`Saved`](crate::Saved) keeps the lengths, so
    /// backward takes none. A rank whose samples are all of length 0 is an empty rank.
    ///
    /// On a GPU every padded sample has sums of its own, of 16 bytes per channel (48 if the layer
    /// is reproducible), and at least one word per channel and lane of a mask. They must fit one
    /// binding: 8 million samples · channels (2.7 million) with the portable limit of 128 MiB, a
    /// [`LimitError`](crate::error::LimitError) beyond. A batch without a padded sample has no such
    /// limit. Many samples of a few steps each are faster packed as (M, C), without lengths.
    ///
    /// ```
    /// use syncbn::{BatchNormConfig, Device, Forward, SyncBatchNorm};
    ///
    /// # pollster::block_on(async {
    /// let host = Device::host();
    /// let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?;
    /// // Two samples of at most three steps; the first has two, the second one.
    /// let x = host.upload(&[2, 1, 3], &[1.0f32, 3.0, f32::NAN, 5.0, f32::NAN, 1e30])?;
    /// let forward = bn.forward_train(Forward::of(&x).lengths(&[2, 1])).await?;
    /// let global = forward.saved.statistics().unwrap();
    /// assert_eq!((global.count(), global.channels()[0].mean), (3, 3.0));
    /// let y = forward.output.to_vec().await?;
    /// assert_eq!((y[2], &y[4..]), (0.0, &[0.0, 0.0][..]));
    /// # Ok::<(), syncbn::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn lengths(mut self, lengths: impl Lengths) -> Self {
        self.parts.lengths = Some(lengths.lists());
        self
    }

    /// Leaves the running statistics and their counter as they are. Activation checkpointing uses
    /// it when it runs the forward pass again. All ranks must say so.
    pub fn untracked(mut self) -> Self {
        self.parts.untracked = true;
        self
    }

    /// Takes running mean and variance, (C) f32 each, of the caller instead of the layer's, which
    /// stay as they are and may be absent. Evaluation normalizes with them.
    ///
    /// Only [`BatchNorm`](crate::BatchNorm) takes them. Where a call takes them,
    /// [`Saved::mean_and_inv_std`](crate::Saved::mean_and_inv_std) is `None`.
    pub fn running_stats(mut self, mean: &'a Tensor, var: &'a Tensor) -> Self {
        self.parts.running.now = Some([mean, var]);
        self
    }

    /// Where training writes the running mean and variance after the batch: beside those of
    /// [`running_stats`](Self::running_stats), which a framework of immutable tensors keeps. The
    /// momentum must not be cumulative, since there is no counter. If no rank has a value, they are
    /// written as they were.
    pub fn write_running_stats_to(mut self, mean: &'a mut Tensor, var: &'a mut Tensor) -> Self {
        self.parts.running.next = Some([mean, var]);
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

impl ForwardParts<'_> {
    /// Ranks of the request.
    pub fn ranks(&self) -> usize {
        match &self.x {
            Source::Read(list) => list.len(),
            Source::InPlace(list) => list.len(),
        }
    }

    /// Bytes of every x together.
    pub fn bytes(&self) -> u64 {
        self.x.tensors().iter().map(|x| x.size_bytes()).sum()
    }

    /// The tensors that are only read.
    pub fn read(&self) -> Named<'_> {
        let x = match &self.x {
            Source::Read(list) => Some(("x", list.iter().collect())),
            Source::InPlace(_) => None,
        };
        let residual = self.residual.as_ref().map(|list| ("residual", list.iter().collect()));
        x.into_iter().chain(residual).collect()
    }

    /// The caller's tensors that are written.
    pub fn written(&self) -> Named<'_> {
        let in_place = match &self.x {
            Source::InPlace(list) => Some(("x", list)),
            Source::Read(_) => None,
        };
        let output = self.output.as_ref().map(|list| ("output", list));
        in_place
            .into_iter()
            .chain(output)
            .map(|(name, list)| (name, list.iter().collect()))
            .collect()
    }
}
