//! Owns what double backward adds to a case: the cotangents, what is observed, the definition, and
//! the cases as reproducible layers see them, which have no double backward.

use syncbn::{DoubleBackward, Tensor};
use syncbn_reference::{
    self as reference, Cotangents as Given, DoubleGradients as Second, RankBatch, ReferenceError,
};

use crate::caller;
use crate::compare::Quantity;
use crate::scenario::{Group, RankTensor};

/// The cotangents of what backward returns.
#[derive(Clone, Debug)]
pub struct Cotangents {
    /// Of dx.
    pub inputs: Vec<RankTensor>,
    /// Of the local dweight, (C) of each rank.
    pub weights: Option<Vec<Vec<f32>>>,
    /// Of the local dbias, likewise.
    pub biases: Option<Vec<Vec<f32>>>,
}

impl Cotangents {
    /// Adds those of further ranks.
    pub fn extend(&mut self, other: &Self) {
        self.inputs.extend(other.inputs.iter().cloned());
        let lists = [(&mut self.weights, &other.weights), (&mut self.biases, &other.biases)];
        for (list, other) in lists {
            list.iter_mut().for_each(|list| list.extend(other.iter().flatten().cloned()));
        }
    }
}

/// Gradients of backward.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub inputs: Vec<Vec<f64>>,
    pub grad_outputs: Vec<Vec<f64>>,
    pub weights: Option<Vec<Vec<f64>>>,
}

impl Observed {
    pub fn get(&self, quantity: Quantity) -> Option<Vec<f64>> {
        match quantity {
            Quantity::DoubleInput(rank) => self.inputs.get(rank).cloned(),
            Quantity::DoubleGradOutput(rank) => self.grad_outputs.get(rank).cloned(),
            Quantity::DoubleWeight(rank) => self.weights.as_ref()?.get(rank).cloned(),
            Quantity::DoubleWeightSum => {
                let ranks = self.weights.as_ref()?;
                let mut sum = ranks.first()?.clone();
                for rank in &ranks[1..] {
                    sum.iter_mut().zip(rank).for_each(|(sum, value)| *sum += value);
                }
                Some(sum)
            }
            _ => None,
        }
    }

    /// Adds what the next ranks of a group observed.
    pub fn extend(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        self.grad_outputs.extend(other.grad_outputs);
        self.weights = self.weights.take().zip(other.weights).map(|(mut ranks, other)| {
            ranks.extend(other);
            ranks
        });
    }
}

/// The cotangents of some ranks, on their devices.
pub struct Tensors {
    pub inputs: Vec<Tensor>,
    pub weights: Option<Vec<Tensor>>,
    pub biases: Option<Vec<Tensor>>,
}

/// What a layer is asked for.
pub fn request<'a>(
    given: caller::Given<'a>,
    grad_outputs: &'a [Tensor],
    cotangents: &'a Tensors,
) -> DoubleBackward<'a, Vec<Tensor>> {
    let mut request = DoubleBackward::of(given.x, grad_outputs).input_cotangent(&cotangents.inputs);
    if let Some(weights) = &cotangents.weights {
        request = request.weight_cotangent(weights);
    }
    if let Some(biases) = &cotangents.biases {
        request = request.bias_cotangent(biases);
    }
    match given.residuals {
        Some(residuals) => request.residual(residuals),
        None => request,
    }
}

/// A call, as the definition takes it: `statistics` where they are constants.
pub struct Definition<'a> {
    pub x: &'a [RankBatch<'a>],
    /// Before the activation.
    pub g: &'a [RankBatch<'a>],
    /// The slope of the activation.
    pub slopes: &'a [Vec<f64>],
    pub v: &'a [RankBatch<'a>],
    pub cotangents: &'a Cotangents,
    pub statistics: Option<[&'a [f64]; 2]>,
    pub weight: Option<&'a [f64]>,
    pub eps: f64,
}

impl Definition<'_> {
    pub fn observe(&self) -> Result<Observed, ReferenceError> {
        let widen = |vectors: &Option<Vec<Vec<f32>>>| -> Option<Vec<Vec<f64>>> {
            let of_rank = |of: &Vec<f32>| of.iter().copied().map(f64::from).collect();
            vectors.as_ref().map(|vectors| vectors.iter().map(of_rank).collect())
        };
        let weights = widen(&self.cotangents.weights);
        let biases = widen(&self.cotangents.biases);
        let given =
            Given { inputs: self.v, weights: weights.as_deref(), biases: biases.as_deref() };
        let Self { x, g, weight, eps, .. } = *self;
        let Second { inputs, mut grad_outputs, weights } = match self.statistics {
            None => reference::double_backward_train(x, g, given, weight, eps)?,
            Some(of) => reference::double_backward_with_statistics(x, g, given, of, weight, eps)?,
        };
        let gradients = grad_outputs.iter_mut().flatten().zip(self.slopes.iter().flatten());
        gradients.for_each(|(gradient, slope)| *gradient *= slope);
        Ok(Observed { inputs, grad_outputs, weights: Some(weights) })
    }
}

/// A case without double backward, for layers that have none.
pub fn without(case: &[Group]) -> Vec<Group> {
    let mut case = case.to_vec();
    for step in case.iter_mut().flat_map(|group| &mut group.scenario.steps) {
        step.cotangents = None;
        step.checks.retain(|check| !check.quantity.is_double());
    }
    case
}
