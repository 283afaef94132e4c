//! One batch, whichever ranks have its samples.

use pollster::block_on;
use syncbn::config::AffineGradient;
use syncbn::low_level::Epilogue;
use syncbn::{BatchNormConfig, DType, Device, Layout, Tensor};

use crate::random::Random;

/// Which rank has which samples, in which order.
pub type Cut = Vec<Vec<usize>>;

/// A batch sample by sample, (C, L) each, and the gradients of y.
#[derive(Clone, Debug)]
pub struct Whole {
    pub channels: usize,
    pub len: usize,
    pub x: Vec<Vec<f32>>,
    pub grad_output: Vec<Vec<f32>>,
    pub layout: Layout,
    /// Whether grad_output has another layout than x.
    pub is_mixed: bool,
    /// How all tensors are stored.
    pub dtype: DType,
    /// Where a residual is added, it is x.
    pub epilogue: Epilogue,
    /// Whether forward keeps a mask.
    pub mask: bool,
    /// Positions of each sample that count, if samples are padded.
    pub lengths: Option<Vec<u32>>,
    /// Whether the layer's sums are of integers.
    pub reproducible: bool,
}

/// The kinds of values that channels take in turn.
const KINDS: usize = 10;

/// The kind of a few exact numbers, beside which two values lie a thousand deviations away.
const OUTLIERS: usize = 6;

/// A value of a channel of each kind: means far away, deviations that are tiny or huge, constants,
/// rare outliers over a few exact numbers, and what is nearest to the ends of f32.
fn value(kind: usize, random: &mut Random) -> f64 {
    let normal = random.normal();
    match kind % KINDS {
        0 => normal,
        1 => 1e4 + 1e-2 * normal,
        2 => 1e6 + normal,
        3 => 10_000.1,
        4 => normal * 1e30,
        5 => normal * 1e-34,
        OUTLIERS => 1.247 * normal.signum(),
        7 => 1e-3 * 10f64.powf(normal),
        8 => 3e-33 + 1e-36 * normal,
        _ => (normal * 4.0).round(),
    }
}

impl Whole {
    /// Of so many samples, each channel of another kind of values.
    pub fn hard(samples: usize, channels: usize, len: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut sample = |of: &dyn Fn(usize, &mut Random) -> f64| {
            let values = (0..channels * len).map(|at| of(at / len, &mut random) as f32);
            values.collect::<Vec<f32>>()
        };
        let mut x: Vec<Vec<f32>> = (0..samples).map(|_| sample(&value)).collect();
        // Beyond 32 deviations, where there are enough others.
        if channels > OUTLIERS && samples * len > 4200 {
            x[0][OUTLIERS * len] = 1370.0;
            x[samples - 1][OUTLIERS * len] = -1370.0;
        }
        let gradient = |channel: usize, random: &mut Random| {
            random.normal() * 10f64.powi(channel as i32 % 7 * 8 - 34)
        };
        let mut grad_output: Vec<Vec<f32>> = (0..samples).map(|_| sample(&gradient)).collect();
        // What a GPU may take for 0 is 0.
        for value in x.iter_mut().chain(&mut grad_output).flatten() {
            if value.is_subnormal() {
                *value = 0.0;
            }
        }
        Self {
            channels,
            len,
            x,
            grad_output,
            layout: Layout::ChannelsFirst,
            is_mixed: false,
            dtype: DType::F32,
            epilogue: Epilogue::NONE,
            mask: false,
            lengths: None,
            reproducible: true,
        }
    }

    /// The same with so many positions of each sample that count; the others are NaN.
    pub fn padded(mut self, lengths: &[u32]) -> Self {
        for sample in [&mut self.x, &mut self.grad_output] {
            for (values, &length) in sample.iter_mut().zip(lengths) {
                for channel in values.chunks_mut(self.len) {
                    channel[length as usize..].fill(f32::NAN);
                }
            }
        }
        Self { lengths: Some(lengths.to_vec()), ..self }
    }

    /// The same stored in another type, without values that it does not have.
    pub fn stored(mut self, dtype: DType) -> Self {
        let most = if dtype == DType::F16 { 6e4 } else { f32::MAX };
        let values = self.x.iter_mut().chain(&mut self.grad_output).flatten();
        values.for_each(|value| *value = value.clamp(-most, most));
        Self { dtype, ..self }
    }

    pub fn samples(&self) -> usize {
        self.x.len()
    }

    /// The samples of x of a rank as a tensor on its device.
    pub fn upload_x(&self, device: &Device, rank: &[usize]) -> Tensor {
        self.upload(device, &self.x, rank, self.layout)
    }

    /// Those of grad_output.
    pub fn upload_grad_output(&self, device: &Device, rank: &[usize]) -> Tensor {
        let layout = match (self.is_mixed, self.layout) {
            (false, layout) => layout,
            (true, Layout::ChannelsFirst) => Layout::ChannelsLast,
            (true, Layout::ChannelsLast) => Layout::ChannelsFirst,
        };
        self.upload(device, &self.grad_output, rank, layout)
    }

    fn upload(&self, device: &Device, of: &[Vec<f32>], rank: &[usize], layout: Layout) -> Tensor {
        let values =
            rank.iter().flat_map(|&sample| self.ordered(&of[sample], layout)).collect::<Vec<_>>();
        let dims = match layout {
            Layout::ChannelsFirst => [rank.len(), self.channels, self.len],
            Layout::ChannelsLast => [rank.len(), self.len, self.channels],
        };
        let tensor = match self.dtype {
            DType::F32 => device.upload(&dims, &values),
            DType::F16 => device.upload(&dims, &halves(&values, half::f16::from_f32)),
            DType::BF16 => device.upload(&dims, &halves(&values, half::bf16::from_f32)),
        };
        tensor.expect("an upload").with_layout(layout)
    }

    /// A sample as a layout has it; itself the other way.
    fn ordered(&self, sample: &[f32], layout: Layout) -> Vec<f32> {
        match layout {
            Layout::ChannelsFirst => sample.to_vec(),
            Layout::ChannelsLast => {
                let at = |index: usize| index % self.channels * self.len + index / self.channels;
                (0..sample.len()).map(|index| sample[at(index)]).collect()
            }
        }
    }

    /// The lengths of the samples of every rank.
    pub fn lists(&self, cut: &Cut) -> Option<Vec<Vec<u32>>> {
        let lengths = self.lengths.as_ref()?;
        let of_rank = |rank: &Vec<usize>| rank.iter().map(|&sample| lengths[sample]).collect();
        Some(cut.iter().map(of_rank).collect())
    }

    /// What ranks have, by sample.
    pub fn by_sample(&self, tensors: &[Tensor], cut: &Cut) -> Vec<Vec<u32>> {
        let mut samples = vec![Vec::new(); self.samples()];
        for (tensor, rank) in tensors.iter().zip(cut) {
            let values = block_on(tensor.to_vec()).expect("values");
            for (values, &sample) in values.chunks(self.channels * self.len).zip(rank) {
                samples[sample] = values.iter().map(|value| value.to_bits()).collect();
            }
        }
        samples
    }

    pub fn config(&self) -> BatchNormConfig {
        BatchNormConfig::torch(self.channels)
            .with_eps(0.0)
            .with_residual(self.epilogue.residual)
            .with_activation(self.epilogue.activation)
            .with_activation_mask(self.mask)
            .with_affine_gradient(AffineGradient::GroupSum)
            .with_reproducible(self.reproducible)
    }
}

fn halves<T>(values: &[f32], half: fn(f32) -> T) -> Vec<T> {
    values.iter().map(|&value| half(value)).collect()
}
