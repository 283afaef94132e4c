//! What one rank of a scenario does and sees.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures_timer::Delay;
use syncbn::collective::LocalGroup;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, Device, Error, Forward, ProcessGroup, Saved, SyncBatchNorm, Tensor,
    error::ExchangeError,
};

use crate::common::sabotage::{Sabotage, saboteur};
use crate::faults::scenario::{CALLS, Call, Executor, Fault, STEPS, Scenario, Then};
use crate::faults::survivors::{Ended, Survivor};

/// How long survivors wait for each other: longer than a culprit takes to come late.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a rank saw.
#[derive(Debug, Default)]
pub struct Report {
    /// The results of its calls: y, or the gradient of the input.
    pub results: Vec<Vec<f32>>,
    pub failure: Option<Failure>,
    /// Running statistics of both layers at the end.
    pub running: Vec<RunningStats>,
    /// What it did after its failure, unless it is the culprit.
    pub survivor: Option<Result<Survivor, Error>>,
}

/// The first error of a rank, and what came after it.
#[derive(Debug)]
pub struct Failure {
    pub call: Call,
    pub error: Error,
    /// From the beginning of the call to its end.
    pub took: Duration,
    /// Whether the running statistics are those from before the call.
    pub unchanged: bool,
    /// What the group says of itself.
    pub group: Option<ExchangeError>,
    /// What the next call of another layer gives.
    pub next: Option<Error>,
    pub next_took: Duration,
}

/// Runs the scenario; `None` for a rank that panicked.
pub fn run(scenario: Scenario) -> Vec<Option<Report>> {
    let sabotage = |rank| match scenario.fault {
        Fault::PanicsInside if rank == scenario.culprit => Sabotage::Panic,
        Fault::Garbage if rank == scenario.culprit => Sabotage::Send(b"garbage".to_vec()),
        _ => Sabotage::Nothing,
    };
    let ranks = LocalGroup::ranks(scenario.world_size).into_iter().enumerate();
    let groups = ranks.map(|(rank, inner)| {
        let transport = saboteur(inner, sabotage(rank), scenario.call.number);
        ProcessGroup::new(transport).with_deadline(scenario.deadline)
    });
    match scenario.executor {
        Executor::Threads => {
            let threads = groups.map(|group| {
                std::thread::spawn(move || pollster::block_on(train(scenario, group)))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().ok()).collect()
        }
        Executor::Tasks => {
            let tasks: Vec<_> =
                groups.map(|group| runtime().spawn(train(scenario, group))).collect();
            tasks.into_iter().map(|task| runtime().block_on(task).ok()).collect()
        }
    }
}

pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
    })
}

/// The layers of a rank, and what backward needs.
struct Rank {
    scenario: Scenario,
    group: ProcessGroup,
    layers: [SyncBatchNorm; 2],
    /// One for each forward call of the layer.
    saved: [Vec<(Saved, Tensor)>; 2],
}

async fn train(scenario: Scenario, group: ProcessGroup) -> Report {
    let layer = |layer| {
        let config = scenario.config(group.rank(), layer);
        let of_rank = SyncBatchNorm::new(config, [Device::host()]).expect("a valid configuration");
        of_rank
            .named(Scenario::name(layer))
            .in_group(&group)
            .expect("parameters that ranks compare")
    };
    let layers = [layer(0), layer(1)];
    let mut rank = Rank { scenario, group, layers, saved: [Vec::new(), Vec::new()] };
    let mut report = Report::default();
    let mut begun = rank.running();
    for call in (0..CALLS * STEPS).map(Call::new) {
        if call.number % CALLS == 0 {
            begun = rank.running();
        }
        let planted = rank.group.rank() == scenario.culprit && call == scenario.call;
        let mut call_made = call;
        match scenario.fault {
            Fault::Late if planted => Delay::new(2 * scenario.deadline).await,
            Fault::Evaluates if planted => {
                rank.evaluate(call).await.expect("evaluation alone");
                Delay::new(2 * scenario.deadline).await;
            }
            Fault::Panics if planted => std::panic::resume_unwind(Box::new("planted")),
            Fault::Leaves if planted => return report,
            Fault::Notifies if planted => rank.group.abort("planted"),
            Fault::DropsUnpolled if planted => {
                drop(rank.make(call));
                return report;
            }
            Fault::DropsDuring if planted => {
                if let Some(result) = rank.make(call).now_or_never() {
                    // It came last, and had its result at once. It leaves then, and the others
                    // learn at their next call.
                    report.results.extend(result);
                    return report;
                }
            }
            Fault::OtherLayer if planted => call_made.layer = 1 - call.layer,
            Fault::OtherPhase if planted => call_made.forward = !call.forward,
            _ => {}
        }
        let before = rank.running();
        let began = Instant::now();
        let result = rank.make(call_made).await;
        let took = began.elapsed();
        match result {
            Ok(values) => report.results.push(values),
            Err(error) => {
                report.failure = Some(rank.failure(call, error, took, &before).await);
                break;
            }
        }
    }
    report.running = rank.running();
    if report.failure.is_some() && rank.group.rank() != scenario.culprit {
        report.survivor = match scenario.then(rank.group.rank()) {
            Some(Then::Panics) => std::panic::resume_unwind(Box::new("planted")),
            Some(Then::Leaves) => None,
            Some(Then::DropsSurvivors) => match rank.group.survivors(PATIENCE).now_or_never() {
                Some(Ok(group)) => Some(rank.go_on(group, begun).await),
                Some(Err(error)) => Some(Err(error)),
                None => None,
            },
            then => {
                if then == Some(Then::IsSlow) {
                    Delay::new(scenario.deadline / 4).await;
                }
                match rank.group.survivors(PATIENCE).await {
                    Ok(group) => Some(rank.go_on(group, begun).await),
                    Err(error) => Some(Err(error)),
                }
            }
        };
    }
    report
}

impl Rank {
    fn running(&self) -> Vec<RunningStats> {
        self.layers.iter().map(|layer| layer.running_stats().expect("running statistics")).collect()
    }

    /// This rank's input and upstream gradient; of a wrong shape where that is planted.
    fn tensors(&self, call: Call) -> [Tensor; 2] {
        let rank = self.group.rank();
        let [x, g] = self.scenario.data(call.step, call.layer);
        let channels = self.layers[call.layer].config().num_features;
        let bad = self.scenario.fault == Fault::BadShape
            && rank == self.scenario.culprit
            && call == self.scenario.call;
        [(x, bad && call.forward), (g, bad && !call.forward)].map(|(batches, bad)| {
            let host = &self.layers[call.layer].devices()[0];
            match &batches[rank] {
                // A layer of another number of channels gets an input to match.
                batch if batch.dims[1] != channels => {
                    host.zeros(&[batch.dims[0], channels]).expect("a tensor")
                }
                batch if bad => host.zeros(&[batch.dims[0], channels + 1]).expect("a tensor"),
                batch => batch.upload(host),
            }
        })
    }

    async fn make(&mut self, call: Call) -> Result<Vec<f32>, Error> {
        let [x, g] = self.tensors(call);
        let planted = self.group.rank() == self.scenario.culprit && call == self.scenario.call;
        let layer = &self.layers[call.layer];
        if call.forward {
            let forward = match self.scenario.fault {
                Fault::Recomputes if planted => {
                    layer.forward_train(Forward::of(&x).untracked()).await?
                }
                _ => layer.forward_train(&x).await?,
            };
            self.saved[call.layer].push((forward.saved, x));
            forward.output.to_vec().await
        } else {
            let before = usize::from(self.scenario.fault == Fault::OtherForward && planted);
            let (saved, x) =
                self.saved[call.layer].iter().nth_back(before).expect("forward before backward");
            // In place of a forward call, or of another forward call, it is for the input of the
            // step before.
            let fits = g.dims() == x.dims() || self.scenario.fault == Fault::BadShape;
            let g = if fits { g } else { x.device().zeros(x.dims())? };
            layer.backward(saved, Backward::of(x, &g)).await?.input.to_vec().await
        }
    }

    async fn evaluate(&self, call: Call) -> Result<(), Error> {
        let [x, _] = self.tensors(call);
        self.layers[call.layer].forward_eval(&x).await.map(|_| ())
    }

    /// A step with the ranks that go on. If one of them is the rank that drops its question, and
    /// was counted before it did, they ask once more.
    async fn go_on(
        self,
        mut group: ProcessGroup,
        begun: Vec<RunningStats>,
    ) -> Result<Survivor, Error> {
        let Self { scenario, layers: [first, second], .. } = self;
        let mut layers = [first.in_group(&group)?, second.in_group(&group)?];
        let dropped =
            scenario.second.filter(|(_, then)| *then == Then::DropsSurvivors).map(|(rank, _)| rank);
        loop {
            for (layer, running) in layers.iter_mut().zip(&begun) {
                layer.set_running_stats(running.clone())?;
            }
            match step(&scenario, &group, &layers).await {
                Err(Error::Exchange(ExchangeError::Left { rank, panicked: false, .. }))
                    if Some(rank) == dropped =>
                {
                    group = group.survivors(PATIENCE).await?;
                    let [first, second] = layers;
                    layers = [first.in_group(&group)?, second.in_group(&group)?];
                }
                Err(error) => return Err(error),
                Ok(results) => {
                    let running = layers.iter().filter_map(SyncBatchNorm::running_stats).collect();
                    let world_ranks = group.world_ranks().to_vec();
                    return Ok(Survivor { world_ranks, results, running });
                }
            }
        }
    }

    async fn failure(
        &self,
        call: Call,
        error: Error,
        took: Duration,
        before: &[RunningStats],
    ) -> Failure {
        let unchanged = self.running() == before;
        let group = self.group.failure();
        let other = self.layers[1 - call.layer].devices()[0]
            .zeros(&[2, self.layers[1 - call.layer].config().num_features]);
        let began = Instant::now();
        let next = self.layers[1 - call.layer].forward_train(&other.expect("a tensor")).await.err();
        let unchanged = unchanged && self.running() == before;
        let next_took = began.elapsed();
        Failure { call, error, took, unchanged, group, next, next_took }
    }
}

/// The results of the calls of a step.
async fn step(
    scenario: &Scenario,
    group: &ProcessGroup,
    layers: &[SyncBatchNorm; 2],
) -> Result<Vec<Vec<f32>>, Error> {
    let mut saved = Vec::new();
    let mut results = Vec::new();
    for call in (0..CALLS).map(Call::new) {
        let [x, g] = scenario.data_of_survivors(group.world_size(), call.layer);
        let layer = &layers[call.layer];
        let host = &layer.devices()[0];
        let [x, g] = [x, g].map(|batches| batches[group.rank()].upload(host));
        let output = if call.forward {
            let forward = layer.forward_train(&x).await?;
            saved.push((forward.saved, x));
            forward.output
        } else {
            let (saved, x) = &saved[call.layer];
            layer.backward(saved, Backward::of(x, &g)).await?.input
        };
        results.push(output.to_vec().await?);
    }
    Ok(results)
}
