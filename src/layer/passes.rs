//! The passes of a layer.

use super::backward::{BackwardCall, backward_of};
use super::double::double_backward_of;
use super::forward::{ForwardCall, forward_of};
use super::{Failure, SyncBatchNorm};
use crate::config::Mode;
use crate::error::Error;
use crate::request::{Backward, DoubleBackward, DoubleGradients, Forward, Gradients, Normalized};
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

    /// The gradients of a backward call: second derivatives, of the whole batch over all ranks.
    ///
    /// With the cotangents v of grad_input, u of grad_weight and q of grad_bias it is the gradient
    /// of Σ v·grad_input + u·grad_weight + q·grad_bias, summed over all ranks, with respect to x,
    /// grad_output and weight. A cotangent that is not given is 0. With s = inv_std,
    /// h = (x − mean)·s, g = grad_output·act'(v), A = Σg, B = Σ g·h, V = Σv, H = Σ v·h,
    /// P = Σ v·(g − A/N − h·B/N), U₀ = Σ u·g, U₁ = Σ u·g·h and N values per channel over all ranks:
    ///
    /// ```text
    /// grad_output = act'·(weight·s·(v − V/N − h·H/N) + u·h + q)
    /// input       = s·(u·g − U₀/N − h·U₁/N)
    ///               − (weight·s²/N)·(H·(g − A/N) + B·(v − V/N) + h·(P − 2·B·H/N))
    /// weight      = s·P, the part of each rank
    /// ```
    ///
    /// They are the derivatives of the formulas of [`backward`](Self::backward). Σh² = N is not
    /// used in them, because eps makes it false. The tests compare them with a definition in f64,
    /// and that with finite differences.
    ///
    /// Where running statistics normalized, they are constants: only u, q and weight·s·v remain.
    /// Gradients that [`AffineGradient`](crate::config::AffineGradient) sums over the group are
    /// differentiated as such. It makes one exchange where the forward call made one. A backward
    /// pass need not have run.
    ///
    /// The range of x and grad_output is that of backward: products grad_output·(x − mean) are
    /// within f32. Coefficients are f32: a gradient whose coefficients, such as weight·s²·B/N, are
    /// beyond f32 is NaN in that channel.
    ///
    /// ```
    /// use syncbn::{BatchNormConfig, Device, DoubleBackward, SyncBatchNorm};
    ///
    /// # pollster::block_on(async {
    /// let device = Device::host();
    /// let bn = SyncBatchNorm::new(BatchNormConfig::torch(1).with_eps(1.0), [device.clone()])?;
    /// let x = device.upload(&[2, 1], &[-1.0f32, 1.0])?;
    /// let dy = device.upload(&[2, 1], &[1.0f32, 0.0])?;
    /// let saved = bn.forward_train(&x).await?.saved;
    /// // The cotangent of grad_input, such as 2·grad_input of a penalty Σ grad_input².
    /// let v = device.upload(&[2, 1], &[1.0f32, 0.0])?;
    /// let second = bn.double_backward(&saved, DoubleBackward::of(&x, &dy).input_cotangent(&v));
    /// // grad_input = s·(g − A/N − h·B/N) is linear in grad_output, and h = ±√½: ¼·√½.
    /// let ggo = second.await?.grad_output.to_vec().await?;
    /// assert!((ggo[0] - 0.176_777).abs() < 1e-6 && (ggo[1] + 0.176_777).abs() < 1e-6);
    /// # Ok::<(), syncbn::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`backward`](Self::backward);
    /// [`ArgumentError::NotWanted`](crate::error::ArgumentError::NotWanted) for a layer whose
    /// activation has a second derivative, for one that is reproducible or renormalizes, and for
    /// padded samples.
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train).
    pub async fn double_backward<O: Output>(
        &self,
        saved: &Saved,
        request: DoubleBackward<'_, O>,
    ) -> Result<DoubleGradients<O>, Error> {
        double_backward_of(self, saved, request.parts).await.map_err(|failure| failure.error)
    }
}
