//! Latency of an exchange of 2·256 values beside a bare `MPI_Allreduce` of the same bytes, in one
//! run.
//!
//! `scripts/mpi.sh 4 latency -- --help` describes it and its options.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::CommunicatorCollectives;
use syncbn::collective::Collective;
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
use syncbn_mpi::Mpi;

/// How long ranks wait for each other: a step takes microseconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Steps before those that count: connections are made in the first.
const WARM_UP: usize = 50;
/// The measurements, in the order of a step.
const MEASURED: [&str; 5] =
    ["MPI_Allreduce", "transport", "exchange", "forward", "forward, no group"];

/// Latency of an exchange beside a bare MPI_Allreduce of the same bytes.
///
/// In turn, so that all see the same machine:
///
/// MPI_Allreduce of two f64 per channel;
/// transport: the transport's gathering of a message of as many bytes;
/// exchange: the exchange of a layer (message made, gathered, checked, merged), its local
///     statistics given;
/// forward: forward of that layer with two values per channel, local statistics, exchange and
///     outputs; and the same without a group, where one pass does all of it.
///
/// Printed are medians over all steps of the slowest rank's time, and ratios to the first.
#[derive(Debug, Parser)]
#[command(name = "mpi_latency", verbatim_doc_comment)]
struct Args {
    /// Channels of the layer, with two values each
    #[arg(long, value_name = "COUNT", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=16384))]
    channels: u16,

    /// Number of steps
    #[arg(long, value_name = "COUNT", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,

    /// All-reduce along the tree from this number of ranks on
    #[arg(long, value_name = "RANKS", default_value_t = 9,
        value_parser = clap::value_parser!(u32).range(2..))]
    tree_from: u32,
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

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mpi = Mpi::initialize()?;
    let channels = usize::from(args.channels);
    let transport = mpi.world_with_tree_from(args.tree_from as usize)?;
    let group = ProcessGroup::new(mpi.world_with_tree_from(args.tree_from as usize)?)
        .with_deadline(DEADLINE);
    let device = Device::host();
    let make = || SyncBatchNorm::new(BatchNormConfig::torch(channels), [device.clone()]);
    let layer = make()?.in_group(&group)?;
    let alone = make()?;
    let x = device.upload(&[2, channels], &vec![1.0; 2 * channels])?;
    let world = SimpleCommunicator::world();
    let own = vec![1.0f64; 2 * channels];
    let mut sums = vec![0.0f64; 2 * channels];

    let mut times = [const { Vec::new() }; MEASURED.len()];
    for step in 0..WARM_UP + args.steps as usize {
        let message = vec![0u8; 16 * channels];
        let local = pollster::block_on(layer.local_statistics(&x))?;
        // Every measurement begins with all ranks there.
        let begin = || {
            world.barrier();
            Instant::now()
        };
        let began = begin();
        world.all_reduce_into(&own[..], &mut sums[..], SystemOperation::sum());
        let reduced = began.elapsed();
        let began = begin();
        pollster::block_on(transport.all_gather(message, DEADLINE))?;
        let gathered = began.elapsed();
        let began = begin();
        pollster::block_on(layer.synchronize(local))?;
        let exchanged = began.elapsed();
        let forward = |layer: &SyncBatchNorm| {
            let began = begin();
            pollster::block_on(layer.forward_train(&x)).map(|_| began.elapsed())
        };
        let measured = [reduced, gathered, exchanged, forward(&layer)?, forward(&alone)?];
        if step >= WARM_UP {
            let measured = times.iter_mut().zip(measured);
            measured.for_each(|(times, time)| times.push(time.as_secs_f64() * 1e6));
        }
    }
    let mut medians = [0.0; MEASURED.len()];
    for (times, median) in times.iter().zip(&mut medians) {
        // The step is over when the last rank has its result.
        let mut slowest = vec![0.0f64; times.len()];
        world.all_reduce_into(&times[..], &mut slowest[..], SystemOperation::max());
        slowest.sort_by(f64::total_cmp);
        *median = slowest[slowest.len() / 2];
    }
    if mpi.rank() == 0 {
        println!("{} processes, 2·{channels} values, medians of {} steps:", mpi.size(), args.steps);
        for (name, median) in MEASURED.iter().zip(medians) {
            println!("  {name:<22} {median:8.1} us  {:5.2}", median / medians[0]);
        }
    }
    Ok(())
}
