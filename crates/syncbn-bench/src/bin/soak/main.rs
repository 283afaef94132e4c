//! Trains for minutes while layers, groups and devices come and go and ranks fail, and records what
//! the process holds: memory, threads, open files. They must not grow.
//!
//! `scripts/soak.sh --help` describes it. `round` is a training that fails in the middle, `step`
//! one step of it, `watch` the record, `flat` the judgement, `bare` the driver without this
//! library.

mod bare;
mod flat;
mod round;
mod step;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use syncbn_testkit::Random;

use watch::{Counts, Watch};

/// Trains for minutes while layers, groups and devices come and go and ranks fail.
///
/// Every round makes a group of 2 to 4 ranks, in threads, with layers of its own, on the host and
/// on a GPU that in every fourth round is opened for it. A rank fails in the middle; the others go
/// on without it. Every output is checked. Memory, threads and open files of the process are
/// written once per second; at the end they must be flat.
#[derive(Debug, Parser)]
#[command(name = "soak", verbatim_doc_comment)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,

    /// Where the record goes, as CSV
    #[arg(long, default_value = "target/soak.csv")]
    csv: PathBuf,

    /// Seed of shapes, settings and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Only opens devices, makes a pipeline and a buffer on each, and closes them, without layers:
    /// what the driver and wgpu keep for themselves
    #[arg(long)]
    bare: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let adapters = pollster::block_on(syncbn::Device::adapters());
    // Software drivers are at the end of the list.
    let adapter = adapters.last().ok_or("there is no GPU: install a software driver")?;
    let info = adapter.get_info();
    let counts = Arc::new(Counts::default());
    let watch = Watch::begin(&args.csv, counts.clone(), &info.name)?;
    let mut random = Random::new(args.seed);
    let began = Instant::now();
    let lasts = Duration::from_secs_f64(60.0 * args.minutes);
    // One device lives as long as the program.
    let kept = pollster::block_on(syncbn::Device::from_adapter(adapter))?;
    // A rank that is to panic says nothing more than that.
    std::panic::set_hook(Box::new(|_| {}));
    while began.elapsed() < lasts {
        if args.bare {
            bare::round(adapter, &counts)?;
        } else {
            round::round(&mut random, adapter, &kept, &counts)?;
        }
    }
    let _ = std::panic::take_hook();
    let samples = watch.end()?;
    println!("{counts}, on {} and the host", info.name);
    flat::judge(&samples)
}
