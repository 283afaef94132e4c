//! Second derivatives against finite differences of the definition's own backward.

use super::tests::noise;
use super::*;

const DIMS: [&[usize]; 3] = [&[2, 2, 3], &[0, 2, 4], &[1, 2, 2]];
const STEP: f64 = 1e-5;
/// Of central differences of this step: curvature, and rounding over the step.
const NEAR: f64 = 3e-8;

#[derive(Clone)]
struct Case {
    x: Vec<Vec<f64>>,
    dy: Vec<Vec<f64>>,
    weight: Vec<f64>,
    v: Vec<Vec<f64>>,
    u: Vec<Vec<f64>>,
    q: Vec<Vec<f64>>,
    given: Option<[Vec<f64>; 2]>,
}

fn ranks(values: &[Vec<f64>]) -> Vec<RankBatch<'_>> {
    DIMS.iter().zip(values).map(|(dims, values)| RankBatch { dims, values }).collect()
}

impl Case {
    fn new(given: bool) -> Self {
        let activation = |seed: u64, scale: f64| -> Vec<Vec<f64>> {
            let values = |(rank, dims): (usize, &&[usize])| {
                let values = noise(seed + rank as u64, product(dims));
                values.into_iter().map(|value| scale * value + 0.2).collect()
            };
            DIMS.iter().enumerate().map(values).collect()
        };
        let vectors = |seed: u64| (0..3).map(|rank| noise(seed + rank, 2)).collect();
        Self {
            x: activation(1, 2.0),
            dy: activation(11, 1.0),
            weight: vec![0.7, -1.3],
            v: activation(21, 1.0),
            u: vectors(31),
            q: vectors(41),
            given: given.then(|| [vec![0.1, -0.2], vec![0.5, 1.5]]),
        }
    }

    /// S = Σ v·grad_input + u·grad_weight + q·grad_bias.
    fn scalar(&self) -> f64 {
        let x = ranks(&self.x);
        let dy = ranks(&self.dy);
        let weight = Some(self.weight.as_slice());
        let gradients = match &self.given {
            None => backward_train(&x, &dy, weight, 1e-2),
            Some([mean, var]) => backward_with_statistics(&x, &dy, mean, var, weight, 1e-2),
        };
        let gradients = gradients.unwrap_or_else(|error| panic!("{error}"));
        let dot = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
            a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum()
        };
        dot(&self.v, &gradients.grad_inputs)
            + dot(&self.u, &gradients.grad_weights)
            + dot(&self.q, &gradients.grad_biases)
    }

    fn second(&self) -> Result<DoubleGradients, ReferenceError> {
        let x = ranks(&self.x);
        let dy = ranks(&self.dy);
        let v = ranks(&self.v);
        let cotangents = Cotangents { inputs: &v, weights: Some(&self.u), biases: Some(&self.q) };
        let weight = Some(self.weight.as_slice());
        match &self.given {
            None => double_backward_train(&x, &dy, cotangents, weight, 1e-2),
            Some([mean, var]) => {
                double_backward_with_statistics(&x, &dy, cotangents, [mean, var], weight, 1e-2)
            }
        }
    }

    /// The slope of S by one number.
    fn slope(&self, number: impl Fn(&mut Self) -> &mut f64) -> f64 {
        let moved = |by: f64| {
            let mut case = self.clone();
            *number(&mut case) += by;
            case.scalar()
        };
        (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
    }

    /// The largest distance of any second derivative from the slope of S.
    fn worst(&self, second: &DoubleGradients) -> f64 {
        let mut worst = 0f64;
        for rank in 0..3 {
            for i in 0..self.x[rank].len() {
                worst =
                    worst.max((second.inputs[rank][i] - self.slope(|of| &mut of.x[rank][i])).abs());
                let of_dy = self.slope(|of| &mut of.dy[rank][i]);
                worst = worst.max((second.grad_outputs[rank][i] - of_dy).abs());
            }
        }
        for c in 0..2 {
            let sum: f64 = second.weights.iter().map(|weights| weights[c]).sum();
            worst = worst.max((sum - self.slope(|of| &mut of.weight[c])).abs());
        }
        worst
    }
}

#[test]
fn second_derivatives_are_the_slopes_of_backward() -> Result<(), ReferenceError> {
    for given in [false, true] {
        let case = Case::new(given);
        let worst = case.worst(&case.second()?);
        assert!(worst < NEAR, "given {given}: {worst}");
    }
    Ok(())
}

#[test]
fn one_derivative_that_is_off_by_a_hundredth_is_caught() -> Result<(), ReferenceError> {
    let case = Case::new(false);
    let mut second = case.second()?;
    second.inputs[0][1] *= 1.01;
    assert!(case.worst(&second) > 10.0 * NEAR);
    Ok(())
}

#[test]
fn cotangents_of_other_lengths_are_refused() {
    let case = Case::new(false);
    let x = ranks(&case.x);
    let dy = ranks(&case.dy);
    let v = ranks(&case.v);
    let short = vec![vec![0.0; 2]; 2];
    let cotangents = Cotangents { inputs: &v, weights: Some(&short), biases: None };
    let error = double_backward_train(&x, &dy, cotangents, None, 0.0);
    assert_eq!(
        error,
        Err(ReferenceError::Length {
            what: "cotangents of weights".to_owned(),
            found: 2,
            expected: 3
        })
    );
}
