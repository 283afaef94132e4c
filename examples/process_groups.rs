//! Process groups: four ranks normalize in two groups, made in either of two forms; then what goes
//! wrong, and how it is reported.
//!
//! `cargo run --release --example process_groups -- --help` says what it does and which options
//! there are.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use syncbn::collective::LocalGroup;
use syncbn::stats::Moments;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

/// Ranks of the example, each a thread.
const RANKS: usize = 4;
/// How long ranks wait that need not wait: longer than any of them takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Four ranks in two process groups.
///
/// Ranks are threads here, and each has two values of one channel, (N, C) = (2, 1). First
/// the ranks 0, 1 and 2, 3 normalize together, in groups made by `partition`, where every
/// rank gives the whole partition, as in MindSpore; then 0, 3 and 1, 2 in groups made by
/// `subgroup`, where every rank gives its own group, as in PyTorch. Then a partition is
/// asked for that cannot be made, and last a rank comes too late.
#[derive(Debug, Parser)]
#[command(name = "process_groups", after_help = EXAMPLES, verbatim_doc_comment)]
struct Args {
    /// How long the others wait for the late rank, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    deadline: u64,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release --example process_groups
  cargo run --release --example process_groups -- --deadline 2000";

/// What a rank has to report: a line, or why there is none.
type Reported = Result<String, String>;

fn main() -> ExitCode {
    let deadline = Duration::from_millis(Args::parse().deadline);
    let shown = [
        ("groups by partition: [[0, 1], [2, 3]]", on_ranks(PATIENCE, by_partition), true),
        ("groups by subgroup: [0, 3] and [1, 2]", on_ranks(PATIENCE, by_subgroup), true),
        (
            "a partition that cannot be made: [[0, 1], [1, 2, 3]]",
            on_ranks(PATIENCE, impossible),
            false,
        ),
        ("rank 2 comes late", on_ranks(deadline, late), false),
    ];
    let mut as_expected = true;
    let mut text = String::new();
    for (title, ranks, works) in shown {
        text += &format!("{title}\n");
        for (rank, reported) in ranks.into_iter().enumerate() {
            as_expected &= reported.is_ok() == works;
            text += &format!(
                "  rank {rank}: {}\n",
                reported.unwrap_or_else(|error| format!("error: {error}"))
            );
        }
        text += "\n";
    }
    let printed = io::stdout().write_all(text.as_bytes());
    let problem = match printed {
        _ if !as_expected => {
            "a rank failed that should not have, or did not where it should".to_owned()
        }
        Err(error) if error.kind() != ErrorKind::BrokenPipe => error.to_string(),
        _ => return ExitCode::SUCCESS,
    };
    // Nobody is left to tell when this fails too.
    let _ = writeln!(io::stderr(), "error: {problem}");
    ExitCode::FAILURE
}

/// Runs the same on all ranks of a new group, one thread each.
fn on_ranks(
    deadline: Duration,
    body: impl Fn(ProcessGroup) -> Result<String, Error> + Sync,
) -> Vec<Reported> {
    let body = &body;
    std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(RANKS)
            .into_iter()
            .map(|rank| ProcessGroup::new(rank).with_deadline(deadline));
        let threads: Vec<_> = groups.map(|group| scope.spawn(move || body(group))).collect();
        let reported = |thread: ScopedJoinHandle<'_, Result<String, Error>>| match thread.join() {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("it panicked".to_owned()),
        };
        threads.into_iter().map(reported).collect()
    })
}

fn by_partition(world: ProcessGroup) -> Result<String, Error> {
    normalize(&pollster::block_on(world.partition(&[vec![0, 1], vec![2, 3]]))?, &world)
}

fn by_subgroup(world: ProcessGroup) -> Result<String, Error> {
    let own = if [0, 3].contains(&world.rank()) { [0, 3] } else { [1, 2] };
    normalize(&pollster::block_on(world.subgroup(&own))?, &world)
}

/// Rank r has the values 10·r and 10·r + 2.
fn normalize(group: &ProcessGroup, world: &ProcessGroup) -> Result<String, Error> {
    let (host, first) = (Device::host(), 10.0 * world.rank() as f32);
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?.in_group(group)?;
    let forward =
        pollster::block_on(layer.forward_train(&host.upload(&[2, 1], &[first, first + 2.0])?))?;
    // A layer that trains on the batch of its group has them.
    let global = forward.saved.statistics().map_or(Moments::EMPTY, |global| global.channels()[0]);
    let y = pollster::block_on(forward.output.to_vec())?;
    Ok(format!(
        "x = [{first}, {}], with ranks {:?}: mean {} and variance {} of {} values, y = {y:.3?}",
        first + 2.0,
        group.world_ranks(),
        global.mean,
        global.var_biased(),
        global.count,
    ))
}

/// Rank 1 is in two lists. All ranks find the same, and could go on.
fn impossible(world: ProcessGroup) -> Result<String, Error> {
    let group = pollster::block_on(world.partition(&[vec![0, 1], vec![1, 2, 3]]))?;
    Ok(format!("made a group of {:?}", group.world_ranks()))
}

/// Rank 2 sleeps through the deadline. Nobody waits longer than that, and nobody goes on with half
/// of the batch.
fn late(world: ProcessGroup) -> Result<String, Error> {
    let host = Device::host();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?
        .named("features.bn")
        .in_group(&world)?;
    if world.rank() == 2 {
        std::thread::sleep(2 * world.deadline());
    }
    let began = Instant::now();
    pollster::block_on(layer.forward_train(&host.zeros(&[2, 1])?))?;
    Ok(format!("had a result after {:.1?}", began.elapsed()))
}
