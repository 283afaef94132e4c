//! From a shape to a plan: which kernels run, over how many workgroups, with which buffer in which role.
//!
//! Plain arithmetic on plain data: a plan can be printed, compared and checked against a device's limits without a GPU.
//! Knows no wgpu type and no shader text; `engine` carries plans out.

mod forward;
mod partition;

pub use forward::{ApplyPlan, StatsPlan};
pub use partition::Partition;

use crate::error::LimitError;
use crate::shaders::Kernel;

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
}

impl DeviceCaps {
    /// What every WebGPU device has.
    pub const PORTABLE: Self = Self {
        max_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        max_workgroups: 65_535,
        offset_alignment_bytes: 256,
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

/// One dispatch: a kernel, its parameters, its workgroups, and the role of every storage buffer in binding order.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch<P> {
    /// The kernel.
    pub kernel: Kernel,
    /// Contents of the parameter struct.
    pub params: P,
    /// Workgroups in x and y.
    pub workgroups: [u32; 2],
    /// Roles of the bindings 1, 2, ….
    pub roles: &'static [Role],
}
