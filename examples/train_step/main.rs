//! Training over several ranks: a perceptron with synchronized batch normalization learns the same as on one device.
//!
//! `cargo run --release --example train_step -- --help` says what it does and which options there are. The way through:
//!
//! ```text
//! samples  ->  shards, one for each rank  ->  training in one thread per rank   ->  losses
//!          ->  the whole batch            ->  training on one device            ->  losses  ->  compared, step by step
//! ```

mod cli;
mod model;
mod training;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use syncbn::{Device, LocalGroup, ProcessGroup};

use cli::Args;
use model::Samples;
use training::{Losses, Rank, TrainError};

/// How long a rank waits for the others: a step takes milliseconds, also on a software driver.
const DEADLINE: Duration = Duration::from_secs(20);

/// What can go wrong here and not in a module of its own.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("no adapter's name contains {wanted:?}; available are: {}", available.join(", "))]
    NoAdapter { wanted: String, available: Vec<String> },
    #[error("step {step}: the losses differ by {found:.1e}, rounding explains at most {allowed:.1e}")]
    TooFar { step: usize, found: f64, allowed: f64 },
    #[error("rank {rank} panicked")]
    Panicked { rank: usize },
}

fn main() -> ExitCode {
    match pollster::block_on(run(&Args::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let samples = Samples::new(args.samples());
    let shards = cut(samples.len(), args.ranks());
    let devices = open(args.adapter.as_deref(), args.ranks()).await?;
    let (ranks, sizes, device) = (devices.len(), sizes(&shards), &devices[0]);
    print(&format!("{} samples over {ranks} ranks ({sizes}), each on {device}\n\n", samples.len()))?;

    let groups =
        || LocalGroup::ranks(devices.len()).into_iter().map(|rank| ProcessGroup::new(rank).with_deadline(DEADLINE));
    let whole = 0..samples.len();
    let alone = vec![ProcessGroup::single()];
    let alone = train(alone, &devices[..1], &samples, std::slice::from_ref(&whole), args.steps())?;
    let together = train(groups().collect(), &devices, &samples, &shards, args.steps())?;
    let locally = devices.iter().map(|_| ProcessGroup::single()).collect();
    let locally = train(locally, &devices, &samples, &shards, args.steps())?;

    let titles = ["one device", "all ranks", "difference", "allowed", "not synchronized"];
    let [one, all, difference, allowed, not] = titles;
    let mut table = format!("step  {one:>14}  {all:>14}  {difference:>10}  {allowed:>7}  {not:>16}\n");
    let mut far = None;
    for step in 0..args.steps() {
        let (one, all) = (alone.losses[step], together.losses[step]);
        let (found, allowed) = ((one - all).abs(), alone.allowed(step));
        let not = locally.losses[step];
        table += &format!("{step:>4}  {one:>14.11}  {all:>14.11}  {found:>10.1e}  {allowed:>7.1e}  {not:>16.11}\n");
        if far.is_none() && (found.is_nan() || found > allowed) {
            far = Some(RunError::TooFar { step, found, allowed });
        }
    }
    print(&table)?;
    if let Some(error) = far {
        return Err(error.into());
    }
    print("\nThe ranks learned what one device learns, up to rounding.\n")?;
    Ok(())
}

/// Trains in one thread per rank; the losses are those of the whole batch, the same on every rank.
fn train(
    groups: Vec<ProcessGroup>,
    devices: &[Device],
    samples: &Samples,
    shards: &[Range<usize>],
    steps: usize,
) -> Result<Losses, Box<dyn Error>> {
    // Gradients go their own way, as they would with a trainer's all-reduce.
    let ranks = LocalGroup::ranks(groups.len()).into_iter().zip(groups).zip(devices).zip(shards);
    let results: Vec<Option<Result<Losses, TrainError>>> = std::thread::scope(|scope| {
        let threads = ranks.map(|(((gradients, group), device), shard)| {
            let (device, samples, total) = (device.clone(), samples.part(shard), samples.len());
            scope.spawn(move || {
                let rank = Rank { gradients, group, device, samples, total, deadline: DEADLINE };
                pollster::block_on(rank.train(steps))
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    let mut losses = Vec::with_capacity(results.len());
    for (rank, result) in results.into_iter().enumerate() {
        losses.push(result.ok_or(RunError::Panicked { rank })??);
    }
    // The command line leaves no way here without a rank.
    Ok(losses.swap_remove(0))
}

/// Shards of different sizes: the ranks get 1, 2, 1, 2 … parts of the batch.
fn cut(samples: usize, ranks: usize) -> Vec<Range<usize>> {
    let parts = |ranks: usize| ranks + ranks / 2;
    let end = |rank: usize| samples * parts(rank) / parts(ranks);
    (0..ranks).map(|rank| end(rank)..end(rank + 1)).collect()
}

fn sizes(shards: &[Range<usize>]) -> String {
    shards.iter().map(|shard| shard.len().to_string()).collect::<Vec<_>>().join(" + ")
}

/// One device for each rank: the host, or as many on the first adapter whose name contains `wanted`.
async fn open(wanted: Option<&str>, count: usize) -> Result<Vec<Device>, Box<dyn Error>> {
    let Some(wanted) = wanted.filter(|name| !name.eq_ignore_ascii_case("host")) else {
        return Ok(vec![Device::host(); count]);
    };
    let adapters = syncbn::adapters().await;
    let name = |adapter: &syncbn::wgpu::Adapter| adapter.get_info().name;
    let found = adapters.iter().find(|adapter| name(adapter).to_lowercase().contains(&wanted.to_lowercase()));
    let Some(adapter) = found else {
        let available = adapters.iter().map(name).chain(["host".to_owned()]).collect();
        return Err(RunError::NoAdapter { wanted: wanted.to_owned(), available }.into());
    };
    let mut devices = Vec::with_capacity(count);
    for _ in 0..count {
        devices.push(Device::from_adapter(adapter).await?);
    }
    Ok(devices)
}

/// Prints, and carries on when nobody reads: the losses are still to be compared.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
