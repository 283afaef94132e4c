//! Fast paths: faster kernels for GPUs with more than the portable features of WebGPU.

/// The fast paths that a GPU takes.
///
/// A device takes each of them if it has the feature, and if the probe at opening finds the driver
/// sound ([`Device::findings`](crate::Device::findings)).
/// [`Device::from_adapter_with`](crate::Device::from_adapter_with) and
/// [`Device::from_wgpu_with`](crate::Device::from_wgpu_with) switch them off, to measure the gain
/// of one, or to avoid one that a driver fails at. Results keep their bounds either way. With
/// `quads` sums may have other bits, and so may all results.
///
/// ```
/// use syncbn::device::FastPaths;
/// let without_native = FastPaths::ALL.with_native_f16(false);
/// assert!(without_native.quads && !without_native.native_f16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FastPaths {
    /// Kernels read and write four values at a time. Needs an L (with channels last, a C) that is a
    /// multiple of four.
    pub quads: bool,
    /// Most kernels read f16 by the device's own conversion, where it keeps each of the 65,536 f16
    /// (a NaN as some NaN), and write it so, where that rounds to the nearest even. It changes no
    /// bit of a result but which NaN a NaN is.
    pub native_f16: bool,
    /// Neighbouring lanes of a tile merge by subgroup shuffles. Needs the feature `SUBGROUP`, and
    /// workgroups of the probe's kernel in whole subgroups of one size, 4 or more. Lanes in
    /// different subgroups merge as usual. It changes no bit of a result.
    pub subgroups: bool,
}

impl FastPaths {
    /// All of them.
    pub const ALL: Self = Self { quads: true, native_f16: true, subgroups: true };
    /// None: kernels as every WebGPU device runs them, one value at a time.
    pub const NONE: Self = Self { quads: false, native_f16: false, subgroups: false };

    /// Those that need no proof: any device may take them, with any driver.
    pub(crate) fn without_proof(self) -> Self {
        Self { native_f16: false, subgroups: false, ..self }
    }

    /// Switches `quads` on or off.
    pub fn with_quads(self, quads: bool) -> Self {
        Self { quads, ..self }
    }

    /// Switches `native_f16` on or off.
    pub fn with_native_f16(self, native_f16: bool) -> Self {
        Self { native_f16, ..self }
    }

    /// Switches `subgroups` on or off.
    pub fn with_subgroups(self, subgroups: bool) -> Self {
        Self { subgroups, ..self }
    }
}

impl Default for FastPaths {
    fn default() -> Self {
        Self::ALL
    }
}
