//! Training over several ranks: a perceptron with synchronized batch normalization learns the same
//! as on one device.
//!
//! `cargo run --release --example train_step -- --help` says what it does and which options there
//! are. The way through:
//!
//! ```text
//! samples  ->  shards, one for each rank  ->  training in one thread per rank   ->  losses
//!          ->  the whole batch            ->  training on one device            ->  losses  ->  compared, step by step
//! ```

mod cli;
mod devices;
mod model;
mod threads;
mod training;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::Args;
use devices::open;
use model::Samples;
use threads::{cut, sizes, train};

/// What can go wrong here and not in a module of its own.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(
        "step {step}: the losses differ by {found:.1e}, rounding explains at most {allowed:.1e}"
    )]
    TooFar { step: usize, found: f64, allowed: f64 },
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
    print(&format!(
        "{} samples over {ranks} ranks ({sizes}), each on {device}\n\n",
        samples.len()
    ))?;

    let whole = 0..samples.len();
    let alone = train(true, &devices[..1], &samples, std::slice::from_ref(&whole), args.steps())?;
    let together = train(true, &devices, &samples, &shards, args.steps())?;
    let locally = train(false, &devices, &samples, &shards, args.steps())?;

    let titles = ["one device", "all ranks", "difference", "allowed", "not synchronized"];
    let [one, all, difference, allowed, not] = titles;
    let mut table =
        format!("step  {one:>14}  {all:>14}  {difference:>10}  {allowed:>7}  {not:>16}\n");
    let mut far = None;
    for step in 0..args.steps() {
        let (one, all) = (alone.losses[step], together.losses[step]);
        let (found, allowed) = ((one - all).abs(), alone.allowed(step));
        let not = locally.losses[step];
        table += &format!(
            "{step:>4}  {one:>14.11}  {all:>14.11}  {found:>10.1e}  {allowed:>7.1e}  {not:>16.11}\n"
        );
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

/// Prints, and carries on when nobody reads: the losses are still to be compared.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
