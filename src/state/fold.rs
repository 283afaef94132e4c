//! Evaluation as two numbers per channel, and folding them into the layer before.

use super::StateDict;
use crate::error::StateError;
use crate::stats::RunningStats;

/// Evaluation of a layer: y = x·scale + shift, (C) each.
///
/// From the running statistics, in f64: scale = weight / √(var + eps), shift = bias − mean·scale
/// (Ioffe and Szegedy, 2015, algorithm 2). If var + eps is 0, scale is 0. It does not include an
/// activation or a residual of the layer.
///
/// ```
/// use syncbn::state::StateDict;
/// let mut state = StateDict::default();
/// (state.running_mean, state.running_var) = (Some(vec![1.0]), Some(vec![4.0]));
/// let evaluation = state.scale_shift(0.0)?;
/// // A linear layer of one output and two inputs: (x·[2, 6] + 3 − 1) / √4.
/// let (weight, bias) = evaluation.fold(&[2.0, 6.0], Some(&[3.0]))?;
/// assert_eq!((weight, bias), (vec![1.0, 3.0], vec![1.0]));
/// # Ok::<(), syncbn::error::StateError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScaleShift {
    /// Factor of x, (C).
    pub scale: Vec<f64>,
    /// Term added to the product, (C).
    pub shift: Vec<f64>,
}

impl StateDict {
    /// Evaluation with these running statistics, as two numbers per channel. A missing weight is 1,
    /// a missing bias 0.
    ///
    /// # Errors
    /// [`StateError::Missing`] without running statistics; [`StateError::Shape`] for vectors of
    /// different lengths; [`StateError::NegativeVariance`].
    pub fn scale_shift(&self, eps: f64) -> Result<ScaleShift, StateError> {
        let names = self.source.names();
        let [_, _, mean, var] = self.vectors();
        let needed = |values: Option<&Vec<f32>>, name: &String| {
            let name = name.clone();
            let found = Vec::new();
            values.cloned().ok_or(StateError::Missing { name, found, of: 0, guess: None })
        };
        let mean = needed(mean, &names[2])?;
        let channels = mean.len();
        let var = needed(var, &names[3])?;
        for (values, name) in self.vectors().into_iter().zip(&names) {
            let Some(found) = values.map(Vec::len).filter(|&len| len != channels) else { continue };
            let name = name.clone();
            let expected = vec![channels];
            return Err(StateError::Shape { name, found: vec![found], expected });
        }
        if let Some(channel) = var.iter().position(|var| *var < 0.0) {
            let name = names[3].clone();
            let found = var[channel];
            return Err(StateError::NegativeVariance { name, channel, found });
        }
        let normalization = RunningStats { mean, var, num_batches_tracked: 0 }.normalization(eps);
        let widened = |values: &Option<Vec<f32>>, absent: f64| match values {
            Some(values) => values.iter().copied().map(f64::from).collect(),
            None => vec![absent; channels],
        };
        let weight = widened(&self.weight, 1.0);
        let bias = widened(&self.bias, 0.0);
        let scales = weight.iter().zip(&normalization.inv_std);
        let scale: Vec<f64> = scales.map(|(weight, inv_std)| weight * inv_std).collect();
        let shifts = bias.iter().zip(&normalization.mean).zip(&scale);
        let shift = shifts.map(|((bias, mean), scale)| bias - mean * scale).collect();
        Ok(ScaleShift { scale, shift })
    }
}

impl ScaleShift {
    /// C.
    pub fn channels(&self) -> usize {
        self.scale.len()
    }

    /// Weight and bias of a layer that is a convolution or a linear layer, and then the
    /// normalization of its outputs.
    ///
    /// `weight` has a row of values per output channel, as (O, I, …) with O = C has: PyTorch's
    /// `Linear` and `Conv…`, with any number of groups. A weight in which the output channel is
    /// another dimension is for [`fold_transposed`](Self::fold_transposed). `bias` is (O), `None`
    /// for zeros. Computed in f64 and rounded once. Values beyond f32 become infinite.
    ///
    /// # Errors
    /// [`StateError::Fold`] for a weight or a bias of another length.
    pub fn fold(
        &self,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>), StateError> {
        let channels = self.channels();
        if channels == 0 || weight.is_empty() || !weight.len().is_multiple_of(channels) {
            return refuse("weight", weight.len(), format!("a multiple of C = {channels}, not 0"));
        }
        let row = weight.len() / channels;
        self.fold_channels(weight, bias, |index| index / row)
    }

    /// [`fold`](Self::fold) for weights of shape (I, O / groups, …): PyTorch's `ConvTranspose…`.
    /// With one group it also takes (I, O), as Burn's and Keras's linear layers have, and Keras's
    /// convolutions (…, I, O) as \[… · I, O\].
    ///
    /// # Errors
    /// [`StateError::Fold`] for dimensions that do not fit the weight, the groups or the channels.
    pub fn fold_transposed(
        &self,
        weight: &[f32],
        dims: &[usize],
        groups: usize,
        bias: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>), StateError> {
        let channels = self.channels();
        let &[inputs, outputs, ref rest @ ..] = dims else {
            return refuse("dims", dims.len(), "at least 2 dimensions: (I, O / groups, …)".into());
        };
        let volume = dims.iter().try_fold(1usize, |volume, &dim| volume.checked_mul(dim));
        if volume != Some(weight.len()) {
            return refuse("weight", weight.len(), format!("as many as dims {dims:?} have"));
        }
        if groups == 0 || !inputs.is_multiple_of(groups) {
            return refuse("groups", groups, format!("a divisor of dims[0] = {inputs}"));
        }
        if outputs.checked_mul(groups) != Some(channels) {
            let expected = format!("C / groups = {channels} / {groups}");
            return refuse("dims[1]", outputs, expected);
        }
        let inner: usize = rest.iter().product();
        self.fold_channels(weight, bias, |index| {
            let group = index / (inputs / groups * outputs * inner);
            group * outputs + index / inner % outputs
        })
    }

    /// Weight and bias. `channel` maps the index of a weight's value to its output channel.
    fn fold_channels(
        &self,
        weight: &[f32],
        bias: Option<&[f32]>,
        channel: impl Fn(usize) -> usize,
    ) -> Result<(Vec<f32>, Vec<f32>), StateError> {
        let channels = self.channels();
        if let Some(bias) = bias.filter(|bias| bias.len() != channels) {
            return refuse("bias", bias.len(), format!("C = {channels}"));
        }
        let weights = weight.iter().enumerate();
        let weights =
            weights.map(|(index, &value)| (f64::from(value) * self.scale[channel(index)]) as f32);
        let biases = self.scale.iter().zip(&self.shift).enumerate();
        let biases = biases.map(|(channel, (scale, shift))| {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[channel]));
            (bias * scale + shift) as f32
        });
        Ok((weights.collect(), biases.collect()))
    }
}

fn refuse<T>(argument: &'static str, found: usize, expected: String) -> Result<T, StateError> {
    Err(StateError::Fold { argument, found, expected })
}
