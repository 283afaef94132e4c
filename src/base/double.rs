//! A request of double backward, checked and made into ranks.

use super::Base;
use super::check::{Argument, check_like};
use super::inputs::CheckedInputs;
use super::parameters::named;
use crate::config::Statistics;
use crate::engine::{BackwardRank, DoublePair, DoubleRank, Steps};
use crate::error::{ArgumentError, Error, position};
use crate::request::{DoubleGradients, DoubleParts};
use crate::saved::SavedCall;
use crate::shape::Shape;
use crate::tensor::{List, Output, Tensor, all_like};

/// A request of double backward that has passed its checks, and the results that are made for it.
pub(crate) struct CheckedDouble {
    shapes: Vec<Shape>,
    /// The gradients with respect to x.
    pub input: Vec<Tensor>,
    /// Those with respect to grad_output.
    pub grad_output: Vec<Tensor>,
    /// Those with respect to the weight, where the device makes them.
    pub weight: Option<Vec<Tensor>>,
}

impl Base {
    /// Checks the inputs of double backward, and makes the tensors that it writes.
    pub fn check_double(
        &self,
        saved: &SavedCall,
        parts: &DoubleParts<'_>,
    ) -> Result<CheckedDouble, Error> {
        self.check_differentiable(saved)?;
        let CheckedInputs { x, shapes, .. } = self.check_inputs(saved, &parts.inputs)?;
        let grad_output = tensors(&parts.grad_output);
        self.check_grad_output(&grad_output, &shapes, &x)?;
        check_like(Argument::new("grad_output", &grad_output), &x, false)?;
        if let Some(cotangent) = parts.input.as_ref().map(tensors) {
            self.check_list("input_cotangent", &cotangent, x.len())?;
            check_like(Argument::new("input_cotangent", &cotangent), &x, false)?;
        }
        let vectors = [
            ("weight_cotangent", "with_weight", self.config.weight, &parts.weight),
            ("bias_cotangent", "with_bias", self.config.bias, &parts.bias),
        ];
        for (argument, setting, configured, cotangent) in vectors {
            let Some(cotangent) = cotangent.as_ref().map(tensors) else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { argument, setting }.into());
            }
            if self.config.freeze_affine {
                return Err(ArgumentError::Frozen { argument }.into());
            }
            self.check_list(argument, &cotangent, x.len())?;
            self.check_vectors(argument, &cotangent)?;
            for (rank, tensor) in cotangent.iter().enumerate() {
                let rank = position(rank, cotangent.len());
                tensor.check_readable().map_err(|error| named(error, argument, rank))?;
            }
        }
        Ok(CheckedDouble { shapes, input: all_like(&x)?, grad_output: all_like(&x)?, weight: None })
    }

    /// Refuses calls and layers that double backward does not support.
    fn check_differentiable(&self, saved: &SavedCall) -> Result<(), ArgumentError> {
        let argument = "double_backward";
        if saved.padding.iter().any(Option::is_some) {
            let reason = "the samples of the saved call are padded; cut them to their lengths";
            return Err(ArgumentError::NotWanted { argument, reason });
        }
        if !self.config.epilogue().is_piecewise_linear() {
            let reason = "the second derivative of the layer's activation is not 0; that of None, \
                          Relu and LeakyRelu is";
            return Err(ArgumentError::NotWanted { argument, reason });
        }
        if self.config.reproducible {
            let reason = "the layer is reproducible, and the sums of double backward are not sums \
                          of integers";
            return Err(ArgumentError::NotWanted { argument, reason });
        }
        Ok(())
    }
}

fn tensors<'t>(list: &List<'t>) -> Vec<&'t Tensor> {
    list.iter().collect()
}

impl CheckedDouble {
    /// The same with tensors for the gradient with respect to the weight, where it gets one.
    pub fn with_weight(mut self, base: &Base) -> Result<Self, Error> {
        self.weight = base.channel_vectors(base.config.weight, self.shapes.len())?;
        Ok(self)
    }

    /// The result of the call.
    pub fn into_output<O: Output>(self) -> Result<DoubleGradients<O>, Error> {
        Ok(DoubleGradients {
            input: O::of_list(self.input)?,
            grad_output: O::of_list(self.grad_output)?,
            weight: self.weight.map(O::of_list).transpose()?,
        })
    }

    /// The ranks of the call, with their plans.
    pub fn ranks<'r>(
        &'r mut self,
        base: &'r Base,
        saved: &'r SavedCall,
        parts: &DoubleParts<'r>,
    ) -> Result<Vec<DoublePair<'r>>, Error> {
        let at = |list: &Option<List<'r>>, rank: usize| list.as_ref()?.iter().nth(rank);
        let outputs = self.input.iter_mut().zip(&mut self.grad_output);
        let mut weights = self.weight.iter_mut().flatten();
        let read = parts.inputs.x.iter().zip(parts.grad_output.iter());
        let mut ranks = Vec::with_capacity(parts.inputs.x.len());
        for (rank, ((x, g), (input, grad_output))) in read.zip(outputs).enumerate() {
            let shape = &self.shapes[rank];
            let residual = at(&parts.inputs.residual, rank).filter(|_| saved.needs_residual());
            let mask = saved.kept.masks.get(rank).cloned();
            let layer = base.engine_layer(rank);
            let mut backward = BackwardRank {
                x,
                shape: shape.clone(),
                g: Some(g),
                g_shape: shape.clone(),
                residual,
                mask: mask.clone(),
                layer,
                depends_on_batch: saved.statistics != Statistics::Running,
                grad_input: None,
                grad_residual: None,
                grad_weight: None,
                grad_bias: None,
                lengths: None,
                sums: None,
                apply: None,
            };
            let mut double = DoubleRank {
                x,
                shape: shape.clone(),
                g,
                v: at(&parts.input, rank),
                residual,
                mask,
                layer,
                parameters: [at(&parts.weight, rank), at(&parts.bias, rank)],
                input: Some(input),
                grad_output: Some(grad_output),
                weight: weights.next(),
                sums: None,
                applies: Vec::new(),
            };
            backward.plan(base.device(rank), Steps { sums: true, apply: false })?;
            double.plan(base.device(rank))?;
            ranks.push(DoublePair { backward, double });
        }
        Ok(ranks)
    }
}
