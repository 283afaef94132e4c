//! The passes of a layer.

use super::backward::{BackwardCall, backward_of};
use super::forward::{ForwardCall, forward_of};
use super::{Failure, SyncBatchNorm};
use crate::config::Mode;
use crate::error::Error;
use crate::request::{Backward, Forward, Gradients, Normalized};
use crate::saved::Saved;
use crate::tensor::Output;

impl SyncBatchNorm {
    /// Normalizes with the statistics of all ranks, and updates the running statistics with them.
    ///
    /// y = act(weight·(x − mean)/√(var + eps) + bias + residual) with the mean and biased variance
    /// over all ranks (Ioffe and Szegedy, 2015, algorithm 1). With
    /// `use_batch_statistics = Some(false)` the running statistics normalize instead.
    ///
    /// # Errors
    /// [`ArgumentError`](crate::error::ArgumentError) for tensors that do not fit the layer,
    /// [`BatchError`](crate::error::BatchError) for one value per channel on all ranks together,
    /// [`LimitError`](crate::error::LimitError) for a tensor that its device cannot bind,
    /// [`GpuError`](crate::error::GpuError) when a device fails, and in a process group
    /// [`ExchangeError`](crate::error::ExchangeError) when a rank is late, has left, or makes
    /// another call. Every rank gets one within the deadline, and the group refuses further work.
    /// An error of one rank fails the others too. The running statistics change only if the
    /// exchange succeeds, and then on every rank.
    ///
    /// # Cancel safety
    /// If a call in a process group is dropped before it is ready, it notifies the other ranks, and
    /// the group refuses further work. Give the group a
    /// [deadline](crate::ProcessGroup::with_deadline) instead of a timeout around the call. Targets
    /// may be partly written.
    pub async fn forward_train<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(request.into(), Mode::Train).await
    }

    /// Normalizes with the running statistics, each rank for itself.
    ///
    /// Two settings change that, as in their frameworks. Without `track_running_stats` each rank
    /// uses its own batch (PyTorch). With `use_batch_statistics = Some(true)` the batch of all
    /// ranks normalizes and updates the running statistics, as in training (MindSpore).
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train) where it communicates; otherwise only its targets
    /// are affected.
    pub async fn forward_eval<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(request.into(), Mode::Eval).await
    }

    async fn forward<O: Output>(
        &self,
        request: Forward<'_, O>,
        mode: Mode,
    ) -> Result<Normalized<O>, Error> {
        Failure::single(
            forward_of(vec![ForwardCall { layer: self, parts: request.parts }], mode).await,
        )
    }

    /// The gradients of a forward call, from the gradients of its outputs.
    ///
    /// With g = grad_output·act'(v), A = Σg, B = Σ g·(x − mean), N values per channel over all
    /// ranks (Ioffe and Szegedy, 2015, section 3, with the sums over all ranks):
    ///
    /// ```text
    /// input  = weight·inv_std·(g − A/N − (x − mean)·inv_std²·B/N)
    /// weight = inv_std·Σ g·(x − mean)      bias = Σg      residual = g
    /// ```
    ///
    /// The last two sums are over the rank. If the forward call communicated,
    /// [`AffineGradient`](crate::config::AffineGradient) decides. Running statistics are constants:
    /// if they normalized, input = g·weight·inv_std. Backward needs the unchanged x of forward, and
    /// the residual if [`Saved::needs_residual`] is true.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train);
    /// [`ArgumentError::NotSaved`](crate::error::ArgumentError::NotSaved) for tensors or
    /// parameters that are not those of the saved call, or were written since. The layer itself is
    /// never changed.
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train).
    pub async fn backward<O: Output>(
        &self,
        saved: &Saved,
        request: Backward<'_, O>,
    ) -> Result<Gradients<O>, Error> {
        Failure::single(
            backward_of(vec![BackwardCall { layer: self, saved, parts: request.parts }]).await,
        )
    }
}
