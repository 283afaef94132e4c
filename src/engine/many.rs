//! The phases of forward for several layers on one device: a GPU gets all of a phase in one submission.

use futures::future::{FutureExt, ready, try_join_all};

use super::{Layer, Mask, Source, View, apply, device_slice, gpu, host, misplaced, misplaced_on};
use crate::device::{Device, Kind};
use crate::error::Error;
use crate::gpu::Pending;
use crate::plan::Activation;
use crate::stats::{Centering, ChannelStats};
use crate::tensor::{Storage, Tensor};

/// Local statistics of every activation, `[activation][channel]`; all lie on one device. `eps` is that of each one's layer.
pub(crate) fn local_stats_many(
    device: &Device,
    xs: &[View<'_>],
    eps: &[f64],
) -> Result<Pending<Vec<Vec<ChannelStats>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => {
            let mut activations = Vec::with_capacity(xs.len());
            for x in xs {
                let slice = device_slice(Some(x.tensor)).ok_or_else(|| misplaced(x.tensor))?;
                activations.push((slice, x.activation()));
            }
            gpu::local_stats_many(gpu, device.deadline(), &activations, eps)
        }
        Kind::Host(threads) => {
            let of = |x: &View<'_>| match x.tensor.storage() {
                Storage::Host(values) => Ok(host::local_stats(values, x.shape, threads)),
                Storage::Gpu(_) => Err(misplaced(x.tensor)),
            };
            Ok(try_join_all(xs.iter().map(of).collect::<Result<Vec<_>, Error>>()?).boxed())
        }
    }
}

/// One normalization into a tensor apart from x.
pub(crate) struct Apply<'a> {
    pub x: View<'a>,
    pub residual: Option<&'a Tensor>,
    pub centering: &'a [Centering],
    pub layer: Layer<'a>,
    pub y: &'a mut Tensor,
    pub mask: Option<&'a mut Mask>,
}

/// Normalizes several activations; all lie on one device.
pub(crate) fn apply_many(device: &Device, applies: Vec<Apply<'_>>) -> Result<Pending<()>, Error> {
    let Kind::Gpu(gpu) = device.kind() else {
        for Apply { x, residual, centering, layer, y, mask } in applies {
            // The host is done when this returns.
            drop(apply(Source::Apart(x), residual, centering, layer, y, mask)?);
        }
        return Ok(ready(Ok(())).boxed());
    };
    let mut on_gpu = Vec::with_capacity(applies.len());
    for Apply { x, residual, centering, layer, y, mask } in applies {
        let y_dtype = y.dtype();
        let Storage::Gpu(y) = y.storage_mut() else { return Err(misplaced_on(device)) };
        let slice = device_slice(Some(x.tensor)).ok_or_else(|| misplaced(x.tensor))?;
        let activation = Activation { shape: x.shape, dtype: x.tensor.dtype() };
        let layer = gpu::Layer::of(layer, mask.map(|mask| &*mask));
        on_gpu.push(((Some(slice), activation), device_slice(residual), centering, layer, (&*y, y_dtype)));
    }
    gpu::apply_many(gpu, on_gpu)
}
