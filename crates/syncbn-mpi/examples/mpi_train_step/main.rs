//! A training over several processes, and the same in one: every loss must be equal to the last
//! bit.
//!
//! `scripts/mpi.sh 4 train_step -- --help` describes it and its options.

#[path = "../mpi_quickstart/devices.rs"]
mod devices;
mod model;
mod threads;
mod training;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use syncbn::ProcessGroup;
use syncbn_mpi::Mpi;

use model::Samples;
use threads::DEADLINE;
use training::Rank;

/// Training of a perceptron over several processes, beside the same training in one.
///
/// A regression in two variables is learned by gradient descent: a linear layer, batch
/// normalization, tanh, a linear layer. Every process has a shard of the batch, and the
/// processes share the statistics of the batch and add up their gradients. Then every
/// process trains all shards by itself, in threads: the losses of all steps must be
/// equal to the last bit.
#[derive(Debug, Parser)]
#[command(name = "mpi_train_step", verbatim_doc_comment)]
struct Args {
    /// Number of samples in the batch, of all ranks together
    #[arg(long, value_name = "COUNT", default_value_t = 96,
        value_parser = clap::value_parser!(u16).range(64..=4096))]
    samples: u16,

    /// Number of steps
    #[arg(long, value_name = "COUNT", default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,

    /// Open the devices on the first adapter whose name contains NAME, in any case, such
    /// as `llvmpipe` [default: host, the processor without a driver]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    adapter: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("process {rank}, step {step}: the loss is {found}, in one process {expected}")]
struct Differs {
    rank: usize,
    step: usize,
    found: f64,
    expected: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match pollster::block_on(run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a failure of this.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mpi = Mpi::initialize()?;
    let rank = mpi.rank();
    let processes = mpi.size();
    let steps = usize::from(args.steps);
    let samples = Samples::new(args.samples.into());
    let shards = threads::cut(samples.len(), processes);
    let devices = devices::open(args.adapter.as_deref(), processes).await?;

    let of_this_process = Rank {
        group: ProcessGroup::new(mpi.world()?).with_deadline(DEADLINE),
        device: devices[rank].clone(),
        samples: samples.part(&shards[rank]),
        total: samples.len(),
    };
    let over_processes = of_this_process.train(steps).await?;
    let in_one = threads::train(&devices, &samples, &shards, steps)?;

    for (step, (&found, &expected)) in over_processes.iter().zip(&in_one).enumerate() {
        if found.to_bits() != expected.to_bits() {
            return Err(Differs { rank, step, found, expected }.into());
        }
    }
    if rank == 0 {
        let mut text = format!(
            "{} samples over {processes} processes ({}); the loss of the batch:\n\nstep\n",
            samples.len(),
            threads::sizes(&shards)
        );
        for (step, loss) in over_processes.iter().enumerate() {
            text += &format!("{step:>4}  {loss:>17.14}\n");
        }
        text += "\nEvery loss is that of one process, to the last bit.\n";
        io::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}
