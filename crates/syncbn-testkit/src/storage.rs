//! Storage types and layouts of the tests: the combinations that a call allows, and tensors in
//! them.
//!
//! Everywhere else in these tests activations are channels first and f32, with values that their
//! storage type holds exactly.

use half::{bf16, f16};
use pollster::block_on;
use syncbn::{DType, Device, Layout, Tensor};
use syncbn_reference::bounds::half_place;

use crate::batch::Batch;

/// The storage types of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types {
    /// Of the input and its gradient.
    pub x: DType,
    /// Of the output and its gradient.
    pub other: DType,
}

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

impl Types {
    /// Every pair of types.
    pub fn pairs() -> impl Iterator<Item = Self> {
        DTYPES.into_iter().flat_map(|x| DTYPES.map(|other| Self { x, other }))
    }

    /// One type, or f32 with one 16-bit type.
    pub fn is_supported(self) -> bool {
        self.x == self.other || [self.x, self.other].contains(&DType::F32)
    }

    /// Every pair that a call may ask for.
    pub fn all() -> Vec<Self> {
        Self::pairs().filter(|types| types.is_supported()).collect()
    }
}

/// The layouts of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// Of the input, its gradient and the output.
    pub x: Layout,
    /// Of the upstream gradient.
    pub g: Layout,
}

impl Layouts {
    pub fn all() -> Vec<Self> {
        let both = [Layout::ChannelsFirst, Layout::ChannelsLast];
        both.into_iter().flat_map(|x| both.map(|g| Self { x, g })).collect()
    }
}

/// The nearest value of a storage type.
pub fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

/// Largest rounding error of a storage type for a value of this size. The rounding of an f32
/// belongs to its own bound.
pub fn half_ulp(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => half_place(value, 10, -14),
        DType::BF16 => half_place(value, 7, -126),
    }
}

/// Dimensions of a channels-first tensor in a layout.
pub fn dims_in(layout: Layout, dims: &[usize]) -> Vec<usize> {
    let mut dims = dims.to_vec();
    if layout == Layout::ChannelsLast {
        dims[1..].rotate_left(1);
    }
    dims
}

/// For every element in memory, in order, its index channels first.
fn order(layout: Layout, dims: &[usize]) -> Vec<usize> {
    let samples = dims[0];
    let channels = dims[1];
    let inner = dims[2..].iter().product::<usize>();
    let count = samples * channels * inner;
    match layout {
        Layout::ChannelsFirst => (0..count).collect(),
        Layout::ChannelsLast => (0..count)
            .map(|at| {
                let sample = at / (channels * inner);
                let position = at / channels % inner;
                let channel = at % channels;
                (sample * channels + channel) * inner + position
            })
            .collect(),
    }
}

/// The bytes of a batch, stored so.
pub fn bytes_of(batch: &Batch, dtype: DType, layout: Layout) -> Vec<u8> {
    let values = order(layout, &batch.dims).into_iter().map(|index| batch.values[index]);
    match dtype {
        DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
        DType::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        DType::BF16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
    }
}

/// A batch on a device, stored so.
pub fn upload_as(device: &Device, batch: &Batch, dtype: DType, layout: Layout) -> Tensor {
    let dims = dims_in(layout, &batch.dims);
    let bytes = bytes_of(batch, dtype, layout);
    let tensor = match dtype {
        DType::F32 => device.upload::<f32>(&dims, &bytemuck::pod_collect_to_vec(&bytes)),
        DType::F16 => device.upload::<f16>(&dims, &bytemuck::pod_collect_to_vec(&bytes)),
        DType::BF16 => device.upload::<bf16>(&dims, &bytemuck::pod_collect_to_vec(&bytes)),
    };
    tensor.expect("an upload").with_layout(layout)
}

/// Room for a batch, stored so.
pub fn zeros_as(device: &Device, batch: &Batch, dtype: DType, layout: Layout) -> Tensor {
    device.zeros_of(&dims_in(layout, &batch.dims), dtype).expect("a tensor").with_layout(layout)
}

/// The values of a tensor that holds as many as `batch`, channels first.
pub fn read_as(tensor: &Tensor, batch: &Batch) -> Vec<f32> {
    assert_eq!(tensor.dims(), dims_in(tensor.layout(), &batch.dims));
    let stored = block_on(tensor.to_vec()).expect("a readback");
    let mut values = vec![0.0; stored.len()];
    for (index, value) in order(tensor.layout(), &batch.dims).into_iter().zip(stored) {
        values[index] = value;
    }
    values
}
