//! A training of a few ranks in threads, one of which fails in the middle.

use std::error::Error;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm, wgpu};
use syncbn_testkit::Random;

use crate::step::step;
use crate::watch::Counts;

/// Of the exchanges: longer than a machine with ten times more work than cores delays a thread that
/// gives way to all others, and compiles kernels.
const DEADLINE: Duration = Duration::from_secs(120);
/// Of those that wait for a rank that does not come.
const SHORT: Duration = Duration::from_secs(15);
/// One round in so many has one: the others only sleep meanwhile.
const LATE_EVERY: usize = 40;
/// Of the ranks that go on.
const PATIENCE: Duration = Duration::from_secs(120);
/// Steps before the fault, and after it.
const STEPS: u64 = 5;
/// A device is opened for every so many rounds.
const DEVICE_EVERY: u64 = 4;

/// The fault of the last rank, in place of its step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    Panics,
    Leaves,
    IsLate,
    DropsCall,
    LosesDevice,
}

/// The plan of a round, which all ranks know.
#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Fault,
    channels: usize,
    reproducible: bool,
    seed: u64,
}

/// Draws a round, and runs it to its end. An error is a wrong number, or an error that nobody
/// planted.
pub fn round(
    random: &mut Random,
    adapter: &wgpu::Adapter,
    kept: &Device,
    counts: &Counts,
) -> Result<(), Box<dyn Error>> {
    let number = counts.rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let opened = number.is_multiple_of(DEVICE_EVERY);
    let device = if opened {
        Counts::add(&counts.devices);
        block_on(Device::from_adapter(adapter))?
    } else if random.below(2) == 0 {
        kept.clone()
    } else {
        Device::host()
    };
    let faults = [Fault::Nothing, Fault::Panics, Fault::Leaves, Fault::DropsCall];
    let fault = match random.below(LATE_EVERY) {
        0 => Fault::IsLate,
        drawn if drawn % 5 == 4 && opened => Fault::LosesDevice,
        drawn => faults[drawn % faults.len()],
    };
    let ranks = 2 + random.below(3);
    let plan = Plan {
        fault,
        channels: 1 + random.below(48),
        reproducible: random.below(4) == 0,
        seed: random.bits() >> 32 << 8,
    };
    if fault != Fault::Nothing {
        Counts::add(&counts.faults);
    }
    let deadline = if fault == Fault::IsLate { SHORT } else { DEADLINE };
    let reports = thread::scope(|scope| {
        let places = LocalGroup::ranks(ranks).into_iter().enumerate();
        let threads = places.map(|(rank, place)| {
            // The rank with the fault is on the device.
            let device = if rank + 1 == ranks { device.clone() } else { Device::host() };
            let group = ProcessGroup::new(place).with_deadline(deadline);
            scope.spawn(move || block_on(train(group, device, plan, counts)))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for (rank, report) in reports.into_iter().enumerate() {
        match report {
            Err(_) if fault == Fault::Panics && rank + 1 == ranks => {}
            Err(_) => return Err(format!("{plan:?}: rank {rank} of {ranks} panicked").into()),
            Ok(Err(what)) => return Err(format!("{plan:?}, rank {rank} of {ranks}: {what}").into()),
            Ok(Ok(())) => {}
        }
    }
    Ok(())
}

/// One rank. An error says what was not planned.
async fn train(
    group: ProcessGroup,
    device: Device,
    plan: Plan,
    counts: &Counts,
) -> Result<(), String> {
    let is_culprit = group.rank() + 1 == group.world_size() && plan.fault != Fault::Nothing;
    let make = |group: &ProcessGroup| {
        Counts::add(&counts.layers);
        let config = BatchNormConfig::torch(plan.channels).with_reproducible(plan.reproducible);
        SyncBatchNorm::new(config, [device.clone()])?.in_group(group)
    };
    let text = |error: syncbn::Error| error.to_string();
    let mut layer = make(&group).map_err(text)?;
    for number in 0..STEPS {
        step(&group, &layer, plan.seed + number).await.map_err(text)??;
        Counts::add(&counts.steps);
        // A layer that lives for one step.
        let short = make(&group).map_err(text)?;
        step(&group, &short, plan.seed + number).await.map_err(text)??;
        Counts::add(&counts.steps);
    }
    if is_culprit {
        match plan.fault {
            Fault::Panics => std::panic::resume_unwind(Box::new("planted")),
            Fault::IsLate => thread::sleep(SHORT + SHORT / 2),
            Fault::DropsCall => drop(step(&group, &layer, plan.seed + STEPS).now_or_never()),
            Fault::LosesDevice => {
                if let Some((gpu, _)) = device.wgpu() {
                    gpu.destroy();
                }
                return match step(&group, &layer, plan.seed + STEPS).await {
                    Ok(_) => Err("a lost device gave a result".to_owned()),
                    Err(_) => Ok(()),
                };
            }
            Fault::Leaves | Fault::Nothing => {}
        }
        return Ok(());
    }
    let group = match fails(&group, &layer, plan).await? {
        None => group,
        Some(_) => {
            let found = group.survivors(PATIENCE).await.map_err(text)?;
            layer = layer.in_group(&found).map_err(text)?;
            Counts::add(&counts.recoveries);
            found.with_deadline(DEADLINE)
        }
    };
    for number in 0..STEPS {
        step(&group, &layer, plan.seed + 2 * STEPS + number).await.map_err(text)??;
        Counts::add(&counts.steps);
    }
    Ok(())
}

/// The step in which the others notice the fault, and its error; `None` if there is none to notice.
/// A call that was dropped may have had its result at once: then it is the next step.
async fn fails(
    group: &ProcessGroup,
    layer: &SyncBatchNorm,
    plan: Plan,
) -> Result<Option<syncbn::Error>, String> {
    for number in 0..2 {
        match step(group, layer, plan.seed + STEPS + number).await {
            Ok(judged) => judged?,
            Err(error) if plan.fault == Fault::Nothing => return Err(error.to_string()),
            Err(error) => return Ok(Some(error)),
        }
    }
    if plan.fault == Fault::Nothing { Ok(None) } else { Err("nobody noticed the fault".to_owned()) }
}
