//! What the tests of groups share, with devices whose kernels pass through a hostile compiler.
//!
//! A device follows from its seed: the fast paths that it takes and what becomes of its kernels.
//! The seeds of devices are consecutive, from `SYNCBN_HOSTILE_SEED` on, by the numbers that tests
//! open them with; the order in which they are opened changes nothing. A test that fails prints
//! them, and the line that runs it again on the same devices.
//!
//! `SYNCBN_HOSTILE_WITHOUT` leaves out some of what the compiler does, by the names of the fields
//! of `Style`, separated by commas. `SYNCBN_HOSTILE_SOURCES` names a folder to keep the rewritten
//! sources in.

pub use syncbn_testkit::*;

#[path = "../it/common/devices.rs"]
pub mod devices;

pub use devices::{Kind, virtual_gpus};

use syncbn::{Device, device::FastPaths, low_level};

use super::again;
use super::rewrite::{Style, rewritten_in};

/// Where the seeds start unless the environment says otherwise.
const FIRST_SEED: u64 = 1;

/// Whether tests run on the host, too, whose kernels the compiler does not see.
pub const TESTS_HOST: bool = false;

pub fn first_seed() -> u64 {
    match std::env::var("SYNCBN_HOSTILE_SEED") {
        Ok(seed) => seed.parse().expect("SYNCBN_HOSTILE_SEED is a number"),
        Err(_) => FIRST_SEED,
    }
}

/// Of so many problems, one runs: of all combinations, those that follow each other differ in
/// little. Where seeds are asked for, as every night, all run.
pub fn one_in(problems: usize) -> usize {
    if std::env::var("SYNCBN_HOSTILE_SEED").is_ok() { 1 } else { problems }
}

/// The device of a number.
pub fn open(adapter: &wgpu::Adapter, number: u64) -> Device {
    let seed = first_seed() + number;
    open_with(adapter, paths_of(seed), seed, rewritten_in)
}

/// The device of a number, without its own conversions of f16.
pub fn open_portable(adapter: &wgpu::Adapter, number: u64) -> Device {
    let seed = first_seed() + number;
    open_with(adapter, paths_of(seed).with_native_f16(false), seed, rewritten_in)
}

/// All fast paths, or none of subgroups, or none at all.
pub fn paths_of(seed: u64) -> FastPaths {
    [FastPaths::ALL, FastPaths::ALL.with_subgroups(false), FastPaths::NONE][(seed % 3) as usize]
}

/// The device of a seed, whose kernels pass through a compiler in the style of the seed.
pub fn open_with(
    adapter: &wgpu::Adapter,
    paths: FastPaths,
    seed: u64,
    compiler: impl Fn(&str, Style) -> String + Send + Sync + 'static,
) -> Device {
    again::note(seed);
    // What an exact product in a sum is computed in.
    let needed = wgpu::Features::SHADER_F64;
    assert!(adapter.features().contains(needed), "{} has no f64", adapter.get_info().name);
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: adapter.limits(),
        required_features: (adapter.features() & wgpu::Features::SUBGROUP) | needed,
        ..Default::default()
    };
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let without = without();
    let rewrite = move |source: &str| {
        let style = Style::drawn(source, seed).without(&without);
        let rewritten = compiler(source, style);
        keep(source, style, &rewritten);
        rewritten
    };
    low_level::with_rewritten_kernels(device, queue, paths, rewrite).expect("a device")
}

/// The names of what the compiler leaves out.
pub fn without() -> String {
    std::env::var("SYNCBN_HOSTILE_WITHOUT").unwrap_or_default()
}

/// Keeps what became of a kernel in the folder that `SYNCBN_HOSTILE_SOURCES` names, if it does.
fn keep(source: &str, style: Style, rewritten: &str) {
    let Some(folder) = std::env::var_os("SYNCBN_HOSTILE_SOURCES") else { return };
    let folder = std::path::Path::new(&folder);
    let name = format!("{:016x}.wgsl", style.seed);
    let contents = format!("// {style:?}\n{rewritten}\n/* ---- was ----\n{source}\n*/\n");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join(name), contents))
        .expect("a written source");
}
