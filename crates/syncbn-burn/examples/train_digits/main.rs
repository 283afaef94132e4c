//! A small convolutional network on 1,797 handwritten digits, trained three ways from the same
//! weights and batches: over four ranks with two samples each and the statistics of each rank
//! alone, over the same ranks with synchronized statistics, and on one device with the whole batch
//! of eight.
//!
//! `cargo run --release --example train_digits`; `--help` lists the options. Where the machine has
//! no GPU, a software Vulkan driver serves.

mod data;
mod model;
mod report;
mod training;

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use pollster::block_on;

use data::Digits;
use report::{Runs, draw, largest_difference, name, print_table};
use training::{BATCH, History, Opened, Plan, RANKS, Way, train};

/// Whatever ends the program.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Steps over which the synchronized run is compared with the whole batch.
const COMPARED: usize = 50;

#[derive(Parser)]
#[command(
    about = "Trains a network on digits with local, synchronized, and whole-batch normalization"
)]
struct Arguments {
    /// Passes over the training digits.
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Runs of each way, from different weights and orders.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Training digits to use, of 1,438.
    #[arg(long, default_value_t = usize::MAX)]
    samples: usize,
    /// Part of the name of the adapter to use; the first of the machine otherwise.
    #[arg(long, default_value = "")]
    adapter: String,
    /// Where to write the picture.
    #[arg(long, default_value = "target/train_digits.png")]
    output: PathBuf,
}

fn main() -> Result<(), Failure> {
    let started = Instant::now();
    let arguments = Arguments::parse();
    let digits = Digits::load()?;
    let adapters = block_on(syncbn::Device::adapters());
    let adapter =
        adapters.iter().find(|adapter| adapter.get_info().name.contains(&arguments.adapter));
    let adapter = adapter.ok_or(
        "no adapter of that name; on Linux, Mesa's software driver (mesa-vulkan-drivers) serves",
    )?;
    println!("{RANKS} virtual devices on {}", adapter.get_info().name);
    let devices = (0..RANKS).map(|_| open(adapter)).collect::<Result<Vec<_>, _>>()?;

    let mut runs: Vec<Runs> = Way::ALL.map(|way| Runs { way, histories: Vec::new() }).into();
    for seed in 0..arguments.seeds {
        let plan = Plan { seed, epochs: arguments.epochs, samples: arguments.samples };
        let steps = plan.samples.min(digits[0].len()) / BATCH * plan.epochs;
        for runs in &mut runs {
            let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
                "seed {prefix} {wide_bar} {pos}/{len} {msg} {elapsed}",
            )?);
            bar.set_prefix(format!("{seed}, {:<27}", name(runs.way)));
            let watch = |history: &History| {
                bar.set_position(history.losses.len() as u64);
                let loss = history.losses.last().copied().unwrap_or_default();
                let accuracy = history
                    .accuracy
                    .last()
                    .map_or("  –  ".to_owned(), |share| format!("{:.1} %", 100.0 * share));
                bar.set_message(format!("loss {loss:.3} accuracy {accuracy}"));
            };
            let history = train(runs.way, plan, &devices, &digits, &watch)?;
            bar.finish();
            runs.histories.push(history);
        }
    }

    println!();
    print_table(&runs);
    let [local, synchronized, whole] = &runs[..] else { return Err("not three ways".into()) };
    println!(
        "\nLargest relative difference of the loss from that of the whole batch, first \
         {COMPARED} steps:"
    );
    for (name, runs) in [("synchronized", synchronized), ("local", local)] {
        let pairs = runs.histories.iter().zip(&whole.histories);
        let largest = pairs.map(|(a, b)| largest_difference(a, b, COMPARED)).fold(0.0, f64::max);
        println!("{name:<14}{largest:.1e}");
    }
    draw(&runs, &arguments.output)?;
    println!("\nCurves: {}\n{:.0} s", arguments.output.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// A virtual device for Burn, with its handles.
fn open(adapter: &wgpu::Adapter) -> Result<Opened, Failure> {
    let setup = syncbn_burn::setup(adapter)?;
    Ok((Device::wgpu_options().setup(setup.clone()).init()?, setup))
}
