//! Virtual GPUs, and the devices of a group.
//!
//! The tests of a hostile compiler have it too, with devices that are opened otherwise.

use std::sync::OnceLock;

use syncbn::Device;

use super::{Placement, TESTS_HOST, adapter, kept, open};

/// Three virtual GPUs on one adapter, opened once per test binary, because opening and compiling
/// cost more than a test.
pub fn virtual_gpus() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let adapter = adapter();
        (0..3).map(|number| kept(open(&adapter, number))).collect()
    })
}

/// Which devices the ranks of a group are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Virtual GPUs, one after the other; more ranks than devices share them.
    Gpu,
    /// The host for every rank.
    Host,
    /// GPU and host in turn.
    Mixed,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Gpu, Self::Host, Self::Mixed];

    /// Those whose kernels a test is about.
    pub fn tested() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&kind| TESTS_HOST || kind == Self::Gpu)
    }
}

impl Placement for Kind {
    fn devices(self, ranks: usize) -> Vec<Device> {
        let gpus = virtual_gpus();
        let device = |rank: usize| match self {
            Self::Mixed if rank % 2 == 1 => Device::host(),
            Self::Host => Device::host(),
            Self::Gpu | Self::Mixed => gpus[rank % gpus.len()].clone(),
        };
        (0..ranks).map(device).collect()
    }
}
