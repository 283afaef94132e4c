//! The samples, and the perceptron around the layer: its parameters, and forward and backward by
//! hand, in f64.

use std::ops::Range;

/// Variables of the regression.
pub const INPUTS: usize = 2;
/// Width of the hidden layer, the channels of the normalization.
pub const HIDDEN: usize = 16;

/// Points of the plane, and the values to be learned.
#[derive(Clone, Debug)]
pub struct Samples {
    pub inputs: Vec<[f64; INPUTS]>,
    pub targets: Vec<f64>,
}

impl Samples {
    /// Points from left to right, so that shards differ in their statistics.
    pub fn new(count: usize) -> Self {
        // Fractions of multiples of the golden ratio fill an interval evenly.
        let spread = |index: usize| (index as f64 * 0.618_033_988_749_895).fract();
        let inputs: Vec<_> = (0..count)
            .map(|i| [4.0 * i as f64 / count as f64 - 1.0, 2.0 * spread(i) - 1.0])
            .collect();
        let targets = inputs.iter().map(|[u, v]| (2.0 * u).sin() + u * v).collect();
        Self { inputs, targets }
    }

    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn part(&self, range: &Range<usize>) -> Self {
        Self {
            inputs: self.inputs[range.clone()].to_vec(),
            targets: self.targets[range.clone()].to_vec(),
        }
    }
}

/// All parameters in one vector, as gradients are added up: first linear layer (HIDDEN, INPUTS)
/// without a bias, which the normalization would subtract; weight and bias of the normalization;
/// second linear layer (HIDDEN) and its bias.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub values: Vec<f64>,
}

const FIRST: Range<usize> = 0..HIDDEN * INPUTS;
pub const WEIGHT: Range<usize> = FIRST.end..FIRST.end + HIDDEN;
pub const BIAS: Range<usize> = WEIGHT.end..WEIGHT.end + HIDDEN;
const SECOND: Range<usize> = BIAS.end..BIAS.end + HIDDEN;

impl Parameters {
    pub fn new() -> Self {
        let mut values = vec![0.0; SECOND.end + 1];
        for (i, value) in values[FIRST].iter_mut().enumerate() {
            *value = (1.3 * i as f64 + 0.4).sin();
        }
        values[WEIGHT].fill(1.0);
        for (i, value) in values[SECOND].iter_mut().enumerate() {
            *value = 0.25 * (2.1 * i as f64).cos();
        }
        Self { values }
    }

    /// A part in f32, for the layer.
    pub fn in_f32(&self, part: Range<usize>) -> Vec<f32> {
        self.values[part].iter().map(|&value| value as f32).collect()
    }

    /// The input of the normalization, (samples, HIDDEN).
    pub fn hidden(&self, samples: &Samples) -> Vec<f32> {
        let rows = |x: &[f64; INPUTS]| {
            let x = *x;
            self.values[FIRST]
                .chunks(INPUTS)
                .map(move |w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() as f32)
        };
        samples.inputs.iter().flat_map(rows).collect()
    }

    /// From the normalized values y, (samples, HIDDEN): residuals prediction − target, and the
    /// activations tanh(y).
    pub fn residuals(&self, samples: &Samples, y: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let activations: Vec<f64> = y.iter().map(|&y| f64::from(y).tanh()).collect();
        let predict = |a: &[f64]| {
            a.iter().zip(&self.values[SECOND]).map(|(a, w)| a * w).sum::<f64>()
                + self.values[SECOND.end]
        };
        let residuals =
            activations.chunks(HIDDEN).zip(&samples.targets).map(|(a, target)| predict(a) - target);
        (residuals.collect(), activations)
    }

    /// Adds the gradients of the second layer to `gradient`, and returns the gradient of y. `total`
    /// is the number of samples of all ranks: the loss is the mean of their squared residuals.
    pub fn backward_second(
        &self,
        residuals: &[f64],
        activations: &[f64],
        total: usize,
        gradient: &mut [f64],
    ) -> Vec<f32> {
        let mut grad_y = Vec::with_capacity(activations.len());
        for (residual, activations) in residuals.iter().zip(activations.chunks(HIDDEN)) {
            let grad = 2.0 * residual / total as f64;
            gradient[SECOND.end] += grad;
            for ((a, w), gradient) in
                activations.iter().zip(&self.values[SECOND]).zip(&mut gradient[SECOND])
            {
                *gradient += grad * a;
                grad_y.push((grad * w * (1.0 - a * a)) as f32);
            }
        }
        grad_y
    }
}

/// Adds the gradients of the first layer, from that of its output, (samples, HIDDEN).
pub fn backward_first(samples: &Samples, grad_hidden: &[f32], gradient: &mut [f64]) {
    for (x, grads) in samples.inputs.iter().zip(grad_hidden.chunks(HIDDEN)) {
        for (gradient, &grad) in gradient[FIRST].chunks_mut(INPUTS).zip(grads) {
            gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient += f64::from(grad) * x);
        }
    }
}
