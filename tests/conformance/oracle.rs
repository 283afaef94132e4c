//! Runs a scenario with `syncbn::reference`, in f64; and with formulas known to be wrong, which the checks must catch.

use syncbn::reference::{
    Affine, BatchStatistics, Divisor, RankBatch, Running, backward_train, backward_with_statistics, batch_statistics,
    forward_with_statistics,
};
use syncbn::{Layout, Momentum, RunningVariance};

use crate::scenario::{Observed, ObservedStatistics, RankTensor, Scenario, Source, Step};

type Failure = Box<dyn std::error::Error>;

/// The definition, or one deviation from it that has been seen in an implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    Definition,
    /// Normalizes with m2/(N - 1).
    UnbiasedNormalization,
    /// Averages the means of the ranks without their counts.
    UnweightedMeans,
    /// Each rank normalizes with its own batch.
    NotSynchronized,
    /// Keeps the mean in one f32.
    MeanInOneFloat,
    /// The biased variance enters the running variance.
    BiasedRunning,
    /// Takes the weight of the new batch for that of the old value.
    SwappedMomentum,
    /// Forgets that the statistics depend on the input.
    ConstantStatistics,
    /// Gives zeros for all gradients.
    ZeroGradients,
}

impl Formula {
    pub const WRONG_FORWARD: [Self; 5] = [
        Self::UnbiasedNormalization,
        Self::UnweightedMeans,
        Self::NotSynchronized,
        Self::BiasedRunning,
        Self::SwappedMomentum,
    ];
    pub const WRONG_BACKWARD: [Self; 2] = [Self::ConstantStatistics, Self::ZeroGradients];
}

/// The statistics of one step's batch, by the definition.
pub fn statistics(inputs: &[RankTensor]) -> Result<BatchStatistics, String> {
    batch_statistics(&batches(&channels_first(inputs))).map_err(|error| error.to_string())
}

/// Runs every step.
pub fn observe(scenario: &Scenario, formula: Formula) -> Result<Vec<Observed>, String> {
    let as_f64 = |values: &Vec<f32>| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let mut runner = Runner {
        scenario,
        formula,
        weight: scenario.weight.as_ref().map(as_f64),
        bias: scenario.bias.as_ref().map(as_f64),
        running: scenario
            .running
            .as_ref()
            .map(|running| Running { mean: as_f64(&running.mean), var: as_f64(&running.var) }),
        tracked: scenario.running.as_ref().map_or(0, |running| running.num_batches_tracked),
    };
    let steps = scenario.steps.iter().map(|step| runner.step(step));
    steps.collect::<Result<_, _>>().map_err(|error| format!("{}: {error}", scenario.name))
}

struct Runner<'a> {
    scenario: &'a Scenario,
    formula: Formula,
    weight: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    running: Option<Running>,
    tracked: u64,
}

impl Runner<'_> {
    fn step(&mut self, step: &Step) -> Result<Observed, Failure> {
        let (x, g) = (channels_first(&step.inputs), step.grad_outputs.as_deref().map(channels_first));
        let (inputs, upstream) = (batches(&x), g.as_deref().map(batches));
        let mut observed = Observed::default();
        match self.scenario.source(step) {
            Source::Running => {
                let running = self.running.clone().ok_or("evaluation needs running statistics")?;
                self.normalize(&mut observed, &inputs, upstream.as_deref(), (&running.mean, &running.var), false)?;
            }
            Source::Local => self.alone(&mut observed, &inputs, upstream.as_deref())?,
            Source::Group => {
                let batch = self.batch(&inputs)?;
                if self.formula == Formula::NotSynchronized {
                    self.alone(&mut observed, &inputs, upstream.as_deref())?;
                } else {
                    let (mean, var) = (&batch.mean, &batch.var_biased);
                    self.normalize(&mut observed, &inputs, upstream.as_deref(), (mean, var), true)?;
                }
                for _ in 0..step.repeats {
                    self.update(&batch)?;
                }
                let eps = self.scenario.config.eps;
                let inv_std = batch.var_biased.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
                let (mean, var_biased) = (batch.mean, batch.var_biased);
                observed.statistics = Some(ObservedStatistics { count: batch.count, mean, var_biased, inv_std });
            }
        }
        let grad_inputs = observed.gradients.iter_mut().map(|gradients| &mut gradients.grad_inputs);
        for ranks in grad_inputs.chain([&mut observed.outputs]) {
            step.inputs.iter().zip(ranks).for_each(|(input, values)| to_layout_of(input, values));
        }
        observed.running =
            self.running.as_ref().map(|running| (running.mean.clone(), running.var.clone(), self.tracked));
        Ok(observed)
    }

    /// Every rank by its own batch.
    fn alone(
        &self,
        to: &mut Observed,
        inputs: &[RankBatch<'_>],
        upstream: Option<&[RankBatch<'_>]>,
    ) -> Result<(), Failure> {
        for (rank, input) in inputs.iter().enumerate() {
            let own = batch_statistics(&[*input])?;
            let upstream = upstream.and_then(|ranks| ranks.get(rank..=rank));
            self.normalize(to, &[*input], upstream, (&own.mean, &own.var_biased), true)?;
            to.local.push((own.mean, own.var_biased));
        }
        Ok(())
    }

    /// Adds y and the gradients of `inputs`; `through` says whether the statistics depend on them.
    fn normalize(
        &self,
        to: &mut Observed,
        inputs: &[RankBatch<'_>],
        upstream: Option<&[RankBatch<'_>]>,
        (mean, var): (&[f64], &[f64]),
        through: bool,
    ) -> Result<(), Failure> {
        let (eps, weight) = (self.scenario.config.eps, self.weight.as_deref());
        let affine = Affine { weight, bias: self.bias.as_deref() };
        to.outputs.extend(forward_with_statistics(inputs, mean, var, affine, eps)?);
        let Some(upstream) = upstream else { return Ok(()) };
        let gradients = if through && self.formula != Formula::ConstantStatistics {
            backward_train(inputs, upstream, weight, eps)?
        } else {
            backward_with_statistics(inputs, upstream, mean, var, weight, eps)?
        };
        let mut all = [gradients.grad_inputs, gradients.grad_weights, gradients.grad_biases];
        if self.formula == Formula::ZeroGradients {
            all.iter_mut().flatten().flatten().for_each(|value| *value = 0.0);
        }
        let [grad_inputs, grad_weights, grad_biases] = all;
        let gradients = to.gradients.get_or_insert_default();
        gradients.grad_inputs.extend(grad_inputs);
        gradients.grad_weights.get_or_insert_default().extend(grad_weights);
        gradients.grad_biases.get_or_insert_default().extend(grad_biases);
        Ok(())
    }

    /// The statistics that the formula normalizes with.
    fn batch(&self, inputs: &[RankBatch<'_>]) -> Result<BatchStatistics, Failure> {
        let mut batch = batch_statistics(inputs)?;
        match self.formula {
            Formula::UnbiasedNormalization => {
                let correction = batch.count as f64 / (batch.count as f64 - 1.0);
                batch.var_biased.iter_mut().for_each(|var| *var *= correction);
            }
            Formula::UnweightedMeans => {
                let mut means = Vec::new();
                for input in inputs.iter().filter(|input| !input.values.is_empty()) {
                    means.push(batch_statistics(&[*input])?.mean);
                }
                for (c, mean) in batch.mean.iter_mut().enumerate() {
                    *mean = means.iter().map(|means| means[c]).sum::<f64>() / means.len() as f64;
                }
            }
            Formula::MeanInOneFloat => batch.mean.iter_mut().for_each(|mean| *mean = f64::from(*mean as f32)),
            _ => {}
        }
        Ok(batch)
    }

    fn update(&mut self, batch: &BatchStatistics) -> Result<(), Failure> {
        let (Some(running), true) = (&mut self.running, batch.count > 0) else { return Ok(()) };
        self.tracked += 1;
        let factor = match self.scenario.config.momentum {
            Momentum::NewWeight(weight) => weight,
            Momentum::Decay(decay) => 1.0 - decay,
            Momentum::Cumulative => 1.0 / self.tracked as f64,
        };
        let factor = if self.formula == Formula::SwappedMomentum { 1.0 - factor } else { factor };
        let biased = self.scenario.config.running_variance == RunningVariance::Biased;
        let divisor =
            if biased || self.formula == Formula::BiasedRunning { Divisor::Count } else { Divisor::CountMinusOne };
        Ok(running.update(batch, factor, divisor)?)
    }
}

/// One rank as the definition wants it.
struct Batch {
    dims: Vec<usize>,
    values: Vec<f64>,
}

fn channels_first(ranks: &[RankTensor]) -> Vec<Batch> {
    let rank = |rank: &RankTensor| {
        let (mut dims, mut values) = (rank.dims.clone(), vec![0.0; rank.values.len()]);
        if rank.layout == Layout::ChannelsLast {
            dims[1..].rotate_right(1);
        }
        for (i, &value) in rank.values.iter().enumerate() {
            values[position_channels_first(rank, i)] = f64::from(value);
        }
        Batch { dims, values }
    };
    ranks.iter().map(rank).collect()
}

fn batches(ranks: &[Batch]) -> Vec<RankBatch<'_>> {
    ranks.iter().map(|rank| RankBatch { dims: &rank.dims, values: &rank.values }).collect()
}

/// Puts channels-first values into the order that `input` has.
fn to_layout_of(input: &RankTensor, values: &mut Vec<f64>) {
    *values = (0..values.len()).map(|i| values[position_channels_first(input, i)]).collect();
}

/// Where value `i` of a rank lies, channels first.
fn position_channels_first(rank: &RankTensor, i: usize) -> usize {
    if rank.layout == Layout::ChannelsFirst {
        return i;
    }
    let channels = rank.map().channels;
    let spatial: usize = rank.dims[1..rank.dims.len() - 1].iter().product();
    let (row, channel) = (i / channels, i % channels);
    (row / spatial * channels + channel) * spatial + row % spatial
}
