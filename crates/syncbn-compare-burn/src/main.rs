//! Times Burn's batch normalization and syncbn's: the same shapes and values, on one wgpu device,
//! in turn in one run.
//!
//! Wall times from the call until the device is done, as Burn tells no others. Burn differentiates
//! what it has recorded, so that backward is timed together with its forward, in both. Before
//! anything is timed, the two must agree.
//!
//! `cargo run --release --manifest-path crates/syncbn-compare-burn/Cargo.toml -- --help` lists the
//! options; `--features fusion` gives Burn its fusion of kernels.

mod batch;
mod burns;
mod options;
mod ours;
mod step;
#[path = "../../syncbn-bench/src/timing.rs"]
#[allow(dead_code, reason = "the part of medians is used here")]
mod timing;
#[path = "../../syncbn-bench/src/workloads.rs"]
#[allow(dead_code, reason = "names and shapes are used here")]
mod workloads;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use burn::tensor::Device as BurnDevice;
use burn::tensor::wgpu::WgpuSetup;
use clap::Parser;
use pollster::block_on;
use syncbn::wgpu::{self, Features};

use batch::Batch;
use burns::Burns;
use options::Options;
use ours::Ours;
use step::{Contender, Step};
use timing::Samples;
use workloads::Workload;

/// What the fusion feature makes of Burn.
const BURN: &str =
    if cfg!(feature = "fusion") { "Burn with fusion" } else { "Burn without fusion" };

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let setup = open(options.adapter.as_deref())?;
    let repeats = options.repeats();
    println!(
        "{BURN} and syncbn on {}; medians and quartiles of {repeats} repeats",
        setup.adapter.get_info().name
    );
    println!();
    let ours = syncbn::Device::from_wgpu(setup.device.clone(), setup.queue.clone())?;
    let burns = BurnDevice::wgpu_options().setup(setup).init()?;
    println!(
        "{}",
        row(["workload", "step", "syncbn ms", "quartiles", "Burn ms", "quartiles", "ratio"]
            .map(str::to_owned))
    );
    for workload in options.workloads() {
        let batch = Batch::random(workload.dims);
        let mut contenders = (Ours::new(&ours, &batch)?, burns::open(&burns, &batch));
        compare(workload, &mut contenders)?;
        for step in Step::ALL {
            println!("{}", measure(workload, step, repeats, &mut contenders)?);
        }
    }
    Ok(())
}

/// Both on the same device.
type Contenders = (Ours, Box<dyn Burns>);

/// Refuses to time two that compute different things.
fn compare(workload: &Workload, (ours, burns): &mut Contenders) -> Result<(), Box<dyn Error>> {
    let pairs =
        [("y", ours.y()?, burns.y()), ("grad_input", ours.grad_input()?, burns.grad_input())];
    for (name, ours, burns) in pairs {
        let far = batch::farthest(&ours, &burns);
        if far > batch::TOLERANCE {
            return Err(format!(
                "{} of {} differs by {far:e}, of at most {:e}",
                name,
                workload.name,
                batch::TOLERANCE
            )
            .into());
        }
    }
    Ok(())
}

fn measure(
    workload: &Workload,
    step: Step,
    repeats: usize,
    (ours, burns): &mut Contenders,
) -> Result<String, Box<dyn Error>> {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    // The first runs build kernels and tune.
    for index in 0..repeats + step::WARM_UP {
        let pair = (ours.time(step)?, burns.time(step)?);
        if index >= step::WARM_UP {
            our_times.push(pair.0);
            their_times.push(pair.1);
        }
    }
    let ratios =
        their_times.iter().zip(&our_times).map(|(burns, ours)| burns.div_duration_f64(*ours));
    let ratio = Samples::of_numbers(ratios);
    let cells = |times: &[Duration]| {
        let Samples { lower, median, upper, .. } = Samples::of(times.iter().copied());
        [format!("{median:.3}"), format!("{lower:.3} .. {upper:.3}")]
    };
    let ([ours, our_spread], [burns, their_spread]) = (cells(&our_times), cells(&their_times));
    let (name, step) = (workload.name.to_owned(), step.name().to_owned());
    Ok(row([name, step, ours, our_spread, burns, their_spread, format!("{:.1}", ratio.median)]))
}

fn row([workload, step, ours, our_spread, burns, their_spread, ratio]: [String; 7]) -> String {
    format!(
        "{workload:<13}  {step:<20}  {ours:>9}  {our_spread:>20}  {burns:>9}  {their_spread:>20}  {ratio:>6}"
    )
}

/// A device with all that its adapter offers, in the form in which Burn takes one.
fn open(wanted: Option<&str>) -> Result<WgpuSetup, Box<dyn Error>> {
    let adapters = block_on(syncbn::Device::adapters());
    let name = |adapter: &wgpu::Adapter| adapter.get_info().name;
    let wanted = wanted.unwrap_or_default().to_lowercase();
    let Some(adapter) =
        adapters.iter().find(|adapter| name(adapter).to_lowercase().contains(&wanted))
    else {
        let found: Vec<String> = adapters.iter().map(name).collect();
        return Err(format!(
            "no adapter's name contains {wanted:?}; found are: {}",
            found.join(", ")
        )
        .into());
    };
    // Burn reads features and limits from the adapter, so that the device must have them.
    let unwanted = Features::MAPPABLE_PRIMARY_BUFFERS | Features::all_experimental_mask();
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("compare"),
        required_features: adapter.features() - unwanted,
        required_limits: adapter.limits(),
        ..Default::default()
    }))?;
    // Kept by Burn beside the adapter, and asked for nothing.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let backend = adapter.get_info().backend;
    Ok(WgpuSetup { instance, adapter: adapter.clone(), device, queue, backend })
}
