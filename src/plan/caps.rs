//! What plans know of a device: its limits, and which of its own ways kernels may take.

use super::Activation;
use super::window::capacity;
use crate::dtype::DType;
use crate::error::LimitError;
use crate::fast_paths::FastPaths;
use crate::shaders::Storage;

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
    /// Whether the device's own conversion from f16 keeps every f16.
    pub native_f16: bool,
    /// Whether the device's own conversion to f16 rounds to the nearest even.
    pub rounds_f16: bool,
    /// Whether kernels read and write four values at a time where a tensor allows it.
    pub quads: bool,
    /// Whether neighbouring invocations may exchange what they hold, by the feature `SUBGROUP`;
    /// subgroups have 4 at least.
    pub subgroups: bool,
    /// Neighbouring invocations that run in step and should write next to each other: 8 to 16.
    pub step_lanes: u32,
}

impl DeviceCaps {
    /// What every WebGPU device has.
    pub const PORTABLE: Self = Self {
        max_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        max_workgroups: 65_535,
        offset_alignment_bytes: 256,
        native_f16: false,
        rounds_f16: false,
        quads: true,
        subgroups: false,
        step_lanes: 8,
    };

    /// Those of the faster ways that this device takes.
    pub fn fast_paths(&self) -> FastPaths {
        let Self { quads, native_f16, subgroups, .. } = *self;
        FastPaths { quads, native_f16, subgroups }
    }

    /// Workgroups that one dispatch may have.
    pub(super) fn most_workgroups(&self) -> u64 {
        u64::from(self.max_workgroups).pow(2)
    }

    /// Spreads `count` workgroups over two dimensions.
    pub(super) fn workgroups(&self, count: u64, dims: &[usize]) -> Result<[u32; 2], LimitError> {
        let most_per_row = u64::from(self.max_workgroups);
        let allowed = self.most_workgroups();
        if count > allowed {
            return Err(LimitError::Workgroups { dims: dims.to_vec(), found: count, allowed });
        }
        // Rows as even as can be, so that few of the last row's workgroups find nothing to do.
        let rows = count.div_ceil(most_per_row).max(1);
        Ok([count.div_ceil(rows) as u32, rows as u32])
    }

    /// How kernels on this device read a storage type.
    pub(super) fn storage(&self, dtype: DType) -> Storage {
        if dtype == DType::F16 && self.native_f16 {
            Storage::NativeF16
        } else {
            Storage::packed(dtype)
        }
    }

    /// The same of a kernel that writes. One that reads f16 by the device's own conversion also
    /// writes it so.
    pub(super) fn storage_of_writer(&self, dtype: DType) -> Storage {
        if self.rounds_f16 { self.storage(dtype) } else { Storage::packed(dtype) }
    }

    /// Units of so many elements that a window over these activations may have, and the error where
    /// that is too few for one tile.
    pub(super) fn capacity(&self, activations: &[Activation<'_>], unit: u64) -> (u64, LimitError) {
        let units = |activation: &Activation<'_>| {
            let unit_bytes = unit * activation.dtype.size_bytes();
            capacity(self.max_binding_bytes, unit_bytes, activation.shape.elements() / unit)
        };
        let dims =
            activations.first().map_or(Vec::new(), |activation| activation.shape.dims().to_vec());
        let found_bytes = activations.iter().map(Activation::bytes).max().unwrap_or(0);
        let error = LimitError::Binding {
            what: "the part of x that one tile reads",
            dims,
            found_bytes,
            allowed_bytes: self.max_binding_bytes,
        };
        (activations.iter().map(units).min().unwrap_or(0), error)
    }

    /// Refuses a buffer that one binding cannot span.
    pub(super) fn check_binding(
        &self,
        what: &'static str,
        dims: &[usize],
        bytes: u64,
    ) -> Result<(), LimitError> {
        if bytes > self.max_binding_bytes {
            return Err(LimitError::Binding {
                what,
                dims: dims.to_vec(),
                found_bytes: bytes,
                allowed_bytes: self.max_binding_bytes,
            });
        }
        Ok(())
    }
}
