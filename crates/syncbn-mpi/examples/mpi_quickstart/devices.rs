//! The devices of the ranks: the host, or virtual devices on one adapter.

use std::error::Error;

use syncbn::Device;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no adapter's name contains {wanted:?}; available are: {}", available.join(", "))]
    NoAdapter { wanted: String, available: Vec<String> },
}

/// One device for each rank: the host, or as many on the first adapter whose name contains
/// `wanted`.
pub async fn open(wanted: Option<&str>, count: usize) -> Result<Vec<Device>, Box<dyn Error>> {
    let Some(wanted) = wanted.filter(|name| !name.eq_ignore_ascii_case("host")) else {
        return Ok(vec![Device::host(); count]);
    };
    let adapters = Device::adapters().await;
    let name = |adapter: &syncbn::wgpu::Adapter| adapter.get_info().name;
    let found = adapters
        .iter()
        .find(|adapter| name(adapter).to_lowercase().contains(&wanted.to_lowercase()));
    let Some(adapter) = found else {
        let available = adapters.iter().map(name).chain(["host".to_owned()]).collect();
        return Err(DeviceError::NoAdapter { wanted: wanted.to_owned(), available }.into());
    };
    let mut devices = Vec::with_capacity(count);
    for _ in 0..count {
        devices.push(Device::from_adapter(adapter).await?);
    }
    Ok(devices)
}
