//! What tests share, and the devices that they run on.

pub use syncbn_testkit::*;

pub mod devices;

pub use devices::{Kind, virtual_gpus};

use syncbn::Device;
use syncbn::device::FastPaths;

/// Whether tests run on the host, too.
pub const TESTS_HOST: bool = true;

/// One device of each kind: a virtual GPU and the host.
pub fn devices() -> Vec<Device> {
    vec![virtual_gpus()[0].clone(), Device::host()]
}

/// Opens a device. The tests of a hostile compiler have another way to, in which the number tells
/// devices from each other.
pub fn open(adapter: &wgpu::Adapter, _number: u64) -> Device {
    pollster::block_on(Device::from_adapter(adapter)).expect("a device")
}

/// Opens a device without any optional feature, and without its own conversions of f16, likewise.
pub fn open_portable(adapter: &wgpu::Adapter, _number: u64) -> Device {
    let (device, queue) = own_device(adapter, |_| {});
    let paths = FastPaths::ALL.with_native_f16(false);
    Device::from_wgpu_with(device, queue, paths).expect("a device")
}
