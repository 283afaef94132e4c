//! Burn's tensors as tensors of the layer, without a copy: slices of Burn's pooled wgpu buffers.
//!
//! Owns the reading of strides and the borrowing of buffers. Burn queues its work and submits it
//! when it gives out a buffer, so buffers are borrowed immediately before the layer submits. What
//! the layer writes is always fresh memory, of which Burn can have no reader queued that would be
//! overtaken.

use std::any::Any;
use std::fmt;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::wgpu::{AutoCompiler, WgpuServer};
use syncbn::{Layout, Tensor};

use crate::error::Error;

/// A tensor of the layer that is a slice of one of Burn's buffers.
#[derive(Debug)]
pub(crate) struct Lent {
    pub tensor: Tensor,
    pub pinned: Pin,
}

/// Keeps an allocation, and keeps it in place.
pub(crate) struct Pin(
    #[expect(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>,
);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

/// The tensor in one of the two layouts that the layer reads in place: as it is, or copied where
/// its strides are others.
///
/// Burn's convolutions give (N, C, ...) over memory in which the channels lie last.
pub(crate) fn in_place(tensor: CubeTensor) -> CubeTensor {
    if has_channels_last(&tensor) { tensor } else { into_contiguous(tensor) }
}

/// Two tensors of the same dimensions in place and in one layout: that of the first where both have
/// it.
pub(crate) fn alike(x: CubeTensor, other: CubeTensor) -> (CubeTensor, CubeTensor) {
    if has_channels_last(&x) && has_channels_last(&other) {
        return (x, other);
    }
    (into_contiguous(x), into_contiguous(other))
}

/// Fresh memory with the dimensions, strides and type of a tensor that is [`in_place`].
pub(crate) fn fresh_like(tensor: &CubeTensor) -> CubeTensor {
    let size_bytes = tensor.meta.num_elements() * tensor.dtype.size();
    let handle = tensor.client.empty(size_bytes);
    CubeTensor::new(
        tensor.client.clone(),
        handle,
        (*tensor.meta).clone(),
        tensor.device.clone(),
        tensor.dtype,
    )
}

/// Borrows the buffer of a tensor that is [`in_place`], as a tensor on the layer's handle of the
/// same device. Everything that Burn has queued for it is submitted then.
///
/// # Errors
/// [`Error::DType`], [`Error::Runtime`], and [`Error::Layer`] for a slice that the device cannot
/// bind.
pub(crate) fn lend(
    argument: &'static str,
    tensor: &CubeTensor,
    gpu: &syncbn::Device,
) -> Result<Lent, Error> {
    let dtype = dtype(argument, tensor.dtype)?;
    let mut dims = tensor.shape().as_slice().to_vec();
    let mut layout = Layout::ChannelsFirst;
    if has_channels_last(tensor) {
        layout = Layout::ChannelsLast;
        dims[1..].rotate_left(1);
    }
    if dims.contains(&0) {
        // There is nothing in Burn's memory to read or to write.
        return Ok(Lent {
            tensor: gpu.zeros_of(&dims, dtype)?.with_layout(layout),
            pinned: Pin(Box::new(())),
        });
    }
    let resource = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
    let managed =
        resource.map_err(|error| Error::Runtime { argument, message: error.to_string() })?;
    let resource = managed.resource();
    let tensor = gpu
        .wrap_as(resource.buffer.clone(), resource.offset, &dims, dtype)
        .map_err(Error::Layer)?;
    Ok(Lent { tensor: tensor.with_layout(layout), pinned: Pin(Box::new(managed)) })
}

/// The layer's name for a type, where it has one.
fn dtype(argument: &'static str, found: DType) -> Result<syncbn::DType, Error> {
    match found {
        DType::F32 => Ok(syncbn::DType::F32),
        DType::F16 => Ok(syncbn::DType::F16),
        DType::BF16 => Ok(syncbn::DType::BF16),
        _ => Err(Error::DType { argument, found: format!("{found:?}") }),
    }
}

/// Whether (N, C, ...) lies in memory as (N, ..., C), and not also as (N, C, ...).
fn has_channels_last(tensor: &CubeTensor) -> bool {
    let shape = tensor.meta.shape().as_slice();
    let strides = tensor.meta.strides();
    if shape.len() < 3
        || tensor.meta.is_tiled()
        || tensor.qparams.is_some()
        || tensor.is_contiguous()
    {
        return false;
    }
    let mut expected = 1;
    // From the axis that moves fastest to the one that moves slowest; the stride of an axis of size
    // 1 says nothing.
    [1].into_iter().chain((2..shape.len()).rev()).chain([0]).all(|axis| {
        let fits = shape[axis] == 1 || strides[axis] == expected;
        expected *= shape[axis];
        fits
    })
}
