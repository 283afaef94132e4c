//! Owns the common form of a case: every format is turned into it, the library and the oracle are
//! run on it.

use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, DType, Layout};

use crate::compare::{ChannelMap, Check, Part, Quantity, Verdict, compare};
use crate::double;
use crate::padded::Padded;

/// The values of one rank.
#[derive(Clone, Debug)]
pub struct RankTensor {
    pub dims: Vec<usize>,
    pub layout: Layout,
    /// What they are stored as: every one of `values` is a number of this type.
    pub dtype: DType,
    pub values: Vec<f32>,
}

impl RankTensor {
    /// Channels first, stored as f32.
    pub fn new(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dims, layout: Layout::ChannelsFirst, dtype: DType::F32, values }
    }

    pub fn map(&self) -> ChannelMap {
        ChannelMap::of_dims(&self.dims, self.layout)
    }
}

/// One call, made on every rank, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// In messages: "s1".
    pub name: String,
    pub train: bool,
    /// How many times the call is made; expected are the results of the last one.
    pub repeats: usize,
    pub inputs: Vec<RankTensor>,
    /// What is added before the activation, where the epilogue adds it.
    pub residuals: Option<Vec<RankTensor>>,
    /// Upstream gradients, where the case has any.
    pub grad_outputs: Option<Vec<RankTensor>>,
    /// Cotangents of the gradients, where backward is differentiated too.
    pub cotangents: Option<double::Cotangents>,
    /// Values per channel in the group, exact, where the batch's statistics are used.
    pub count: Option<u64>,
    /// Exact, after the step.
    pub num_batches_tracked: Option<u64>,
    pub checks: Vec<Check>,
    /// What calls are given instead, where samples are padded: the rest of the step is of what
    /// counts.
    pub padded: Option<Vec<Padded>>,
}

/// A group's configuration, its state at the start, and its steps.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique, in messages.
    pub name: String,
    /// What the results are grouped by.
    pub kind: String,
    pub config: BatchNormConfig,
    pub weight: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub running: Option<RunningStats>,
    pub steps: Vec<Step>,
    /// The most that anything measured in ulp may be off, where this is asserted.
    pub ulp_bound: Option<f64>,
    /// Whether the file stores tolerances per channel, by the formulas that `conditioning` has,
    /// too.
    pub stores_tolerances: bool,
}

/// One process group of a case. Groups know nothing of each other, so each has a scenario of its
/// own.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its ranks within the case, ascending; `scenario` has their tensors in this order.
    pub ranks: Vec<usize>,
    pub scenario: Scenario,
}

impl Group {
    /// The group of all ranks.
    pub fn of_all(scenario: Scenario) -> Self {
        Self { ranks: (0..scenario.world()).collect(), scenario }
    }
}

impl Scenario {
    /// Its ranks.
    pub fn world(&self) -> usize {
        self.steps.first().map_or(0, |step| step.inputs.len())
    }

    /// What a step normalizes with: the table of modes and settings, written down once more, apart
    /// from the library's.
    pub fn source(&self, step: &Step) -> Source {
        match (self.config.use_batch_statistics, step.train) {
            (Some(false), _) => Source::Running,
            (Some(true), _) | (None, true) => Source::Group,
            (None, false) if self.config.track_running_stats => Source::Running,
            (None, false) => Source::Local,
        }
    }
}

/// Where mean and variance come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The batch of the whole group, which updates the running statistics.
    Group,
    /// Each rank's own batch.
    Local,
    /// The running statistics.
    Running,
}

/// What an implementation gave for one step.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub outputs: Vec<Vec<f64>>,
    pub statistics: Option<ObservedStatistics>,
    /// Mean and biased variance of each rank's own batch, where a rank normalizes with them.
    pub local: Vec<(Vec<f64>, Vec<f64>)>,
    /// running_mean, running_var, num_batches_tracked after the step.
    pub running: Option<(Vec<f64>, Vec<f64>, u64)>,
    pub gradients: Option<ObservedGradients>,
    pub double: Option<double::Observed>,
    /// What was found wrong on the way, beside the numbers, and with which half.
    pub broken: Vec<(Part, String)>,
}

/// Statistics of the group's batch, each of length C.
#[derive(Clone, Debug)]
pub struct ObservedStatistics {
    pub count: u64,
    pub mean: Vec<f64>,
    pub var_biased: Vec<f64>,
    pub inv_std: Vec<f64>,
}

/// Gradients of one step; those of parameters are local.
#[derive(Clone, Debug, Default)]
pub struct ObservedGradients {
    pub grad_inputs: Vec<Vec<f64>>,
    pub grad_weights: Option<Vec<Vec<f64>>>,
    pub grad_biases: Option<Vec<Vec<f64>>>,
    pub grad_residuals: Option<Vec<Vec<f64>>>,
}

impl Observed {
    fn get(&self, quantity: Quantity) -> Option<Vec<f64>> {
        let gradients = self.gradients.as_ref();
        match quantity {
            Quantity::Output(rank) => self.outputs.get(rank).cloned(),
            Quantity::Mean => self.statistics.as_ref().map(|statistics| statistics.mean.clone()),
            Quantity::VarBiased => {
                self.statistics.as_ref().map(|statistics| statistics.var_biased.clone())
            }
            Quantity::InvStd => {
                self.statistics.as_ref().map(|statistics| statistics.inv_std.clone())
            }
            Quantity::LocalMean(rank) => self.local.get(rank).map(|local| local.0.clone()),
            Quantity::LocalVarBiased(rank) => self.local.get(rank).map(|local| local.1.clone()),
            Quantity::RunningMean => self.running.as_ref().map(|running| running.0.clone()),
            Quantity::RunningVar => self.running.as_ref().map(|running| running.1.clone()),
            Quantity::GradInput(rank) => gradients.and_then(|g| g.grad_inputs.get(rank).cloned()),
            Quantity::GradResidual(rank) => {
                gradients.and_then(|g| g.grad_residuals.as_ref()?.get(rank).cloned())
            }
            Quantity::GradWeight(rank) => {
                gradients.and_then(|g| g.grad_weights.as_ref()?.get(rank).cloned())
            }
            Quantity::GradBias(rank) => {
                gradients.and_then(|g| g.grad_biases.as_ref()?.get(rank).cloned())
            }
            Quantity::GradWeightSum => gradients.and_then(|g| total(g.grad_weights.as_ref()?)),
            _ if quantity.is_double() => self.double.as_ref()?.get(quantity),
            Quantity::GradBiasSum => gradients.and_then(|g| total(g.grad_biases.as_ref()?)),
            _ => None,
        }
    }
}

fn total(ranks: &[Vec<f64>]) -> Option<Vec<f64>> {
    let mut sum = ranks.first()?.clone();
    for rank in &ranks[1..] {
        sum.iter_mut().zip(rank).for_each(|(sum, value)| *sum += value);
    }
    Some(sum)
}

/// Holds one half of what was observed of every group against what is expected.
pub fn judge_case(case: &[Group], observed: &[Vec<Observed>], part: Part) -> Verdict {
    if observed.len() != case.len() {
        return Verdict::failed(format!(
            "{} groups were observed, {} are expected",
            observed.len(),
            case.len()
        ));
    }
    let mut verdict = Verdict::default();
    for (group, observed) in case.iter().zip(observed) {
        verdict.join(judge(&group.scenario, observed, part));
    }
    verdict
}

/// Holds one half of what was observed of a group against what is expected.
pub fn judge(scenario: &Scenario, observed: &[Observed], part: Part) -> Verdict {
    let mut verdict = Verdict::default();
    if observed.len() != scenario.steps.len() {
        let found = observed.len();
        let expected = scenario.steps.len();
        return Verdict::failed(format!("{found} steps were observed, {expected} are expected"));
    }
    for (step, observed) in scenario.steps.iter().zip(observed) {
        for check in step.checks.iter().filter(|check| check.quantity.part() == part) {
            verdict.join(match observed.get(check.quantity) {
                Some(values) => compare(check, &values),
                None => Verdict::failed(format!("{}: nothing was observed", check.name)),
            });
        }
        let broken = observed.broken.iter().filter(|(of, _)| *of == part);
        verdict.failures.extend(broken.map(|(_, what)| what.clone()));
        if part == Part::Forward {
            exact(
                &mut verdict,
                step,
                "count",
                step.count,
                observed.statistics.as_ref().map(|s| s.count),
            );
            let tracked = observed.running.as_ref().map(|running| running.2);
            exact(&mut verdict, step, "num_batches_tracked", step.num_batches_tracked, tracked);
        }
    }
    if let (Some(bound), Some(ulp)) = (scenario.ulp_bound, verdict.ulp)
        && ulp > bound
    {
        let at = &verdict.ulp_at;
        verdict.failures.push(format!(
            "{at}: off by {ulp:.2} ulp of what is largest in the channel, allowed {bound}"
        ));
    }
    if verdict.values == 0 && verdict.failures.is_empty() {
        verdict.failures.push("not a single value was compared".to_owned());
    }
    verdict
}

fn exact(
    verdict: &mut Verdict,
    step: &Step,
    what: &str,
    expected: Option<u64>,
    found: Option<u64>,
) {
    if expected.is_some() && found != expected {
        verdict.failures.push(format!("{}.{what}: {found:?}, expected {expected:?}", step.name));
    }
}
