//! The steps of double backward on one device: its sums before the exchange, the gradients after
//! it.

use futures::future::{FutureExt, ready};

use super::rank::layer_flags;
use super::{BackwardRank, Layer, Mask, gpu, host};
use crate::device::{Device, Kind};
use crate::error::Error;
use crate::gpu::Pending;
use crate::plan::{Activation, ApplyPlan, DoubleGradient, SumsPlan};
use crate::shape::Shape;
use crate::stats::{DoubleCentering, GradCentering};
use crate::tensor::Tensor;

/// One rank of double backward. g is grad_output, v the cotangent of grad_input: both are stored
/// and lie as x does.
pub(crate) struct DoubleRank<'a> {
    pub x: &'a Tensor,
    pub shape: Shape,
    pub g: &'a Tensor,
    /// `None` for zeros.
    pub v: Option<&'a Tensor>,
    /// Where it decides on which values the activation is active.
    pub residual: Option<&'a Tensor>,
    /// Forward's, which decides where there is one.
    pub mask: Option<Mask>,
    pub layer: Layer<'a>,
    /// The cotangents of the gradients of weight and bias, (C) f32; `None` for zeros.
    pub parameters: [Option<&'a Tensor>; 2],
    /// The gradient with respect to x.
    pub input: Option<&'a mut Tensor>,
    /// The gradient with respect to grad_output.
    pub grad_output: Option<&'a mut Tensor>,
    /// The gradient with respect to the weight, where a device makes it.
    pub weight: Option<&'a mut Tensor>,
    /// On a GPU, where the rank has values and there is a v.
    pub sums: Option<Box<SumsPlan>>,
    /// On a GPU, the kernel of either gradient that is wanted.
    pub applies: Vec<(DoubleGradient, ApplyPlan)>,
}

/// A rank of double backward, and the backward pass whose sums it needs.
pub(crate) struct DoublePair<'r> {
    pub backward: BackwardRank<'r>,
    pub double: DoubleRank<'r>,
}

impl DoubleRank<'_> {
    /// Makes the plans of a rank on the layer's device; its other fields are set.
    ///
    /// # Errors
    /// [`LimitError`](crate::error::LimitError) for tensors that the device cannot bind or
    /// dispatch.
    pub fn plan(&mut self, device: &Device) -> Result<(), Error> {
        let Kind::Gpu(gpu) = device.kind() else { return Ok(()) };
        let x = Activation { shape: &self.shape, dtype: self.x.dtype() };
        let flags = layer_flags(self.layer, self.mask.as_ref().and_then(Mask::order));
        let has_cotangent = self.v.is_some();
        if has_cotangent {
            self.sums = SumsPlan::double(x, gpu.caps(), flags)?.map(Box::new);
        }
        let wanted = [
            (DoubleGradient::Input, self.input.is_some()),
            (DoubleGradient::GradOutput, self.grad_output.is_some()),
        ];
        for (of, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            let plan = ApplyPlan::double(x, gpu.caps(), flags, of, has_cotangent)?;
            self.applies.extend(plan.map(|plan| (of, plan)));
        }
        Ok(())
    }
}

/// Local sums of one rank, `[channel]`: Σv, Σ v·(x − pivot), and
/// Σ v·(g − mean_dy − (x − mean)·projection) with what is sent. A GPU has its work when this
/// returns; the host is done.
pub(crate) fn double_sums(
    device: &Device,
    rank: &mut DoubleRank<'_>,
    centering: Vec<GradCentering>,
) -> Result<Pending<Vec<[f64; 3]>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::double_sums(gpu, device.deadline(), rank, centering),
        Kind::Host(threads) => Ok(ready(Ok(host::double_sums(rank, &centering, threads))).boxed()),
    }
}

/// The gradients of one rank that are wanted.
pub(crate) fn double_gradients(
    device: &Device,
    rank: &mut DoubleRank<'_>,
    centering: &[DoubleCentering],
) -> Result<Pending<()>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::double_gradients(gpu, rank, centering),
        Kind::Host(threads) => {
            host::double_gradients(rank, centering, threads);
            Ok(ready(Ok(())).boxed())
        }
    }
}
