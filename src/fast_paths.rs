//! Which of a GPU's faster ways are taken.

/// The ways in which kernels are faster on a GPU that has what they need. All are taken where the
/// device has the feature and a probe at opening finds that its driver keeps what they rely on
/// ([`Device::findings`](crate::Device::findings)), unless they are switched off when a device is
/// made ([`Device::from_adapter_with`](crate::Device::from_adapter_with),
/// [`Device::from_wgpu_with`](crate::Device::from_wgpu_with)): to find out what a way is worth, or
/// to do without one where a driver fails at it. Results keep their bounds either way; the bits of
/// sums may differ where values are taken by fours, and so those of what follows.
///
/// ```
/// use syncbn::device::FastPaths;
/// let without_native = FastPaths::ALL.with_native_f16(false);
/// assert!(without_native.quads && !without_native.native_f16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FastPaths {
    /// Kernels read and write four values at a time, where L (or, channels last, C) is a multiple
    /// of four.
    pub quads: bool,
    /// f16 is read as the device's own type, where it has the feature `SHADER_F16` and its loads
    /// keep each of the 65,536 f16 (a NaN as some NaN); values are the same bits without.
    pub native_f16: bool,
    /// Neighbouring lanes of a tile merge by subgroup shuffles, where the device has the feature
    /// `SUBGROUP`, cuts the workgroups of the kernel that asks into whole subgroups of one size, 4
    /// or more, and the lanes are in one of them; values are the same bits without.
    pub subgroups: bool,
}

impl FastPaths {
    /// All of them.
    pub const ALL: Self = Self { quads: true, native_f16: true, subgroups: true };
    /// None: kernels as every WebGPU device runs them, one value at a time.
    pub const NONE: Self = Self { quads: false, native_f16: false, subgroups: false };

    /// Those that any device may take, whatever its driver does: none that a driver must prove
    /// sound.
    pub(crate) fn without_proof(self) -> Self {
        Self { native_f16: false, subgroups: false, ..self }
    }

    /// With four values at a time, or without.
    pub fn with_quads(self, quads: bool) -> Self {
        Self { quads, ..self }
    }

    /// With the device's own f16, or without.
    pub fn with_native_f16(self, native_f16: bool) -> Self {
        Self { native_f16, ..self }
    }

    /// With merging within subgroups, or without.
    pub fn with_subgroups(self, subgroups: bool) -> Self {
        Self { subgroups, ..self }
    }
}

impl Default for FastPaths {
    fn default() -> Self {
        Self::ALL
    }
}
