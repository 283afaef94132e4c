//! Runs the steps of a scenario on the ranks that one caller drives.

use std::ops::Range;

use half::{bf16, f16};
use pollster::block_on;
use syncbn::stats::{Moments, RunningStats};
use syncbn::{DType, Device, Tensor};

use crate::caller::{Caller, Given, Passed};
use crate::compare::Part;
use crate::double;
use crate::message::chain;
use crate::padded::Padded;
use crate::scenario::{
    Group, Observed, ObservedGradients, ObservedStatistics, RankTensor, Source, Step,
};

/// The ranks of a group that one caller drives, as a range of its members.
pub struct Driven<'a> {
    pub group: &'a Group,
    pub members: Range<usize>,
}

impl Driven<'_> {
    /// Runs every step; lists of what is observed have one element for each driven rank.
    ///
    /// # Errors
    /// Of the library, with the step at which it came. What backward does wrong is held against
    /// backward alone.
    pub fn observe(&self, caller: &mut impl Caller) -> Result<Vec<Observed>, String> {
        self.prepare(caller).map_err(|error| format!("preparing the layer: {}", chain(&error)))?;
        let mut observed = Vec::new();
        for step in &self.group.scenario.steps {
            let failed = |error: syncbn::Error| format!("{}: {}", step.name, chain(&error));
            observed.push(self.step(step, caller).map_err(failed)?);
        }
        Ok(observed)
    }

    fn prepare(&self, caller: &mut impl Caller) -> Result<(), syncbn::Error> {
        let scenario = &self.group.scenario;
        caller.set_parameters(scenario.weight.as_deref(), scenario.bias.as_deref())?;
        scenario.running.clone().map_or(Ok(()), |running| caller.set_running_stats(running))
    }

    fn step(&self, step: &Step, caller: &impl Caller) -> Result<Observed, syncbn::Error> {
        let padded = self.padded(step);
        let inputs = match padded {
            Some(padded) => upload(padded.iter().map(|rank| &rank.x), &caller.devices())?,
            None => upload(self.inputs(step), &caller.devices())?,
        };
        let residuals = step.residuals.as_ref().map(|ranks| match padded {
            Some(padded) => {
                upload(padded.iter().filter_map(|rank| rank.residual.as_ref()), &caller.devices())
            }
            None => upload(&ranks[self.members.clone()], &caller.devices()),
        });
        let residuals = residuals.transpose()?;
        let lengths: Option<Vec<Vec<u32>>> =
            padded.map(|padded| padded.iter().map(|rank| rank.lengths.clone()).collect());
        let given =
            Given { x: &inputs, residuals: residuals.as_deref(), lengths: lengths.as_deref() };
        let before = caller.running_stats()?;
        let mut observed = Observed::default();
        for repeat in 1..=step.repeats {
            let passed = caller.forward(step.train, given)?;
            let mut broken = self.unlike_inputs(step, &passed.outputs);
            let outputs = self.download(step, &passed.outputs, &mut broken)?;
            if repeat > 1 && !same_bits(&outputs, &observed.outputs) {
                broken.push(format!(
                    "{}: repeat {repeat} gave other bits than the one before",
                    step.name
                ));
            }
            observed.broken.extend(broken.into_iter().map(|what| (Part::Forward, what)));
            observed.outputs = outputs;
            self.statistics(step, &passed, &mut observed)?;
            if let (Some(grad_outputs), true) = (&step.grad_outputs, repeat == step.repeats) {
                let grad_outputs = &grad_outputs[self.members.clone()];
                match self.double(step, caller, &passed, given, grad_outputs) {
                    Ok(double) => observed.double = double,
                    Err(error) => {
                        let what = format!("{}, {}: {}", step.name, self.ranks(), chain(&error));
                        observed.broken.push((Part::Backward, what));
                    }
                }
                match self.backward(step, caller, &passed, given, grad_outputs) {
                    Ok((gradients, broken)) => {
                        observed.gradients = Some(gradients);
                        observed
                            .broken
                            .extend(broken.into_iter().map(|what| (Part::Backward, what)));
                    }
                    Err(error) => {
                        let what = format!("{}, {}: {}", step.name, self.ranks(), chain(&error));
                        observed.broken.push((Part::Backward, what));
                    }
                }
            }
        }
        let after = caller.running_stats()?;
        if self.group.scenario.source(step) != Source::Group
            && running_bits(after.as_ref()) != running_bits(before.as_ref())
        {
            let at = format!("{}, {}", step.name, self.ranks());
            let what = format!("{at}: the running statistics changed without a batch of the group");
            observed.broken.push((Part::Forward, what));
        }
        observed.running = after.map(|running| {
            let widen = |values: &[f32]| values.iter().copied().map(f64::from).collect();
            (widen(&running.mean), widen(&running.var), running.num_batches_tracked)
        });
        Ok(observed)
    }

    /// The gradients of the last forward call, and what is wrong with their shapes.
    fn backward(
        &self,
        step: &Step,
        caller: &impl Caller,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[RankTensor],
    ) -> Result<(ObservedGradients, Vec<String>), syncbn::Error> {
        let grad_outputs = match self.padded(step) {
            Some(padded) => upload(padded.iter().map(|rank| &rank.grad_output), &caller.devices())?,
            None => upload(grad_outputs, &caller.devices())?,
        };
        // A residual that decides on no activation may be gone by now.
        let given =
            Given { residuals: given.residuals.filter(|_| passed.saved.needs_residual()), ..given };
        let gradients = caller.backward(passed, given, &grad_outputs)?;
        let mut broken = self.unlike_inputs(step, &gradients.inputs);
        broken.extend(
            gradients.residuals.iter().flat_map(|gradients| self.unlike_inputs(step, gradients)),
        );
        let optional = |gradients: Option<Vec<Tensor>>| {
            gradients.map(|gradients| download(&gradients)).transpose()
        };
        let grad_inputs = self.download(step, &gradients.inputs, &mut broken)?;
        let grad_residuals = gradients.residuals.as_deref();
        let grad_residuals = grad_residuals
            .map(|gradients| self.download(step, gradients, &mut broken))
            .transpose()?;
        let gradients = ObservedGradients {
            grad_inputs,
            grad_weights: optional(gradients.weights)?,
            grad_biases: optional(gradients.biases)?,
            grad_residuals,
        };
        Ok((gradients, broken))
    }

    /// The gradients of backward, where the step asks for them and the layer has them.
    fn double(
        &self,
        step: &Step,
        caller: &impl Caller,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[RankTensor],
    ) -> Result<Option<double::Observed>, syncbn::Error> {
        let Some(of_all) = &step.cotangents else { return Ok(None) };
        let devices = caller.devices();
        let vectors = |vectors: &Option<Vec<Vec<f32>>>| {
            let own = vectors.as_ref().map(|vectors| &vectors[self.members.clone()]);
            let upload = |(on, values): (&Device, &Vec<f32>)| on.upload(&[values.len()], values);
            own.map(|own| devices.iter().zip(own).map(upload).collect()).transpose()
        };
        let cotangents = double::Tensors {
            inputs: upload(&of_all.inputs[self.members.clone()], &devices)?,
            weights: vectors(&of_all.weights)?,
            biases: vectors(&of_all.biases)?,
        };
        let grad_outputs = upload(grad_outputs, &devices)?;
        let given =
            Given { residuals: given.residuals.filter(|_| passed.saved.needs_residual()), ..given };
        let second = caller.double_backward(passed, given, &grad_outputs, &cotangents)?;
        Ok(Some(double::Observed {
            inputs: download(&second.input)?,
            grad_outputs: download(&second.grad_output)?,
            weights: second.weight.map(|weights| download(&weights)).transpose()?,
        }))
    }

    /// Takes the statistics out of a call, and checks that the counts of the ranks are those of
    /// their shapes.
    fn statistics(
        &self,
        step: &Step,
        passed: &Passed,
        observed: &mut Observed,
    ) -> Result<(), syncbn::Error> {
        let config = &self.group.scenario.config;
        observed.statistics = passed.saved.statistics().map(|global| ObservedStatistics {
            count: global.count(),
            mean: global.channels().iter().map(|channel| channel.mean).collect(),
            var_biased: global.channels().iter().map(Moments::var_biased).collect(),
            inv_std: global.inv_std(config.eps),
        });
        let expected = self.group.scenario.source(step) == Source::Group;
        if passed.saved.report().is_some() && observed.statistics.is_some() != expected {
            let what = if expected { "says nothing" } else { "speaks" };
            let what =
                format!("{}, {}: the call {what} of the group's batch", step.name, self.ranks());
            observed.broken.push((Part::Forward, what));
        }
        // What stayed on the device is read from there, as far as it is kept.
        if let (true, Some([mean, inv_std])) = (expected, passed.saved.mean_and_inv_std(0)) {
            let [mean, inv_std] = [download_one(mean)?, download_one(inv_std)?];
            observed.statistics =
                Some(ObservedStatistics { count: 0, mean, var_biased: Vec::new(), inv_std });
        }
        let local = passed.local.ranks().iter().map(|rank| {
            let mean = rank.iter().map(|channel| channel.mean).collect();
            (mean, rank.iter().map(Moments::var_biased).collect())
        });
        observed.local = local.collect();
        let num_features = config.num_features;
        for ((local, rank), input) in
            passed.local.ranks().iter().zip(self.world_ranks()).zip(self.inputs(step))
        {
            let expected = (input.dims.iter().product::<usize>() / num_features) as u64;
            if local.len() != num_features || local.iter().any(|channel| channel.count != expected)
            {
                let what = format!(
                    "{}.r{rank}: the report does not count {expected} values per channel",
                    step.name
                );
                observed.broken.push((Part::Forward, what));
            }
        }
        Ok(())
    }

    /// What the driven ranks are given instead, where samples are padded.
    fn padded<'a>(&self, step: &'a Step) -> Option<&'a [Padded]> {
        Some(&step.padded.as_ref()?[self.members.clone()])
    }

    /// The values of every rank that count. Others must be 0.
    fn download(
        &self,
        step: &Step,
        tensors: &[Tensor],
        broken: &mut Vec<String>,
    ) -> Result<Vec<Vec<f64>>, syncbn::Error> {
        let all = download(tensors)?;
        let Some(padded) = self.padded(step) else { return Ok(all) };
        let ranks = padded.iter().zip(&all).zip(self.world_ranks());
        Ok(ranks
            .map(|((padded, values), rank)| {
                let (counted, is_clean) = padded.gathered(values);
                if !is_clean {
                    let what = "a result is not 0 where its sample is padded";
                    broken.push(format!("{}.r{rank}: {what}", step.name));
                }
                counted
            })
            .collect())
    }

    fn inputs<'a>(&self, step: &'a Step) -> &'a [RankTensor] {
        &step.inputs[self.members.clone()]
    }

    fn world_ranks(&self) -> &[usize] {
        &self.group.ranks[self.members.clone()]
    }

    /// The driven ranks, in messages.
    fn ranks(&self) -> String {
        match self.world_ranks() {
            [rank] => format!("rank {rank}"),
            ranks => format!("ranks {ranks:?}"),
        }
    }

    /// What is not of the shape, the layout and the storage type of its input.
    fn unlike_inputs(&self, step: &Step, tensors: &[Tensor]) -> Vec<String> {
        let inputs = match self.padded(step) {
            Some(padded) => padded.iter().map(|rank| &rank.x).collect(),
            None => self.inputs(step).iter().collect::<Vec<_>>(),
        };
        let pairs = self.world_ranks().iter().zip(inputs).zip(tensors);
        let differing = pairs.filter_map(|((rank, input), tensor)| {
            let found = (tensor.dims(), tensor.layout(), tensor.dtype());
            let expected = (&input.dims[..], input.layout, input.dtype);
            (found != expected).then(|| {
                format!("{}.r{rank}: the result is {found:?}, its input {expected:?}", step.name)
            })
        });
        differing.collect()
    }
}

fn upload<'a>(
    ranks: impl IntoIterator<Item = &'a RankTensor>,
    devices: &[Device],
) -> Result<Vec<Tensor>, syncbn::Error> {
    let upload = |(rank, device): (&RankTensor, &Device)| {
        let dims = &rank.dims;
        let values = &rank.values;
        let tensor = match rank.dtype {
            DType::F32 => device.upload(dims, values),
            DType::F16 => device
                .upload(dims, &values.iter().copied().map(f16::from_f32).collect::<Vec<f16>>()),
            DType::BF16 => device
                .upload(dims, &values.iter().copied().map(bf16::from_f32).collect::<Vec<bf16>>()),
        };
        Ok(tensor?.with_layout(rank.layout))
    };
    ranks.into_iter().zip(devices).map(upload).collect()
}

/// The values of every rank.
fn download(tensors: &[Tensor]) -> Result<Vec<Vec<f64>>, syncbn::Error> {
    tensors.iter().map(download_one).collect()
}

fn download_one(tensor: &Tensor) -> Result<Vec<f64>, syncbn::Error> {
    Ok(block_on(tensor.to_vec())?.into_iter().map(f64::from).collect())
}

fn same_bits(a: &[Vec<f64>], b: &[Vec<f64>]) -> bool {
    let bits = |ranks: &[Vec<f64>]| {
        ranks.iter().flatten().map(|value| value.to_bits()).collect::<Vec<u64>>()
    };
    bits(a) == bits(b)
}

/// NaN is not equal to itself, its bits are.
fn running_bits(running: Option<&RunningStats>) -> Option<(Vec<u32>, u64)> {
    let bits = |running: &RunningStats| {
        running.mean.iter().chain(&running.var).map(|value| value.to_bits()).collect()
    };
    running.map(|running| (bits(running), running.num_batches_tracked))
}
