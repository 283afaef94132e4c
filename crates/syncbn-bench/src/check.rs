//! Owns the check of the timed passes: the outputs of one call of each, on some channels, against
//! the definition in f64.

pub mod bounds;

use std::error::Error;
use std::ops::Range;

use pollster::block_on;
use syncbn::{Layout, Tensor};
use syncbn_testkit::TOLERANCE_ULP;

use crate::inputs::{Form, Set};
use crate::layer::Layer;
use crate::workloads::{Pass, Workload};
use bounds::{Bounded, Definition, Problem};

/// Channels that are compared, or all where a workload has fewer. All of them would take longer
/// than the measurement.
const CHANNELS: usize = 4;

/// A wrong value and the expected one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{output} of rank {rank}, value {index} of the sample: {found:e}, expected {expected:e} within \
    {allowed:e}"
)]
pub struct Wrong {
    output: &'static str,
    rank: usize,
    index: usize,
    found: f64,
    expected: f64,
    allowed: f64,
}

/// Runs every pass once over a set and compares its outputs.
pub fn outputs(
    layer: &mut Layer,
    workload: &Workload,
    form: Form,
    set: &mut Set,
) -> Result<(), Box<dyn Error>> {
    let sample = Sample::of(workload, form.layout);
    layer.submit(Pass::Forward, set)?;
    let y = sample.read(&set.y)?;
    layer.submit(Pass::Backward, set)?;
    let grad_inputs = sample.read(&set.grad_inputs)?;
    let grad_residuals =
        set.grad_residuals.as_deref().map(|tensors| sample.read(tensors)).transpose()?;
    let [grad_weights, grad_biases] =
        layer.parameter_gradients()?.map(|ranks| sample.picked(&ranks));
    layer.submit(Pass::Eval, set)?;
    let y_eval = sample.read(&set.y)?;

    let ranks = workload.shards(set.x.len());
    let [mean, var] = layer.running_stats()?.map(|values| sample.of_channels(&values));
    let problem = Problem {
        dims: ranks
            .iter()
            .map(|dims| [dims[0], sample.channels.len(), dims[2..].iter().product()])
            .collect(),
        x: sample.read(&set.x)?,
        residuals: set.residuals.as_deref().map(|tensors| sample.read(tensors)).transpose()?,
        grad_outputs: sample.read(&set.grad_outputs)?,
        weight: sample.of_channels(&layer.weight),
        bias: sample.of_channels(&layer.bias),
        eps: layer.eps(),
        form,
        ulps: TOLERANCE_ULP,
    };
    let batch = Definition::of_batch(&problem)?;
    compare("y", &y, &batch.y())?;
    compare("grad_input", &grad_inputs, &batch.grad_inputs()?)?;
    if let Some(grad_residuals) = grad_residuals {
        compare("grad_residual", &grad_residuals, &batch.grad_residuals())?;
    }
    let [expected_weights, expected_biases] = batch.parameter_gradients()?;
    compare("grad_weight", &grad_weights, &expected_weights)?;
    compare("grad_bias", &grad_biases, &expected_biases)?;
    compare("y in evaluation", &y_eval, &Definition::of_running(&problem, &mean, &var)?.y())?;
    Ok(())
}

fn compare(
    output: &'static str,
    found: &[Vec<f64>],
    expected: &[Vec<Bounded>],
) -> Result<(), Wrong> {
    for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (index, (&found, &Bounded { value, allowed })) in found.iter().zip(expected).enumerate()
        {
            // A NaN on either side is not within.
            let within = (found - value).abs() <= allowed;
            if !within {
                return Err(Wrong { output, rank, index, found, expected: value, allowed });
            }
        }
    }
    Ok(())
}

/// Some channels of a workload.
struct Sample {
    channels: Vec<usize>,
    /// C.
    of: usize,
    layout: Layout,
}

impl Sample {
    /// The first, the last, and some between them.
    fn of(workload: &Workload, layout: Layout) -> Self {
        let of = workload.channels();
        let count = CHANNELS.min(of);
        let channels = (0..count).map(|index| index * (of - 1) / (count - 1).max(1)).collect();
        Self { channels, of, layout }
    }

    /// The values of these channels of every tensor, as (N, channels, L).
    fn read(&self, tensors: &[Tensor]) -> Result<Vec<Vec<f64>>, syncbn::Error> {
        let pick = |tensor: &Tensor| {
            let values = block_on(tensor.to_vec())?;
            Ok(self.picks(tensor.dims(), &values))
        };
        tensors.iter().map(pick).collect()
    }

    fn picks(&self, dims: &[usize], values: &[f32]) -> Vec<f64> {
        let positions = dims.iter().product::<usize>() / (dims[0] * self.of).max(1);
        let samples = 0..dims[0];
        let at = |sample: usize, channel: usize, position: usize| match self.layout {
            Layout::ChannelsFirst => (sample * self.of + channel) * positions + position,
            Layout::ChannelsLast => (sample * positions + position) * self.of + channel,
        };
        let line = |sample, channel| {
            let positions: Range<usize> = 0..positions;
            positions.map(move |position| f64::from(values[at(sample, channel, position)]))
        };
        samples
            .flat_map(|sample| self.channels.iter().flat_map(move |&channel| line(sample, channel)))
            .collect()
    }

    /// The values of these channels of vectors of all.
    fn picked(&self, ranks: &[Vec<f32>]) -> Vec<Vec<f64>> {
        ranks.iter().map(|values| self.of_channels(values)).collect()
    }

    fn of_channels(&self, values: &[f32]) -> Vec<f64> {
        self.channels.iter().map(|&channel| values[channel].into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use syncbn::{DType, low_level::Epilogue};

    use super::*;

    #[test]
    fn a_sample_has_the_first_and_the_last_channel_in_both_layouts() {
        let sample = |layout| Sample { channels: vec![0, 2], of: 3, layout };
        let values: Vec<f32> = (0..12).map(|index| index as f32).collect();
        let first = sample(Layout::ChannelsFirst).picks(&[2, 3, 2], &values);
        assert_eq!(first, [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0]);
        let last = sample(Layout::ChannelsLast).picks(&[2, 2, 3], &values);
        assert_eq!(last, [0.0, 3.0, 2.0, 5.0, 6.0, 9.0, 8.0, 11.0]);
        let tiny = &crate::workloads::WORKLOADS[9];
        assert_eq!(Sample::of(tiny, Layout::ChannelsFirst).channels, [0, 5, 10, 15]);
    }

    #[test]
    fn a_layer_passes_and_one_with_another_weight_or_bias_does_not() {
        let machine = block_on(crate::devices::open(Some("host"), 2, false)).expect("the host");
        let tiny = &crate::workloads::WORKLOADS[9];
        for (dtype, layout, epilogue, mask) in [
            (DType::F32, Layout::ChannelsFirst, Epilogue::NONE, true),
            (DType::F16, Layout::ChannelsLast, Epilogue::RELU, true),
            (DType::BF16, Layout::ChannelsFirst, Epilogue::ADD_RELU, true),
            (DType::F32, Layout::ChannelsLast, Epilogue::ADD_RELU, false),
        ] {
            let form = Form { dtype, layout, epilogue, mask };
            let mut layer = Layer::new(tiny.channels(), form, &machine).expect("a layer");
            let mut set =
                crate::inputs::set(&tiny.shards(2), form, &machine.ranks, 1).expect("tensors");
            outputs(&mut layer, tiny, form, &mut set).expect("the definition's outputs");
            // More than storage in 16 bits rounds away.
            layer.weight[15] *= 1.02;
            outputs(&mut layer, tiny, form, &mut set).expect_err("another weight");
            layer.weight[15] /= 1.02;
            layer.bias[0] += 0.1;
            outputs(&mut layer, tiny, form, &mut set).expect_err("another bias");
        }
    }

    #[test]
    fn what_is_outside_of_its_bound_or_nan_is_found() {
        let expected = [vec![Bounded { value: 1.0, allowed: 0.5 }; 2]];
        assert!(compare("y", &[vec![1.5, 0.5]], &expected).is_ok());
        let wrong = compare("y", &[vec![1.0, 1.6]], &expected).expect_err("too far");
        assert_eq!((wrong.rank, wrong.index), (0, 1));
        assert!(compare("y", &[vec![f64::NAN, 1.0]], &expected).is_err());
    }
}
