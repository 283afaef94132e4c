//! Runs a scenario with `syncbn_reference`, in f64; and with formulas known to be wrong, which the
//! checks must catch.

use syncbn::low_level::epilogue_of;
use syncbn::{
    Layout,
    config::{Momentum, RunningVariance},
};
use syncbn_reference::{
    Affine, BatchStatistics, Divisor, RankBatch, Running, backward_train, backward_with_statistics,
    batch_statistics, forward_with_statistics,
};
use syncbn_testkit::epilogue::bounds::derivative;

use crate::double;
use crate::epilogue::activated;
use crate::formula::Formula;
use crate::scenario::{Observed, ObservedStatistics, RankTensor, Scenario, Source, Step};

type Failure = Box<dyn std::error::Error>;

/// The statistics of one step's batch, by the definition.
pub fn statistics(inputs: &[RankTensor]) -> Result<BatchStatistics, String> {
    batch_statistics(&batches(&channels_first(inputs))).map_err(|error| error.to_string())
}

/// Runs every step.
pub fn observe(scenario: &Scenario, formula: Formula) -> Result<Vec<Observed>, String> {
    let as_f64 =
        |values: &Vec<f32>| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
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
        let x = channels_first(&step.inputs);
        let g = step.grad_outputs.as_deref().map(channels_first);
        let z = step.residuals.as_deref().map(channels_first);
        let inputs = batches(&x);
        let upstream = g.as_deref().map(batches);
        let residuals = z.as_deref().map(batches);
        let v = step.cotangents.as_ref().map(|of| channels_first(&of.inputs));
        let v = v.as_deref().map(batches);
        let second = step.cotangents.as_ref().zip(v.as_deref());
        let call = Call { x: &inputs, g: upstream.as_deref(), z: residuals.as_deref(), second };
        let mut observed = Observed::default();
        match self.scenario.source(step) {
            Source::Running => {
                let running = self.running.clone().ok_or("evaluation needs running statistics")?;
                self.normalize(&mut observed, call, (&running.mean, &running.var), false)?;
            }
            Source::Local => self.alone(&mut observed, call)?,
            Source::Group => {
                let batch = self.batch(&inputs)?;
                if self.formula == Formula::NotSynchronized {
                    self.alone(&mut observed, call)?;
                } else {
                    let mean = &batch.mean;
                    let var = &batch.var_biased;
                    self.normalize(&mut observed, call, (mean, var), true)?;
                }
                for _ in 0..step.repeats {
                    self.update(&batch)?;
                }
                let eps = self.scenario.config.eps;
                let inv_std = batch.var_biased.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
                let mean = batch.mean;
                let var_biased = batch.var_biased;
                observed.statistics =
                    Some(ObservedStatistics { count: batch.count, mean, var_biased, inv_std });
            }
        }
        let gradients = observed.gradients.iter_mut();
        let gradients = gradients.flat_map(|gradients| {
            [Some(&mut gradients.grad_inputs), gradients.grad_residuals.as_mut()]
        });
        let second = observed.double.iter_mut();
        let second = second.flat_map(|of| [&mut of.inputs, &mut of.grad_outputs]);
        for ranks in gradients.flatten().chain([&mut observed.outputs]).chain(second) {
            step.inputs.iter().zip(ranks).for_each(|(input, values)| to_layout_of(input, values));
        }
        observed.running = self
            .running
            .as_ref()
            .map(|running| (running.mean.clone(), running.var.clone(), self.tracked));
        Ok(observed)
    }

    /// Every rank by its own batch.
    fn alone(&self, to: &mut Observed, call: Call<'_>) -> Result<(), Failure> {
        for rank in 0..call.x.len() {
            let own = batch_statistics(&call.x[rank..=rank])?;
            self.normalize(to, call.of_rank(rank), (&own.mean, &own.var_biased), true)?;
            to.local.push((own.mean, own.var_biased));
        }
        Ok(())
    }

    /// Adds y and the gradients of a call; `through` says whether the statistics depend on its
    /// inputs.
    fn normalize(
        &self,
        to: &mut Observed,
        call: Call<'_>,
        (mean, var): (&[f64], &[f64]),
        through: bool,
    ) -> Result<(), Failure> {
        let eps = self.scenario.config.eps;
        let weight = self.weight.as_deref();
        let affine = Affine { weight, bias: self.bias.as_deref() };
        let epilogue = epilogue_of(&self.scenario.config);
        let normalized = forward_with_statistics(call.x, mean, var, affine, eps)?;
        to.outputs.extend(call.with_residuals(&normalized, |y, z| match self.formula {
            Formula::ActivationFirst => activated(epilogue, y) + z,
            Formula::NoActivation => y + z,
            _ => activated(epilogue, y + z),
        }));
        let Some(g) = call.g else { return Ok(()) };
        let decides = match self.formula {
            Formula::SideOfUnshifted => {
                forward_with_statistics(call.x, &vec![0.0; mean.len()], var, affine, eps)?
            }
            _ => normalized,
        };
        let factors = call.with_residuals(&decides, |y, z| match self.formula {
            Formula::SlopeForgotten => 1.0,
            _ => derivative(epilogue, y + z),
        });
        let slopes = factors;
        let passed: Vec<Vec<f64>> = g
            .iter()
            .zip(&slopes)
            .map(|(g, factors)| g.values.iter().zip(factors).map(|(g, f)| g * f).collect())
            .collect();
        let upstream: Vec<RankBatch<'_>> =
            g.iter().zip(&passed).map(|(g, values)| RankBatch { dims: g.dims, values }).collect();
        if let Some((cotangents, v)) = call.second {
            let is_wrong = self.formula == Formula::ConstantStatistics;
            let definition = double::Definition {
                x: call.x,
                g: &upstream,
                slopes: &slopes,
                v,
                cotangents,
                statistics: (!through || is_wrong).then_some([mean, var]),
                weight,
                eps,
            };
            to.double = Some(definition.observe()?);
        }
        let gradients = if through && self.formula != Formula::ConstantStatistics {
            backward_train(call.x, &upstream, weight, eps)?
        } else {
            backward_with_statistics(call.x, &upstream, mean, var, weight, eps)?
        };
        let grad_residuals = match self.formula {
            // With constant statistics and a deviation of 1, that is what a gradient of the input
            // is.
            Formula::WeightedResidual => {
                let ones = vec![1.0; var.len()];
                backward_with_statistics(call.x, &upstream, mean, &ones, weight, 0.0)?.grad_inputs
            }
            _ => passed.clone(),
        };
        let mut all =
            [gradients.grad_inputs, gradients.grad_weights, gradients.grad_biases, grad_residuals];
        if self.formula == Formula::ZeroGradients {
            all.iter_mut().flatten().flatten().for_each(|value| *value = 0.0);
        }
        let [grad_inputs, grad_weights, grad_biases, grad_residuals] = all;
        let gradients = to.gradients.get_or_insert_default();
        gradients.grad_inputs.extend(grad_inputs);
        gradients.grad_weights.get_or_insert_default().extend(grad_weights);
        gradients.grad_biases.get_or_insert_default().extend(grad_biases);
        if epilogue.adds_residual() {
            gradients.grad_residuals.get_or_insert_default().extend(grad_residuals);
        }
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
            Formula::MeanInOneFloat => {
                batch.mean.iter_mut().for_each(|mean| *mean = f64::from(*mean as f32))
            }
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
        let divisor = if biased || self.formula == Formula::BiasedRunning {
            Divisor::Count
        } else {
            Divisor::CountMinusOne
        };
        Ok(running.update(batch, factor, divisor)?)
    }
}

/// The tensors of a call, as the definition wants them: x, the upstream gradients and the residuals
/// of every rank.
#[derive(Clone, Copy)]
struct Call<'a> {
    x: &'a [RankBatch<'a>],
    g: Option<&'a [RankBatch<'a>]>,
    z: Option<&'a [RankBatch<'a>]>,
    /// Cotangents of the gradients, and those of x once more.
    second: Option<(&'a double::Cotangents, &'a [RankBatch<'a>])>,
}

impl Call<'_> {
    fn of_rank(self, rank: usize) -> Self {
        Self {
            x: &self.x[rank..=rank],
            g: self.g.map(|g| &g[rank..=rank]),
            z: self.z.map(|z| &z[rank..=rank]),
            // Of a rank by itself no case has any.
            second: None,
        }
    }

    /// Every normalized value with its residual, 0 where there is none.
    fn with_residuals(
        self,
        normalized: &[Vec<f64>],
        join: impl Fn(f64, f64) -> f64,
    ) -> Vec<Vec<f64>> {
        let residual = |rank: usize, i: usize| self.z.map_or(0.0, |z| z[rank].values[i]);
        let of_rank = |(rank, values): (usize, &Vec<f64>)| {
            values.iter().enumerate().map(|(i, &y)| join(y, residual(rank, i))).collect()
        };
        normalized.iter().enumerate().map(of_rank).collect()
    }
}

/// One rank as the definition wants it.
struct Batch {
    dims: Vec<usize>,
    values: Vec<f64>,
}

fn channels_first(ranks: &[RankTensor]) -> Vec<Batch> {
    let rank = |rank: &RankTensor| {
        let mut dims = rank.dims.clone();
        let mut values = vec![0.0; rank.values.len()];
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
    let row = i / channels;
    let channel = i % channels;
    (row / spatial * channels + channel) * spatial + row % spatial
}
