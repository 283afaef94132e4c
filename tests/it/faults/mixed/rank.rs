//! What one rank of a drawn training does and sees.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;
use futures_timer::Delay;
use syncbn::collective::LocalGroup;
use syncbn::error::ExchangeError;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};
use tokio::runtime::Runtime;

use crate::common::transport::Tapped;
use crate::common::{adapter, own_device, virtual_gpus};
use crate::faults::mixed::calls::{Layers, Output};
use crate::faults::mixed::scenario::{
    CHANNELS, Call, Devices, Executor, Fault, STEP, Scenario, Way,
};
use crate::faults::rank::runtime;
use crate::faults::scenario::{CALLS, Call as Place, Scenario as Named, Then};
use crate::faults::survivors::{Ended, Survivor};

/// How long survivors wait for each other: longer than a culprit takes to come late.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much later than the others a rank asks that is slow.
const SLOW: Duration = Duration::from_millis(50);

/// What a rank saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub results: Vec<Output>,
    pub failure: Option<Failure>,
    /// What it did after its failure.
    pub survivor: Option<Result<Survivor, Error>>,
}

/// The first error of a rank, and what came after it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub call: Call,
    pub error: Error,
    pub took: Duration,
    /// Whether the running statistics are those from before the call.
    pub unchanged: bool,
    /// What the group says of itself.
    pub group: Option<ExchangeError>,
    /// What the next exchange gives, and how fast.
    pub next: Option<Error>,
    pub next_took: Duration,
}

/// What is to happen in the transport of a rank, at its next message.
#[derive(Debug, Default)]
struct Inside {
    armed: AtomicBool,
    fault: Option<Fault>,
    gpu: Option<wgpu::Device>,
}

impl Inside {
    fn pass(&self, message: Vec<u8>) -> Vec<u8> {
        if !self.armed.swap(false, Ordering::Relaxed) {
            return message;
        }
        match self.fault {
            // Unwinds like a panic, without the message on the terminal.
            Some(Fault::PanicsInside) => std::panic::resume_unwind(Box::new("planted")),
            Some(Fault::Garbage) => b"garbage".to_vec(),
            Some(Fault::LosesDeviceInside) => {
                self.lose();
                message
            }
            _ => message,
        }
    }

    fn lose(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.destroy();
        }
    }
}

/// Runs the scenario; `None` for a rank that panicked.
pub fn run(scenario: &Arc<Scenario>) -> Vec<Option<Report>> {
    let ranks = LocalGroup::ranks(scenario.world_size).into_iter().enumerate();
    let ranks = ranks.map(|(rank, inner)| {
        let fault = scenario.fault(rank);
        let (device, gpu) = device(scenario, rank);
        let inside = Arc::new(Inside { armed: AtomicBool::new(false), fault, gpu });
        let tap = inside.clone();
        let transport = Tapped::new(inner, move |message| tap.pass(message));
        let group = ProcessGroup::new(transport).with_deadline(scenario.deadline);
        let train = train(scenario.clone(), group, device, inside);
        AssertUnwindSafe(train).catch_unwind()
    });
    let ranks: Vec<_> = ranks.collect();
    match scenario.executor {
        Executor::Threads => {
            let threads =
                ranks.into_iter().map(|rank| std::thread::spawn(|| pollster::block_on(rank)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().ok()?.ok()).collect()
        }
        Executor::Tasks => {
            // A task that compiles kernels holds a thread for longer than others wait.
            static OF_GPUS: OnceLock<Runtime> = OnceLock::new();
            let runtime = match scenario.devices {
                Devices::Host => runtime(),
                Devices::Mixed => OF_GPUS.get_or_init(|| Runtime::new().expect("a runtime")),
            };
            let tasks: Vec<_> = ranks.into_iter().map(|rank| runtime.spawn(rank)).collect();
            tasks.into_iter().map(|task| runtime.block_on(task).ok()?.ok()).collect()
        }
        Executor::OneThread => {
            pollster::block_on(join_all(ranks)).into_iter().map(Result::ok).collect()
        }
    }
}

/// The device of a rank; one that is to be lost is the rank's own.
fn device(scenario: &Scenario, rank: usize) -> (Device, Option<wgpu::Device>) {
    if scenario.fault(rank).is_some_and(Fault::loses_device) {
        let (gpu, queue) = own_device(&adapter(), |_| {});
        return (Device::from_wgpu(gpu.clone(), queue).expect("a device"), Some(gpu));
    }
    let gpus = virtual_gpus;
    (if scenario.is_gpu(rank) { gpus()[rank % 3].clone() } else { Device::host() }, None)
}

async fn train(
    scenario: Arc<Scenario>,
    group: ProcessGroup,
    device: Device,
    inside: Arc<Inside>,
) -> Report {
    let rank = group.rank();
    let layers = [0, 1].map(|layer| {
        let config = BatchNormConfig::torch(CHANNELS[layer]);
        let of_rank = SyncBatchNorm::new(config, [device.clone()]).expect("valid settings");
        of_rank.named(Named::name(layer)).in_group(&group).expect("a layer of the group")
    });
    let mut layers = Layers::new(layers);
    let mut report = Report::default();
    let mut begun = layers.running();
    for &call in &scenario.calls {
        if call.forward {
            begun = layers.running();
        }
        let fault = scenario.fault(rank).filter(|_| call.number == scenario.at);
        match fault {
            Some(Fault::Late) => Delay::new(2 * scenario.deadline).await,
            Some(Fault::Panics) => std::panic::resume_unwind(Box::new("planted")),
            Some(Fault::Leaves) => return report,
            Some(Fault::Notifies) => group.abort("planted"),
            Some(Fault::DropsCall) => {
                let made = layers.make(&scenario, &group, call, || ()).now_or_never();
                // It may have come last, and had its result at once; then it leaves.
                report.results.extend(made.and_then(Result::ok));
                return report;
            }
            _ => {}
        }
        let before = layers.running();
        inside.armed.store(fault.is_some(), Ordering::Relaxed);
        let began = Instant::now();
        let lose = || {
            if fault == Some(Fault::LosesDevice) {
                inside.lose();
            }
        };
        let made = layers.make(&scenario, &group, call, lose).await;
        let took = began.elapsed();
        match made {
            Ok(output) => report.results.push(output),
            Err(error) => {
                let fails = scenario.fault(rank).is_some();
                let seen = (call, error, took);
                report.failure = Some(failure(&layers, &group, seen, &before, fails).await);
                break;
            }
        }
    }
    if report.failure.is_some() && scenario.fault(rank).is_none() {
        report.survivor = survive(&scenario, group, layers, begun).await;
    }
    report
}

async fn failure(
    layers: &Layers,
    group: &ProcessGroup,
    (call, error, took): (Call, Error, Duration),
    before: &[RunningStats],
    fails: bool,
) -> Failure {
    let unchanged = layers.running() == before;
    let said = group.failure();
    let began = Instant::now();
    // Steps of a call that are no exchange are the program's: the group does not know of their
    // errors, and the rank that has one makes no more calls.
    let next = if fails { None } else { group.barrier().await.err() };
    Failure { call, error, took, unchanged, group: said, next, next_took: began.elapsed() }
}

/// What a rank without a fault does after its error.
async fn survive(
    scenario: &Arc<Scenario>,
    group: ProcessGroup,
    layers: Layers,
    begun: Vec<RunningStats>,
) -> Option<Result<Survivor, Error>> {
    match scenario.then(group.rank()) {
        Some(Then::Panics) => std::panic::resume_unwind(Box::new("planted")),
        Some(Then::Leaves) => return None,
        Some(Then::DropsSurvivors) => {
            let found = group.survivors(PATIENCE).now_or_never()?;
            return Some(go_on(scenario, found, layers, begun).await);
        }
        Some(Then::IsSlow) => Delay::new(SLOW).await,
        None => {}
    }
    let found = group.survivors(PATIENCE).await;
    Some(go_on(scenario, found, layers, begun).await)
}

/// A step with the ranks that go on. If one of them is the rank that drops its question, and was
/// counted before it did, they ask once more.
async fn go_on(
    scenario: &Arc<Scenario>,
    group: Result<ProcessGroup, Error>,
    layers: Layers,
    begun: Vec<RunningStats>,
) -> Result<Survivor, Error> {
    let mut group = group?;
    let [first, second] = layers.layers;
    let mut layers = Layers::new([first.in_group(&group)?, second.in_group(&group)?]);
    let dropped =
        scenario.second.filter(|(_, then)| *then == Then::DropsSurvivors).map(|(rank, _)| rank);
    loop {
        match step(scenario, &group, &mut layers, &begun).await {
            Err(Error::Exchange(ExchangeError::Left { rank, panicked: false, .. }))
                if Some(rank) == dropped =>
            {
                group = group.survivors(PATIENCE).await?;
                let [first, second] = layers.layers;
                layers = Layers::new([first.in_group(&group)?, second.in_group(&group)?]);
            }
            Err(error) => return Err(error),
            Ok(results) => {
                let world_ranks = group.world_ranks().to_vec();
                return Ok(Survivor { world_ranks, results, running: layers.running() });
            }
        }
    }
}

/// The results of the calls of a step, from the state of the lowest rank and the running statistics
/// of the step that failed.
async fn step(
    scenario: &Arc<Scenario>,
    group: &ProcessGroup,
    layers: &mut Layers,
    begun: &[RunningStats],
) -> Result<Vec<Vec<f32>>, Error> {
    for (layer, running) in layers.layers.iter_mut().zip(begun) {
        layer.set_running_stats(running.clone())?;
        // A state that was to be shared may be another.
        layer.set_parameters(Some(&vec![1.0; layer.config().num_features]), None)?;
        layer.broadcast_state(0).await?;
    }
    let survivors = scenario.of_survivors(group.world_size());
    let mut results = Vec::new();
    for Place { forward, layer, .. } in (0..CALLS).map(Place::new) {
        let call = Call { number: usize::MAX, step: STEP, way: Way::Single(layer), forward };
        results.extend(layers.make(&survivors, group, call, || ()).await?);
    }
    Ok(results)
}
