//! Adapters that must be there, and devices that a test makes itself.

use syncbn::Device;

/// An adapter for virtual devices. By default it is the software driver, which every test machine
/// has. The environment variable `SYNCBN_TEST_ADAPTER` selects an adapter by a part of its name.
pub fn adapter() -> wgpu::Adapter {
    let mut all = pollster::block_on(Device::adapters());
    let names: Vec<String> = all.iter().map(|adapter| adapter.get_info().name).collect();
    if let Ok(wanted) = std::env::var("SYNCBN_TEST_ADAPTER") {
        all.retain(|adapter| adapter.get_info().name.contains(&wanted));
    }
    all.pop().unwrap_or_else(|| {
        panic!(
            "GPU tests need an adapter, found {names:?}: run scripts/test.sh, which installs a \
            software driver"
        )
    })
}

/// A device that the test makes itself, as an application does, with the portable limits as
/// `change` alters them.
pub fn own_device(
    adapter: &wgpu::Adapter,
    change: impl FnOnce(&mut wgpu::Limits),
) -> (wgpu::Device, wgpu::Queue) {
    let mut required_limits = wgpu::Limits::default();
    change(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).expect("a device with these limits")
}

/// wgpu's no-op device, which runs nothing. Its results are ready at once.
pub fn noop() -> Device {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Device::from_wgpu(device, queue).expect("a device")
}
