//! The devices of these tests, opened once: with conversions of f16 of its own, without, and the
//! host.

use std::sync::OnceLock;

use syncbn::Device;

use super::common::*;

/// Which devices the ranks of a group are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    /// A GPU that converts f16 by its own instructions.
    Native,
    /// A GPU that converts it by integer arithmetic.
    Portable,
    /// The host.
    Host,
    /// All three in turn.
    Mixed,
}

impl On {
    pub const ALL: [Self; 4] = [Self::Native, Self::Portable, Self::Host, Self::Mixed];

    /// Those whose kernels a test is about.
    #[allow(dead_code, reason = "for binaries that leave the host out")]
    pub fn tested() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|on| TESTS_HOST || matches!(on, Self::Native | Self::Portable))
    }

    /// The devices of a group of so many ranks.
    pub fn devices(self, ranks: usize) -> Vec<Device> {
        let device = |rank: usize| match self {
            Self::Native => native().clone(),
            Self::Portable => portable().clone(),
            Self::Host => Device::host(),
            Self::Mixed => [native().clone(), Device::host(), portable().clone()][rank % 3].clone(),
        };
        (0..ranks).map(device).collect()
    }
}

/// A GPU that converts f16 by its own instructions.
pub fn native() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| kept(open(&adapter(), 3)))
}

/// A GPU that does not.
pub fn portable() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let device = kept(open_portable(&adapter(), 4));
        assert!(!device.fast_paths().expect("a GPU").native_f16);
        device
    })
}
