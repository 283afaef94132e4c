//! The devices of these tests, opened once: with f16 of its own, without, and the host.

use std::sync::OnceLock;

use syncbn::Device;

use super::common::*;

/// Which devices the ranks of a group are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    /// A GPU that reads f16 by its own type.
    Native,
    /// A GPU opened without that feature.
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

/// A GPU with the feature `SHADER_F16`; where `SYNCBN_TEST_ADAPTER` names an adapter that lacks it,
/// one without.
pub fn native() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let adapter = adapter();
        assert_native_f16(&adapter);
        kept(open(&adapter, 3))
    })
}

/// A GPU without it.
pub fn portable() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let device = kept(open_portable(&adapter(), 4));
        let features = device.wgpu().expect("a GPU").0.features();
        assert!(!features.contains(wgpu::Features::SHADER_F16));
        device
    })
}
