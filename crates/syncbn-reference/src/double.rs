//! Owns the gradients of backward: second derivatives, of the group's batch statistics, and of
//! given ones.

use super::backward::check_pairs;
use super::sum::CompensatedSum;
use super::{
    RankBatch, ReferenceError, batch_statistics, by_channel, check_length, inv_std, or_fill,
};

/// The cotangents of what backward returns: the gradients of a scalar with respect to it.
#[derive(Clone, Copy, Debug)]
pub struct Cotangents<'a> {
    /// Of grad_input of every rank, in the shape of its input.
    pub inputs: &'a [RankBatch<'a>],
    /// Of the local grad_weight of every rank, of length C each; absent stands for zeros.
    pub weights: Option<&'a [Vec<f64>]>,
    /// Of the local grad_bias of every rank, likewise.
    pub biases: Option<&'a [Vec<f64>]>,
}

/// The gradients of S = Σ v·grad_input + u·grad_weight + q·grad_bias over all ranks, with the
/// cotangents v, u and q.
#[derive(Clone, Debug, PartialEq)]
pub struct DoubleGradients {
    /// With respect to the input of every rank, in its shape.
    pub inputs: Vec<Vec<f64>>,
    /// With respect to the upstream gradient of every rank.
    pub grad_outputs: Vec<Vec<f64>>,
    /// With respect to the weight, the part of every rank: inv_std·Σ v·p over its own values. All
    /// ranks' together are the gradient of S.
    pub weights: Vec<Vec<f64>>,
}

/// The quantities of one value that enter the sums of its channel.
#[derive(Clone, Copy, Default)]
struct Value {
    rank: usize,
    h: f64,
    g: f64,
    v: f64,
    u: f64,
    q: f64,
}

/// The gradients of [`backward_train`](super::backward_train). Per channel, with h = (x −
/// mean)·inv_std, s = inv_std and w = weight, all sums and averages ⟨·⟩ over the group:
///
/// ```text
/// p           = g − ⟨g⟩ − h·⟨g·h⟩                        grad_input = w·s·p
/// grad_output = w·s·(v − ⟨v⟩ − h·⟨v·h⟩) + u·h + q
/// input       = s·(t − ⟨t⟩ − h·⟨t·h⟩) − w·s²·h·⟨v·p⟩
///               with t = u·g − w·s·(g·⟨v·h⟩ + v·⟨g·h⟩)   the derivative of S by h
/// weight      = s·Σ v·p
/// ```
///
/// The last term of `input` is the derivative by s itself.
pub fn double_backward_train(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    cotangents: Cotangents<'_>,
    weight: Option<&[f64]>,
    eps: f64,
) -> Result<DoubleGradients, ReferenceError> {
    let statistics = batch_statistics(inputs)?;
    if statistics.count == 1 {
        return Err(ReferenceError::SingleValue);
    }
    let n = statistics.count.max(1) as f64;
    let mean = statistics.mean;
    let var = statistics.var_biased;
    each_channel(inputs, grad_outputs, cotangents, weight, [&mean, &var], eps, |values, w, s| {
        let average = |of: &dyn Fn(&Value) -> f64| sum(values, of) / n;
        let [g, gh] = [average(&|of| of.g), average(&|of| of.g * of.h)];
        let [v, vh] = [average(&|of| of.v), average(&|of| of.v * of.h)];
        let p = |of: &Value| of.g - g - of.h * gh;
        let vp = average(&|of| of.v * p(of));
        let t = |of: &Value| of.u * of.g - w * s * (of.g * vh + of.v * gh);
        let [mean_t, mean_th] = [average(&|of| t(of)), average(&|of| t(of) * of.h)];
        let each = |of: &Value| Second {
            input: s * (t(of) - mean_t - of.h * mean_th) - w * s * s * of.h * vp,
            grad_output: w * s * (of.v - v - of.h * vh) + of.u * of.h + of.q,
            weight: s * of.v * p(of),
        };
        values.iter().map(each).collect()
    })
}

/// The gradients of [`backward_with_statistics`](super::backward_with_statistics), whose statistics
/// are constants:
///
/// ```text
/// grad_output = w·s·v + u·h + q        input = s·u·g        weight = s·Σ v·g
/// ```
pub fn double_backward_with_statistics(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    cotangents: Cotangents<'_>,
    statistics: [&[f64]; 2],
    weight: Option<&[f64]>,
    eps: f64,
) -> Result<DoubleGradients, ReferenceError> {
    each_channel(inputs, grad_outputs, cotangents, weight, statistics, eps, |values, w, s| {
        let each = |of: &Value| Second {
            input: s * of.u * of.g,
            grad_output: w * s * of.v + of.u * of.h + of.q,
            weight: s * of.v * of.g,
        };
        values.iter().map(each).collect()
    })
}

/// The derivatives by what one value is made of.
struct Second {
    input: f64,
    grad_output: f64,
    weight: f64,
}

fn sum(values: &[Value], of: &dyn Fn(&Value) -> f64) -> f64 {
    let mut sum = CompensatedSum::default();
    values.iter().for_each(|value| sum.add(of(value)));
    sum.total()
}

/// Takes the values of every channel over all ranks, with its weight and inverse deviation.
fn each_channel(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    cotangents: Cotangents<'_>,
    weight: Option<&[f64]>,
    [mean, var]: [&[f64]; 2],
    eps: f64,
    derive: impl Fn(&[Value], f64, f64) -> Vec<Second>,
) -> Result<DoubleGradients, ReferenceError> {
    let channels = check_pairs(inputs, grad_outputs)?;
    check_pairs(inputs, cotangents.inputs)?;
    check_length("mean", mean.len(), channels)?;
    check_length("var", var.len(), channels)?;
    for (what, vectors) in [("weights", cotangents.weights), ("biases", cotangents.biases)] {
        let Some(vectors) = vectors else { continue };
        check_length(&format!("cotangents of {what}"), vectors.len(), inputs.len())?;
        for vector in vectors {
            check_length(&format!("a cotangent of {what}"), vector.len(), channels)?;
        }
    }
    let weight = or_fill("weight", weight, 1.0, channels)?;
    let inv_std = inv_std(var, eps);
    let of_vectors = |vectors: Option<&[Vec<f64>]>, rank: usize, channel: usize| {
        vectors.map_or(0.0, |vectors| vectors[rank][channel])
    };
    let mut values: Vec<Vec<Value>> = vec![Vec::new(); channels];
    for (rank, ((input, g), v)) in
        inputs.iter().zip(grad_outputs).zip(cotangents.inputs).enumerate()
    {
        for (((c, x), &g), &v) in by_channel(input).zip(g.values).zip(v.values) {
            values[c].push(Value {
                rank,
                h: (x - mean[c]) * inv_std[c],
                g,
                v,
                u: of_vectors(cotangents.weights, rank, c),
                q: of_vectors(cotangents.biases, rank, c),
            });
        }
    }
    let mut weights = vec![vec![CompensatedSum::default(); channels]; inputs.len()];
    let mut seconds = Vec::with_capacity(channels);
    for (c, values) in values.iter().enumerate() {
        let of_channel = derive(values, weight[c], inv_std[c]);
        for (value, second) in values.iter().zip(&of_channel) {
            weights[value.rank][c].add(second.weight);
        }
        seconds.push(of_channel.into_iter());
    }
    let mut result =
        DoubleGradients { inputs: Vec::new(), grad_outputs: Vec::new(), weights: Vec::new() };
    for (input, weights) in inputs.iter().zip(weights) {
        let of_rank: Vec<Second> =
            by_channel(input).filter_map(|(c, _)| seconds[c].next()).collect();
        result.inputs.push(of_rank.iter().map(|of| of.input).collect());
        result.grad_outputs.push(of_rank.iter().map(|of| of.grad_output).collect());
        result.weights.push(weights.iter().map(|sum| sum.total()).collect());
    }
    Ok(result)
}
