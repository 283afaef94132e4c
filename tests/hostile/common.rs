//! What the tests of groups share, with devices whose kernels pass through a hostile compiler.
//!
//! Every device has a seed of its own, which is printed, and the fast paths take turns. `SYNCBN_HOSTILE_SEED` is where the
//! seeds start. `SYNCBN_HOSTILE_WITHOUT` leaves out some of what the compiler does, by the names of the fields of
//! `Style`, separated by commas. `SYNCBN_HOSTILE_TEXTS` names a folder to keep the rewritten texts in.

pub use super::ordinary::*;

use std::sync::atomic::{AtomicU64, Ordering};

use syncbn::{Device, FastPaths, low_level};

use super::rewrite::{Style, rewritten_in};

/// Where the seeds start unless the environment says otherwise.
const FIRST_SEED: u64 = 1;

pub const TESTS_HOST: bool = false;

pub fn first_seed() -> u64 {
    match std::env::var("SYNCBN_HOSTILE_SEED") {
        Ok(seed) => seed.parse().expect("SYNCBN_HOSTILE_SEED is a number"),
        Err(_) => FIRST_SEED,
    }
}

/// A device on which all fast paths are taken, or none of subgroups, or none at all, in turn.
pub fn open(adapter: &wgpu::Adapter) -> Device {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let turn = OPENED.fetch_add(1, Ordering::Relaxed);
    let paths = [FastPaths::ALL, FastPaths::ALL.with_subgroups(false), FastPaths::NONE];
    open_with(adapter, wgpu::Features::SHADER_F16, paths[turn as usize % 3], first_seed() + turn)
}

/// A device without f16 of its own.
pub fn open_portable(adapter: &wgpu::Adapter) -> Device {
    open_with(adapter, wgpu::Features::empty(), FastPaths::ALL, first_seed() + 3)
}

pub fn open_with(adapter: &wgpu::Adapter, optional: wgpu::Features, paths: FastPaths, seed: u64) -> Device {
    println!("a device with {paths:?}: SYNCBN_HOSTILE_SEED={seed}");
    // What an exact product in a sum is computed in.
    let needed = wgpu::Features::SHADER_F64;
    assert!(adapter.features().contains(needed), "{} has no f64", adapter.get_info().name);
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: adapter.limits(),
        required_features: (adapter.features() & (optional | wgpu::Features::SUBGROUP)) | needed,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let without = std::env::var("SYNCBN_HOSTILE_WITHOUT").unwrap_or_default();
    let compiler = move |source: &str| {
        let style = Style::drawn(source, seed).without(&without);
        let text = rewritten_in(source, style);
        keep(source, style, &text);
        text
    };
    low_level::with_rewritten_kernels(device, queue, paths, compiler).expect("a device")
}

/// Keeps what became of a kernel in the folder that `SYNCBN_HOSTILE_TEXTS` names, if it does.
fn keep(source: &str, style: Style, text: &str) {
    let Some(folder) = std::env::var_os("SYNCBN_HOSTILE_TEXTS") else { return };
    let folder = std::path::Path::new(&folder);
    let name = format!("{:016x}.wgsl", style.seed);
    let contents = format!("// {style:?}\n{text}\n/* ---- was ----\n{source}\n*/\n");
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(name), contents)).expect("a written text");
}
