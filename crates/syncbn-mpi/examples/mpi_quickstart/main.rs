//! The photos of the quickstart over several processes, and the same photos in one: every bit must
//! be equal.
//!
//! `scripts/mpi.sh 4 quickstart -- --help` describes it and its options.

mod devices;
#[path = "../../../../examples/quickstart/photos.rs"]
mod photos;

use std::error::Error;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use syncbn::stats::Moments;
use syncbn::{Backward, BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
use syncbn_mpi::Mpi;

use photos::Photos;

/// How long a rank waits for the others: the photos take a second or two, also on a software
/// driver.
const DEADLINE: Duration = Duration::from_secs(60);

/// Synchronized batch normalization of photos, each shard of the batch in its own process.
///
/// The photos form one batch (N, 3, H, W), cut into contiguous shards, one for each
/// process; where photos are fewer, the last shards are empty. Every process takes the
/// statistics of its shard and normalizes with those of all, forward and backward. Then
/// it does the same with all shards by itself: outputs, gradients and statistics must be
/// equal to the last bit.
#[derive(Debug, Parser)]
#[command(name = "mpi_quickstart", verbatim_doc_comment)]
struct Args {
    /// Open the devices on the first adapter whose name contains NAME, in any case, such
    /// as `llvmpipe` [default: host, the processor without a driver]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    adapter: Option<String>,

    /// Folder of PNG files, all of one size, taken in the order of their names
    /// [default: the project's four photos]
    #[arg(long, value_name = "FOLDER", verbatim_doc_comment)]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Before MPI begins, which prints usage and errors once for each process otherwise.
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
    let group = ProcessGroup::new(mpi.world()?).with_deadline(DEADLINE);
    let folder = args.input.clone().unwrap_or_else(|| project().join("examples/data/photos"));
    let photos = Photos::load(&folder)?;
    let shards = photos.shards(mpi.size());
    let devices = devices::open(args.adapter.as_deref(), mpi.size()).await?;
    let rank = mpi.rank();
    let config = BatchNormConfig::torch(3);
    let own = &shards[rank..=rank];

    let layer = SyncBatchNorm::new(config.clone(), [devices[rank].clone()])?.in_group(&group)?;
    let found = Pass::run(layer, &photos, own).await?;
    let alone = Pass::run(SyncBatchNorm::new(config, devices.clone())?, &photos, &shards).await?;
    let verdict = found.compare(&alone, rank)?;

    let names = photos.names[own[0].clone()].join(", ");
    let line = format!("process {rank}: {names}\n{}", described(&found.local[0]));
    let lines = group.all_gather(line.as_bytes()).await?;
    let lines: String = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
    if rank == 0 {
        let text = format!(
            "{} photos over {} processes, each on {}; mean and variance of red, green, \
            blue:\n\n{lines}all\n{}\n{verdict}\n",
            photos.names.len(),
            mpi.size(),
            kind(&devices[rank]),
            described(&found.global),
        );
        io::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Results of a pass over some shards, as bits for exact comparison.
struct Pass {
    /// y and the gradient of the input, of each shard.
    tensors: Vec<[Vec<u32>; 2]>,
    running: Vec<u32>,
    local: Vec<Vec<Moments>>,
    global: Vec<Moments>,
}

impl Pass {
    /// Forward, and backward with the photos themselves, scaled, as the gradient of the output.
    async fn run(
        layer: SyncBatchNorm,
        photos: &Photos,
        shards: &[Range<usize>],
    ) -> Result<Self, syncbn::Error> {
        let mut inputs = Vec::new();
        let mut grad_outputs = Vec::new();
        for (device, shard) in layer.devices().iter().zip(shards) {
            let dims = photos.dims(shard);
            let values = photos.values(shard);
            inputs.push(device.upload(&dims, values)?);
            grad_outputs.push(
                device
                    .upload(&dims, &values.iter().map(|x| x / 255.0 - 0.3).collect::<Vec<_>>())?,
            );
        }
        let forward = layer.forward_train(&inputs).await?;
        let backward = layer.backward(&forward.saved, Backward::of(&inputs, &grad_outputs)).await?;
        let mut tensors = Vec::new();
        for (y, grad_input) in forward.output.iter().zip(&backward.input) {
            tensors.push([bits(&y.to_vec().await?), bits(&grad_input.to_vec().await?)]);
        }
        let running =
            layer.running_stats().map(|running| [bits(&running.mean), bits(&running.var)].concat());
        let local =
            forward.saved.report().map(|report| report.local.ranks().to_vec()).unwrap_or_default();
        let global =
            forward.saved.statistics().map(|global| global.channels().to_vec()).unwrap_or_default();
        Ok(Self { tensors, running: running.unwrap_or_default(), local, global })
    }

    /// Whether this process's shard has the bits that it has among all shards in one process.
    fn compare(&self, alone: &Self, rank: usize) -> Result<String, String> {
        let numbers =
            |channel: &Moments| [channel.count, channel.mean.to_bits(), channel.m2.to_bits()];
        let global = |pass: &Self| pass.global.iter().map(numbers).collect::<Vec<_>>();
        let differs = [
            ("y", self.tensors[0][0] != alone.tensors[rank][0]),
            ("the gradient of the input", self.tensors[0][1] != alone.tensors[rank][1]),
            ("the running statistics", self.running != alone.running),
            ("the statistics", global(self) != global(alone)),
        ];
        match differs.iter().find(|(_, differs)| *differs) {
            Some((what, _)) => {
                Err(format!("process {rank}: {what} differs from that of one process"))
            }
            None => {
                Ok("Outputs, gradients and statistics are those of one process, to the last bit."
                    .to_owned())
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn described(channels: &[Moments]) -> String {
    let channel = |of: &Moments| match of.count {
        0 => "-".to_owned(),
        _ => format!("{:.4}, {:.3}", of.mean, of.var_biased()),
    };
    format!("  {}\n", channels.iter().map(channel).collect::<Vec<_>>().join("   "))
}

/// A device without the number that tells it from others.
fn kind(device: &Device) -> &str {
    device.name().rsplit_once(" #").map_or(device.name(), |(name, _)| name)
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
