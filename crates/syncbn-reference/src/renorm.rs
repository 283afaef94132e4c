//! Batch renormalization (S. Ioffe, *Batch Renormalization: Towards Reducing Minibatch Dependence
//! in Batch-Normalized Models*, NIPS 2017, arXiv:1702.03275).

use super::{
    Affine, BatchStatistics, Gradients, RankBatch, ReferenceError, Running, backward_train,
    by_channel, check_length, forward_train, or_fill,
};

/// r and d of every channel, each of length C; constants for the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// σ_batch/σ_running within limits.
    pub r: Vec<f64>,
    /// (mean_batch − mean_running)/σ_running within limits.
    pub d: Vec<f64>,
}

impl Correction {
    /// With σ = √(var + eps), the biased variance of the batch, and the running statistics before
    /// it:
    ///
    /// ```text
    /// r = clip(σ_batch/σ_running, 1/r_max, r_max)
    /// d = clip((mean_batch − mean_running)/σ_running, −d_max, d_max)
    /// ```
    pub fn new(
        batch: &BatchStatistics,
        running: &Running,
        [r_max, d_max]: [f64; 2],
        eps: f64,
    ) -> Result<Self, ReferenceError> {
        let channels = batch.mean.len();
        check_length("running_mean", running.mean.len(), channels)?;
        check_length("running_var", running.var.len(), channels)?;
        let deviation = |var: f64| (var + eps).sqrt();
        let mut r = Vec::new();
        let mut d = Vec::new();
        for c in 0..channels {
            let of_running = deviation(running.var[c]);
            let ratio = deviation(batch.var_biased[c]) / of_running;
            let distance = (batch.mean[c] - running.mean[c]) / of_running;
            r.push(ratio.min(r_max).max(1.0 / r_max));
            d.push(distance.min(d_max).max(-d_max));
        }
        Ok(Self { r, d })
    }
}

/// y = (x̂·r + d)·weight + bias of every rank, where x̂ is normalized with the statistics of the
/// group.
pub fn renormalized_forward(
    inputs: &[RankBatch<'_>],
    Correction { r, d }: &Correction,
    affine: Affine<'_>,
    eps: f64,
) -> Result<Vec<Vec<f64>>, ReferenceError> {
    let xhat = forward_train(inputs, Affine::default(), eps)?.outputs;
    let weight = or_fill("weight", affine.weight, 1.0, r.len())?;
    let bias = or_fill("bias", affine.bias, 0.0, r.len())?;
    let of_rank = |(input, xhat): (&RankBatch<'_>, &Vec<f64>)| {
        let channels = by_channel(input).map(|(c, _)| c).zip(xhat);
        channels.map(|(c, xhat)| (xhat * r[c] + d[c]) * weight[c] + bias[c]).collect()
    };
    Ok(inputs.iter().zip(&xhat).map(of_rank).collect())
}

/// The gradients of [`renormalized_forward`], with r and d constant:
///
/// ```text
/// grad_input  = r · that of batch normalization
/// grad_weight = local Σ g·(x̂·r + d)        grad_bias = local Σg
/// ```
pub fn renormalized_backward(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    Correction { r, d }: &Correction,
    weight: Option<&[f64]>,
    eps: f64,
) -> Result<Gradients, ReferenceError> {
    let mut gradients = backward_train(inputs, grad_outputs, weight, eps)?;
    for (rank, input) in inputs.iter().enumerate() {
        let channels = by_channel(input).zip(&mut gradients.grad_inputs[rank]);
        channels.for_each(|((c, _), gradient)| *gradient *= r[c]);
        let biases = &gradients.grad_biases[rank];
        let weights = gradients.grad_weights[rank].iter_mut().enumerate();
        weights.for_each(|(c, gradient)| *gradient = r[c] * *gradient + d[c] * biases[c]);
    }
    Ok(gradients)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: [[usize; 3]; 2] = [[3, 2, 2], [1, 2, 3]];
    const EPS: f64 = 0.01;

    fn values(seed: usize) -> [Vec<f64>; 2] {
        DIMS.map(|dims| {
            let len = dims.iter().product();
            (0..len).map(|i| ((i * 37 + seed * 11) % 19) as f64 / 7.0 - 1.2).collect()
        })
    }

    fn ranks(values: &[Vec<f64>; 2]) -> Vec<RankBatch<'_>> {
        let of_rank = |(dims, values): (&'static [usize; 3], _)| RankBatch { dims, values };
        DIMS.iter().zip(values.iter().map(Vec::as_slice)).map(of_rank).collect()
    }

    #[test]
    fn limits_of_1_and_0_are_batch_normalization() {
        let x = values(1);
        let of_batch = forward_train(&ranks(&x), Affine::default(), EPS).unwrap();
        let running = Running { mean: vec![3.0, -1.0], var: vec![0.2, 5.0] };
        let none = Correction::new(&of_batch.statistics, &running, [1.0, 0.0], EPS).unwrap();
        assert_eq!(none, Correction { r: vec![1.0; 2], d: vec![0.0; 2] });
        let y = renormalized_forward(&ranks(&x), &none, Affine::default(), EPS).unwrap();
        assert_eq!(y, of_batch.outputs);
    }

    #[test]
    fn without_limits_the_running_statistics_normalize() {
        let x = values(2);
        let statistics = forward_train(&ranks(&x), Affine::default(), EPS).unwrap().statistics;
        let running = Running { mean: vec![3.0, -1.0], var: vec![0.2, 5.0] };
        let of = Correction::new(&statistics, &running, [1e9, 1e9], EPS).unwrap();
        let found = renormalized_forward(&ranks(&x), &of, Affine::default(), EPS).unwrap();
        let expected = super::super::forward_with_statistics(
            &ranks(&x),
            &running.mean,
            &running.var,
            Affine::default(),
            EPS,
        )
        .unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        }
    }

    #[test]
    fn gradients_are_finite_differences_with_r_and_d_held() {
        let x = values(3);
        let g = values(5);
        let weight = [1.5, -0.5];
        let bias = [0.25, 2.0];
        let of = Correction { r: vec![1.7, 0.6], d: vec![-0.8, 1.1] };
        let loss = |x: &[Vec<f64>; 2], weight: &[f64], bias: &[f64]| -> f64 {
            let affine = Affine { weight: Some(weight), bias: Some(bias) };
            let y = renormalized_forward(&ranks(x), &of, affine, EPS).unwrap();
            y.iter().flatten().zip(g.iter().flatten()).map(|(y, g)| y * g).sum()
        };
        let gradients =
            renormalized_backward(&ranks(&x), &ranks(&g), &of, Some(&weight), EPS).unwrap();
        const H: f64 = 1e-6;
        let near = |found: f64, [above, below]: [f64; 2]| {
            let slope = (above - below) / (2.0 * H);
            assert!((found - slope).abs() < 1e-7, "{found}, {slope}");
        };
        for rank in 0..2 {
            for i in 0..x[rank].len() {
                let moved = |by: f64| {
                    let mut x = x.clone();
                    x[rank][i] += by;
                    loss(&x, &weight, &bias)
                };
                near(gradients.grad_inputs[rank][i], [moved(H), moved(-H)]);
            }
        }
        for c in 0..2 {
            let moved = |by: f64, of: [f64; 2]| {
                let mut of = of;
                of[c] += by;
                of
            };
            let sum = |of: &[Vec<f64>]| of.iter().map(|rank| rank[c]).sum::<f64>();
            let of_weight = [H, -H].map(|by| loss(&x, &moved(by, weight), &bias));
            near(sum(&gradients.grad_weights), of_weight);
            near(
                sum(&gradients.grad_biases),
                [H, -H].map(|by| loss(&x, &weight, &moved(by, bias))),
            );
        }
    }
}
