//! Times Burn's batch normalization and that of `syncbn-burn`: the same shapes and values, on one
//! wgpu device, in turn in one run; and a network with either.
//!
//! Wall times from the call until the device is done, as Burn offers no others. Burn differentiates
//! what it has recorded, so that backward is timed together with its forward, in both. Both are
//! modules of Burn, on the same tensors. Before anything is timed, this project's must compute the
//! definition.
//!
//! `cargo run --release --manifest-path crates/syncbn-compare-burn/Cargo.toml -- --help` lists the
//! options; `--features fusion` gives Burn its fusion of kernels.

mod batch;
mod layer;
mod network;
mod options;
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

use burn::nn::BatchNorm;
use burn::tensor::wgpu::WgpuSetup;
use clap::Parser;
use pollster::block_on;
use syncbn::{ProcessGroup, wgpu};
use syncbn_burn::Rank;

use batch::{Batch, Expected};
use layer::{AnyLayer, Ours};
use network::Training;
use options::Options;
use step::{Contender, Step};
use timing::Samples;
use workloads::Workload;

/// The name of Burn in the output, with or without fusion.
const BURN: &str =
    if cfg!(feature = "fusion") { "Burn with fusion" } else { "Burn without fusion" };

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a failure of this.
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
    let rank = Rank::share(setup, ProcessGroup::single())?;
    let device = rank.device();
    println!(
        "{}",
        row(["workload", "step", "syncbn ms", "quartiles", "Burn ms", "quartiles", "ratio"]
            .map(str::to_owned))
    );
    let mut errors = Vec::new();
    for workload in options.workloads() {
        let batch = Batch::random(workload.dims);
        let ours = layer::open::<Ours>(&device, &batch);
        let burns = layer::open::<BatchNorm>(&device, &batch);
        errors.push(compare(workload, &batch, &*ours, &*burns)?);
        drop(batch);
        let ours = as_contender(ours);
        let burns = as_contender(burns);
        let mut contenders = Contenders { ours, burns };
        for step in Step::ALL {
            println!("{}", measure(workload.name, step, repeats, &mut contenders)?);
        }
    }
    if let Some(width) = options.network {
        let ours = Training::<Ours>::new(width, &device);
        let burns = Training::<BatchNorm>::new(width, &device);
        let scores = |scores: Vec<f32>| scores.into_iter().map(f64::from).collect::<Vec<_>>();
        let far = batch::farthest(&ours.scores(), &scores(burns.scores()));
        println!("scores of the network differ by at most {far:.1e}");
        let mut contenders = Contenders { ours: Box::new(ours), burns: Box::new(burns) };
        for step in Step::ALL {
            println!("{}", measure("resnet18", step, repeats, &mut contenders)?);
        }
    }
    println!("\nLargest error against the definition in f64: y, grad_input");
    for line in errors {
        println!("{line}");
    }
    Ok(())
}

/// Both on the same device.
struct Contenders {
    ours: Box<dyn Contender>,
    burns: Box<dyn Contender>,
}

fn as_contender(layer: Box<dyn AnyLayer>) -> Box<dyn Contender> {
    layer
}

/// Refuses to time what does not compute the definition, and says how far both are from it. Burn's
/// layer may be far: that is a result.
fn compare(
    workload: &Workload,
    batch: &Batch,
    ours: &dyn AnyLayer,
    burns: &dyn AnyLayer,
) -> Result<String, Box<dyn Error>> {
    let expected = Expected::of(batch)?;
    let errors = |layer: &dyn AnyLayer| {
        let [y, grad_input] = layer.passes();
        [batch::farthest(&y, &expected.y), batch::farthest(&grad_input, &expected.grad_input)]
    };
    let ours = errors(ours);
    let burns = errors(burns);
    if ours.iter().any(|&far| far > batch::TOLERANCE) {
        return Err(format!(
            "{} differs from the definition by {ours:?}, of at most {:e}",
            workload.name,
            batch::TOLERANCE
        )
        .into());
    }
    let name = workload.name;
    let [[y, grad], [their_y, their_grad]] = [ours, burns];
    Ok(format!("{name:<13}  syncbn {y:.1e}, {grad:.1e}  Burn {their_y:.1e}, {their_grad:.1e}"))
}

fn measure(
    name: &str,
    step: Step,
    repeats: usize,
    contenders: &mut Contenders,
) -> Result<String, Box<dyn Error>> {
    let mut our_times = Vec::new();
    let mut their_times = Vec::new();
    // The first runs build kernels and tune.
    for index in 0..repeats + step::WARM_UP {
        let our_time = contenders.ours.time(step)?;
        let their_time = contenders.burns.time(step)?;
        if index >= step::WARM_UP {
            our_times.push(our_time);
            their_times.push(their_time);
        }
    }
    let ratios =
        their_times.iter().zip(&our_times).map(|(burns, ours)| burns.div_duration_f64(*ours));
    let ratio = Samples::of_numbers(ratios);
    let cells = |times: &[Duration]| {
        let Samples { lower, median, upper, .. } = Samples::of(times.iter().copied());
        [format!("{median:.3}"), format!("{lower:.3} .. {upper:.3}")]
    };
    let [ours, our_spread] = cells(&our_times);
    let [burns, their_spread] = cells(&their_times);
    let name = name.to_owned();
    let step = step.name().to_owned();
    Ok(row([name, step, ours, our_spread, burns, their_spread, format!("{:.1}", ratio.median)]))
}

fn row([workload, step, ours, our_spread, burns, their_spread, ratio]: [String; 7]) -> String {
    format!(
        "{workload:<13}  {step:<20}  {ours:>9}  {our_spread:>20}  {burns:>9}  {their_spread:>20}  \
         {ratio:>6}"
    )
}

/// The first adapter whose name contains a word, with all that it offers, as Burn takes it.
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
    Ok(syncbn_burn::setup(adapter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_comparison_agrees_with_the_definition_and_runs_to_its_end() {
        let words = ["compare", "--workloads", "tiny", "--network", "4", "--repeats", "3"];
        let options = Options::parse_from(words);
        let ran = run(&options);
        assert!(ran.is_ok(), "{:?}", ran.err());
    }
}
