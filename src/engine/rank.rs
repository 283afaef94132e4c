//! One rank of a pass, as the layer gives it and the kernels take it, with the plans of its
//! kernels.

use super::Mask;
use crate::device::{Device, Kind};
use crate::epilogue::Epilogue;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Memory as Pool};
use crate::plan::{Activation, ApplyPlan, Gradient, LayerFlags, MaskOrder, SumsPlan, lengths_of};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A layer on one device: weight and bias, (C) each, and its epilogue.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub weight: Option<&'a Tensor>,
    pub bias: Option<&'a Tensor>,
    pub epilogue: Epilogue,
    /// Added to the variance: where it is far above, a variance near 0 need not be known.
    pub eps: f64,
    /// Ranks of the host that one caller computes after each other, this one included.
    pub host_ranks: usize,
    /// Whether sums of a batch are of integers.
    pub reproducible: bool,
}

/// A layer and the mask of a call, as plans need them.
pub(super) fn layer_flags(layer: Layer<'_>, mask: Option<MaskOrder>) -> LayerFlags {
    LayerFlags {
        weight: layer.weight.is_some(),
        bias: layer.bias.is_some(),
        epilogue: layer.epilogue,
        mask,
    }
}

/// The lengths of padded samples, for the kernels of one call: in memory of its own, because an
/// encoder of the application may hold the call for long.
fn upload_lengths(gpu: &Gpu, shape: &Shape) -> Result<Option<BufferSlice>, Error> {
    let padding = shape.padding();
    padding.map(|padding| gpu.upload_uniform(&lengths_of(padding))).transpose()
}

/// Which steps of a pass are to be planned: those before the exchange, and those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub sums: bool,
    pub apply: bool,
}

/// The buffers that forward keeps on the devices for backward.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// One for each rank, where the layer keeps them.
    pub masks: Vec<Mask>,
    /// Of each rank, on a GPU where samples are padded.
    pub lengths: Vec<Option<BufferSlice>>,
}

/// One rank of forward.
pub(crate) struct ForwardRank<'a> {
    /// `None` where the pass is in place: x lies in y.
    pub x: Option<&'a Tensor>,
    pub shape: Shape,
    pub residual: Option<&'a Tensor>,
    pub layer: Layer<'a>,
    /// `None` where only statistics are wanted.
    pub y: Option<&'a mut Tensor>,
    /// Of any contents; it is filled.
    pub mask: Option<Mask>,
    /// On a GPU, where samples are padded: their lengths.
    pub lengths: Option<BufferSlice>,
    /// On a GPU, where the rank has values and they are wanted.
    pub sums: Option<Box<SumsPlan>>,
    pub apply: Option<ApplyPlan>,
}

impl<'a> ForwardRank<'a> {
    /// A rank of which the statistics are wanted; without plans.
    pub fn new(x: Option<&'a Tensor>, shape: Shape, layer: Layer<'a>) -> Self {
        Self {
            x,
            shape,
            residual: None,
            layer,
            y: None,
            mask: None,
            lengths: None,
            sums: None,
            apply: None,
        }
    }

    /// Makes the plans of a rank on the layer's device, and a mask of memory of the pool where one
    /// is kept; its other fields are set. Nothing that follows can find a limit exceeded.
    ///
    /// # Errors
    /// [`LimitError`](crate::error::LimitError) for tensors that the device cannot bind or
    /// dispatch.
    pub fn plan(
        &mut self,
        device: &Device,
        pool: Option<&Pool>,
        keeps_mask: bool,
        steps: Steps,
    ) -> Result<(), Error> {
        let Some(y) = self.y.as_deref().or(self.x).map(Tensor::dtype) else { return Ok(()) };
        let Kind::Gpu(gpu) = device.kind() else {
            self.mask = keeps_mask.then(|| Mask::on_host(&self.shape));
            return Ok(());
        };
        let caps = gpu.caps();
        let x = Activation { shape: &self.shape, dtype: self.x.map_or(y, Tensor::dtype) };
        let order = if keeps_mask { ApplyPlan::mask_order(x, y, caps) } else { None };
        self.lengths = upload_lengths(gpu, &self.shape)?;
        if steps.sums {
            let plan = if self.layer.reproducible {
                SumsPlan::integers(x, caps)?
            } else {
                SumsPlan::statistics(x, caps)?
            };
            self.sums = plan.map(Box::new);
        }
        if steps.apply && self.y.is_some() {
            let flags = layer_flags(self.layer, order);
            self.apply = ApplyPlan::normalize(x, y, caps, flags, self.x.is_none())?;
            self.mask = order.map(|order| Mask::on_gpu(gpu, x, order, pool)).transpose()?;
        }
        Ok(())
    }

    /// The buffers of these ranks that backward needs again.
    pub fn kept(ranks: Vec<Self>) -> Kept {
        let mut kept = Kept::default();
        for Self { mask, lengths, .. } in ranks {
            kept.masks.extend(mask);
            kept.lengths.push(lengths);
        }
        kept
    }

    /// x, also of a pass in place.
    pub fn x(&self) -> Option<&Tensor> {
        self.x.or(self.y.as_deref())
    }
}

/// One rank of backward; g is the gradient of y.
pub(crate) struct BackwardRank<'a> {
    pub x: &'a Tensor,
    pub shape: Shape,
    /// `None` where the pass is in place: g lies in `grad_input`.
    pub g: Option<&'a Tensor>,
    pub g_shape: Shape,
    /// Where it decides on which values the activation is active.
    pub residual: Option<&'a Tensor>,
    /// Forward's, which decides where there is one.
    pub mask: Option<Mask>,
    pub layer: Layer<'a>,
    /// Whether the statistics depend on x, or are constants.
    pub depends_on_batch: bool,
    pub grad_input: Option<&'a mut Tensor>,
    pub grad_residual: Option<&'a mut Tensor>,
    pub grad_weight: Option<&'a mut Tensor>,
    pub grad_bias: Option<&'a mut Tensor>,
    /// On a GPU, where samples are padded: their lengths, as forward has uploaded them.
    pub lengths: Option<BufferSlice>,
    /// On a GPU, where the rank has values and they are wanted.
    pub sums: Option<Box<SumsPlan>>,
    pub apply: Option<ApplyPlan>,
}

impl BackwardRank<'_> {
    /// Makes the plans of a rank on the layer's device; its other fields are set.
    ///
    /// # Errors
    /// [`LimitError`](crate::error::LimitError) for tensors that the device cannot bind or
    /// dispatch.
    pub fn plan(&mut self, device: &Device, steps: Steps) -> Result<(), Error> {
        let Kind::Gpu(gpu) = device.kind() else { return Ok(()) };
        let x = Activation { shape: &self.shape, dtype: self.x.dtype() };
        let g = Activation { shape: &self.g_shape, dtype: self.g().map_or(x.dtype, Tensor::dtype) };
        let flags = layer_flags(self.layer, self.mask.as_ref().and_then(Mask::order));
        if steps.sums {
            // With constant statistics the sums are the rank's own.
            let plan = if self.layer.reproducible && self.depends_on_batch {
                SumsPlan::gradient_integers(x, g, gpu.caps(), flags)?
            } else {
                SumsPlan::gradient(x, g, gpu.caps(), flags)?
            };
            self.sums = plan.map(Box::new);
        }
        if steps.apply && self.writes_activations() {
            let wanted = Gradient {
                batch_statistics: self.depends_on_batch,
                residual: self.grad_residual.is_some(),
                in_place: self.g.is_none(),
            };
            self.apply = ApplyPlan::gradient(x, g, gpu.caps(), flags, wanted)?;
        }
        Ok(())
    }

    /// g, also of a pass in place.
    pub fn g(&self) -> Option<&Tensor> {
        self.g.or(self.grad_input.as_deref())
    }

    /// Whether the gradient of x or of the residual is wanted.
    pub fn writes_activations(&self) -> bool {
        self.grad_input.is_some() || self.grad_residual.is_some()
    }
}
