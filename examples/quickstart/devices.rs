//! The devices of the run: real GPUs, else a software adapter, else the host; several on one
//! adapter where there are too few.

use syncbn::Device;
use syncbn::wgpu::{Adapter, DeviceType};

use crate::report::counted;

/// Why there are no devices.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no adapter's name contains \"{wanted}\"; available are:{}", listed(available))]
    Unknown { wanted: String, available: Vec<String> },
    #[error("no device could be opened on {adapter}")]
    Open { adapter: String, source: syncbn::Error },
}

/// The devices in rank order, and on how many adapters they are: fewer where one carries several, 0
/// for the host.
#[derive(Debug)]
pub struct Devices {
    pub ranks: Vec<Device>,
    pub adapters: usize,
}

/// Opens `count` devices, on the adapters whose name contains `wanted` if it is given.
pub async fn open(wanted: Option<&str>, count: usize) -> Result<Devices, DeviceError> {
    let mut adapters = match wanted {
        Some(name) if name.eq_ignore_ascii_case("host") => Vec::new(),
        Some(name) => named(name, Device::adapters().await)?,
        None => preferred(Device::adapters().await),
    };
    adapters.truncate(count);
    let mut ranks = Vec::with_capacity(count);
    for rank in 0..count {
        ranks.push(match adapters.get(rank % adapters.len().max(1)) {
            None => Device::host(),
            Some(adapter) => Device::from_adapter(adapter)
                .await
                .map_err(|source| DeviceError::Open { adapter: adapter.get_info().name, source })?,
        });
    }
    Ok(Devices { ranks, adapters: adapters.len() })
}

impl Devices {
    /// "4 devices on 1 adapter", "2 devices on the host".
    pub fn summary(&self) -> String {
        let place = if self.adapters == 0 {
            String::from("the host")
        } else {
            counted(self.adapters, "adapter")
        };
        format!("{} on {place}", counted(self.ranks.len(), "device"))
    }

    /// "3 × A, 1 × B", or the one name alone.
    pub fn names(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for device in &self.ranks {
            match counts.iter_mut().find(|(name, _)| *name == adapter_of(device)) {
                Some((_, count)) => *count += 1,
                None => counts.push((adapter_of(device), 1)),
            }
        }
        match counts[..] {
            [(name, 1)] => name.to_owned(),
            _ => counts
                .iter()
                .map(|(name, count)| format!("{count} × {name}"))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

/// Real GPUs; of software adapters only the first, and only where there is nothing else.
fn preferred(adapters: Vec<Adapter>) -> Vec<Adapter> {
    let (software, mut real): (Vec<_>, Vec<_>) = adapters.into_iter().partition(is_software);
    if real.is_empty() {
        real.extend(software.into_iter().next());
    }
    real
}

/// A device's name without the number that tells virtual devices of one adapter apart.
fn adapter_of(device: &Device) -> &str {
    let name = device.name();
    name.rsplit_once(" #").map_or(name, |(adapter, _)| adapter)
}

fn named(wanted: &str, adapters: Vec<Adapter>) -> Result<Vec<Adapter>, DeviceError> {
    let matches =
        |adapter: &Adapter| adapter.get_info().name.to_lowercase().contains(&wanted.to_lowercase());
    let (found, others): (Vec<_>, Vec<_>) = adapters.into_iter().partition(matches);
    if !found.is_empty() {
        return Ok(found);
    }
    let mut available: Vec<String> = others.iter().map(|adapter| adapter.get_info().name).collect();
    available.push(String::from("host"));
    Err(DeviceError::Unknown { wanted: wanted.to_owned(), available })
}

fn is_software(adapter: &Adapter) -> bool {
    adapter.get_info().device_type == DeviceType::Cpu
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("\n  {name}")).collect()
}
