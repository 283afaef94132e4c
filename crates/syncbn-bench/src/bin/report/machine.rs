//! Owns the facts about the adapter: its driver, its limits and features, and the fast paths that
//! are taken on it.

use serde::Serialize;
use syncbn::Device;
use syncbn::low_level::probe::Findings;
use syncbn::wgpu::{Adapter, AdapterInfo, Features, Limits};

use crate::record::as_object;

/// The lock file has the versions that this program was built with.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));

/// An adapter, or the host, as the application sees it.
#[derive(Debug, Serialize)]
pub struct Facts {
    pub name: String,
    pub backend: String,
    pub device_type: String,
    pub driver: String,
    pub driver_info: String,
    /// PCI numbers of vendor and device, in hexadecimal.
    pub ids: String,
    /// Invocations in the smallest and in the largest subgroup.
    pub subgroup_sizes: [u32; 2],
    /// Those that plans depend on, by wgpu's names.
    #[serde(serialize_with = "as_object")]
    pub limits: Vec<(&'static str, u64)>,
    /// By wgpu's names.
    pub features: Vec<String>,
    /// Which of the fast paths are taken.
    #[serde(serialize_with = "as_object")]
    pub fast_paths: Vec<(&'static str, bool)>,
    /// Findings of the probe at opening, one phrase each, defects last.
    pub findings: Vec<String>,
}

impl Facts {
    /// Of an opened device; the host has a name alone.
    pub fn of(device: &Device) -> Self {
        let Some((gpu, _)) = device.wgpu() else { return Self::of_host() };
        let info = gpu.adapter_info();
        let fast_paths = device.fast_paths().map_or_else(Vec::new, |paths| {
            vec![
                ("quads", paths.quads),
                ("native_f16", paths.native_f16),
                ("subgroups", paths.subgroups),
            ]
        });
        Self {
            backend: info.backend.to_string(),
            device_type: format!("{:?}", info.device_type),
            ids: format!("{:04x}:{:04x}", info.vendor, info.device),
            subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
            limits: limits(&gpu.limits()),
            features: gpu.features().iter_names().map(|(name, _)| name.to_owned()).collect(),
            fast_paths,
            findings: device.findings().map_or_else(Vec::new, findings),
            name: info.name,
            driver: info.driver,
            driver_info: info.driver_info,
        }
    }

    /// A notice, if the adapter is not a GPU.
    pub fn notice(&self) -> Option<&'static str> {
        match (self.name.as_str(), self.device_type.as_str()) {
            ("host", _) => Some("This is the host (CPU); no GPU was found or asked for."),
            (_, "Cpu") => Some("This is a software driver; no GPU was found or asked for."),
            _ => None,
        }
    }

    fn of_host() -> Self {
        Self {
            name: "host".to_owned(),
            backend: "none".to_owned(),
            device_type: "Cpu".to_owned(),
            driver: String::new(),
            driver_info: String::new(),
            ids: String::new(),
            subgroup_sizes: [0; 2],
            limits: Vec::new(),
            features: Vec::new(),
            fast_paths: Vec::new(),
            findings: Vec::new(),
        }
    }
}

/// One phrase for each answer of the driver.
fn findings(found: &Findings) -> Vec<String> {
    let mut phrases = Vec::new();
    phrases.extend(found.subgroup_size.map(|size| format!("subgroups of {size}")));
    if let Some(arithmetic) = &found.arithmetic {
        let answers = [
            ("contracts", arithmetic.contracts),
            ("reassociates", arithmetic.reassociates),
            ("flushes subnormals", arithmetic.flushes_subnormals),
            ("misses NaN", arithmetic.misses_nan),
        ];
        phrases.extend(
            answers.map(|(what, is_so)| format!("{what}: {}", if is_so { "yes" } else { "no" })),
        );
    }
    let signs = found.signs_agree.map(|agree| if agree { "yes" } else { "no" });
    phrases.extend(
        signs.map(|agree| format!("same sign at the activation in forward and backward: {agree}")),
    );
    phrases.extend(found.defects.iter().map(|defect| format!("DEFECT: {defect}")));
    phrases
}

fn limits(limits: &Limits) -> Vec<(&'static str, u64)> {
    vec![
        ("max_buffer_size", limits.max_buffer_size),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        (
            "max_storage_buffers_per_shader_stage",
            limits.max_storage_buffers_per_shader_stage.into(),
        ),
        (
            "max_compute_workgroups_per_dimension",
            limits.max_compute_workgroups_per_dimension.into(),
        ),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x.into()),
        (
            "max_compute_invocations_per_workgroup",
            limits.max_compute_invocations_per_workgroup.into(),
        ),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
    ]
}

/// The version of a package that this program was built with.
pub fn version_of(package: &str) -> &'static str {
    let name = format!("\nname = \"{package}\"\n");
    let entry = LOCK.split("[[package]]").find(|entry| entry.contains(&name));
    let line =
        entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    line.map_or("unknown", |version| version.trim_matches('"'))
}

/// A line for programs: device type, backend, name, driver, and `f64` or `no f64`, separated by
/// tabs.
pub fn line(adapter: &Adapter) -> String {
    let AdapterInfo { device_type, backend, name, driver, driver_info, .. } = adapter.get_info();
    let doubles = if adapter.features().contains(Features::SHADER_F64) { "f64" } else { "no f64" };
    format!("{device_type:?}\t{backend}\t{name}\t{driver} {driver_info}\t{doubles}")
}
