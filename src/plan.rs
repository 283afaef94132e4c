//! From a shape to a plan: which kernels run, over how many workgroups, with which buffer in which role.
//!
//! Plain arithmetic on plain data: a plan can be printed, compared and checked against a device's limits without a GPU.
//! Knows no wgpu type and no shader text; `engine` carries plans out.

mod apply;
mod partition;
mod sums;

pub use apply::ApplyPlan;
pub use partition::Partition;
pub use sums::SumsPlan;

use crate::dtype::DType;
use crate::epilogue::Epilogue;
use crate::error::LimitError;
use crate::shaders::{Storage, TileParams, Variant};
use crate::shape::Shape;

/// Bytes of one (pivot, sum, squares, flag) quadruple of a tile or a rank, per channel.
pub const CHANNEL_SUMS_BYTES: u64 = 16;

/// What a plan must know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCaps {
    /// Bytes that one storage binding may span.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Workgroups per dimension of a dispatch.
    pub max_workgroups: u32,
    /// Alignment of the offset of a storage binding, in bytes.
    pub offset_alignment_bytes: u32,
    /// Whether kernels may use the device's own f16, by its feature `SHADER_F16`.
    pub native_f16: bool,
}

/// An activation as plans see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation<'a> {
    /// Its shape and layout.
    pub shape: &'a Shape,
    /// How its elements are stored.
    pub dtype: DType,
}

impl Activation<'_> {
    /// Bytes of the tensor, in whole words.
    pub fn bytes(&self) -> u64 {
        self.shape.elements().saturating_mul(self.dtype.size_bytes()).saturating_add(3) / 4 * 4
    }
}

impl DeviceCaps {
    /// What every WebGPU device has.
    pub const PORTABLE: Self = Self {
        max_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        max_workgroups: 65_535,
        offset_alignment_bytes: 256,
        native_f16: false,
    };

    /// Spreads `count` workgroups over two dimensions.
    fn workgroups(&self, count: u64, dims: &[usize]) -> Result<[u32; 2], LimitError> {
        let side = u64::from(self.max_workgroups);
        if count > side * side {
            return Err(LimitError::Workgroups { dims: dims.to_vec(), found: count, allowed: side * side });
        }
        // Rows as even as can be, so that few of the last row's workgroups find nothing to do.
        let rows = count.div_ceil(side).max(1);
        Ok([count.div_ceil(rows) as u32, rows as u32])
    }

    /// How kernels on this device read a storage type.
    fn storage(&self, dtype: DType) -> Storage {
        match dtype {
            DType::F32 => Storage::F32,
            DType::F16 if self.native_f16 => Storage::NativeF16,
            DType::F16 => Storage::F16,
            DType::BF16 => Storage::BF16,
        }
    }

    /// Refuses an activation that one binding cannot span.
    fn check_activation(&self, what: &'static str, activation: Activation<'_>) -> Result<(), LimitError> {
        self.check_binding(what, activation.shape.dims(), activation.bytes())
    }

    /// Refuses a buffer that one binding cannot span.
    fn check_binding(&self, what: &'static str, dims: &[usize], bytes: u64) -> Result<(), LimitError> {
        if bytes > self.max_binding_bytes {
            let allowed_bytes = self.max_binding_bytes;
            return Err(LimitError::Binding { what, dims: dims.to_vec(), found_bytes: bytes, allowed_bytes });
        }
        Ok(())
    }
}

/// What a buffer is for in a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// x, (N, C, L).
    Input,
    /// y, (N, C, L).
    Output,
    /// Upstream gradient, (N, C, L).
    GradOutput,
    /// Gradient of the input, (N, C, L).
    GradInput,
    /// Residual, (N, C, L), or anything where none is added.
    Residual,
    /// Gradient of the residual, (N, C, L).
    GradResidual,
    /// Sums of every tile, (tiles, C).
    Tiles,
    /// Sums of the rank, (C): read back by the host.
    Local,
    /// Pivot, rest and inverse deviation, (C): sent by the host.
    Centering,
    /// Weight, (C), or anything where the layer has none.
    Weight,
    /// Bias, (C), or anything where the layer has none.
    Bias,
}

/// What the layer has and how it ends, as kernels are told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerFlags {
    /// Whether a weight is bound.
    pub weight: bool,
    /// Whether a bias is bound.
    pub bias: bool,
    /// What happens to the normalized value.
    pub epilogue: Epilogue,
}

impl LayerFlags {
    /// Writes them into the parameters. A residual is read where it decides on a value that is needed.
    fn set(self, params: &mut TileParams, residual: bool) {
        params.has_weight = self.weight.into();
        params.has_bias = self.bias.into();
        params.has_residual = (residual && self.epilogue.adds_residual()).into();
        params.activates = self.epilogue.activates().into();
        params.slope = self.epilogue.slope();
    }
}

/// One dispatch: a kernel, its parameters, its workgroups, and the role of every storage buffer in binding order.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch<P> {
    /// The kernel for the storage types at hand; whether its buffers are one shows when they are bound.
    pub variant: Variant,
    /// Contents of the parameter struct.
    pub params: P,
    /// Workgroups in x and y.
    pub workgroups: [u32; 2],
    /// Roles of the bindings 1, 2, ….
    pub roles: &'static [Role],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Layout::ChannelsFirst;

    fn f32s(shape: &Shape) -> Activation<'_> {
        Activation { shape, dtype: DType::F32 }
    }

    fn stats(dims: &[usize]) -> SumsPlan {
        let shape = Shape::new(dims, ChannelsFirst).expect("a valid shape");
        SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE).expect("within the limits").expect("not empty")
    }

    #[test]
    fn a_channel_of_one_tile_needs_no_combination_and_no_scratch() {
        let plan = stats(&[4, 8, 32, 32]);
        assert_eq!((plan.combine.is_none(), plan.tiles_bytes, plan.local_bytes), (true, 0, 128));
        assert_eq!(plan.partial.roles, [Role::Input, Role::Local]);
    }

    #[test]
    fn tiles_cover_every_value_exactly_once() {
        for dims in [[2, 3, 50_000], [7, 70_001, 1], [4096, 3, 1], [1, 1, 1], [33, 5, 7], [1, 2, 4097]] {
            let shape = Shape::new(&dims, ChannelsFirst).expect("a valid shape");
            let partition = Partition::new(f32s(&shape));
            let values = u64::from(partition.tile_values());
            assert!(partition.tiles * values >= partition.values, "{dims:?}: {partition:?}");
            assert!((partition.tiles - 1) * values < partition.values, "{dims:?}: {partition:?}");
            assert!(partition.blocks * u64::from(256 / partition.rows) >= shape.channels() as u64, "{dims:?}");
        }
    }

    #[test]
    fn more_workgroups_than_one_dimension_holds_go_to_the_second() {
        let plan = stats(&[1, 70_001, 300]);
        let [x, y] = plan.partial.workgroups;
        assert!(x <= 65_535 && u64::from(x) * u64::from(y) >= 70_001u64.div_ceil(8));
        let caps = DeviceCaps { max_workgroups: 10, ..DeviceCaps::PORTABLE };
        assert_eq!(caps.workgroups(95, &[]), Ok([10, 10]));
        assert_eq!(caps.workgroups(101, &[1]), Err(LimitError::Workgroups { dims: vec![1], found: 101, allowed: 100 }));
    }

    #[test]
    fn what_one_binding_cannot_span_is_refused_with_both_numbers() {
        let shape = Shape::new(&[1, 1, (128 << 18) + 1], ChannelsFirst).expect("a valid shape");
        let refused = SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE);
        let numbers = matches!(refused, Err(LimitError::Binding { found_bytes, allowed_bytes, .. })
            if found_bytes == (128 << 20) + 4 && allowed_bytes == 128 << 20);
        assert!(numbers, "{refused:?}");
    }

    #[test]
    fn an_empty_batch_plans_nothing() {
        let shape = Shape::new(&[0, 3, 5], ChannelsFirst).expect("a valid shape");
        assert_eq!(SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE), Ok(None));
        assert_eq!(
            ApplyPlan::normalize(f32s(&shape), DType::F32, &DeviceCaps::PORTABLE, LayerFlags::default()),
            Ok(None)
        );
    }
}
