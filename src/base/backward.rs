//! A backward request, checked and made into ranks.

use smallvec::SmallVec;

use super::Base;
use super::check::{Argument, check_like};
use super::inputs::CheckedInputs;
use super::parameters::named;
use crate::config::Statistics;
use crate::engine::{BackwardRank, Steps};
use crate::error::{ArgumentError, Error, position};
use crate::request::{BackwardParts, Source, Targets};
use crate::saved::SavedCall;
use crate::shape::Shape;
use crate::tensor::{ListMut, Output, Tensor, Tensors, all_like};

/// Gradients that are made for the caller; the others are `None`.
#[derive(Debug, Default)]
pub(crate) struct GradientTensors {
    pub input: Option<Vec<Tensor>>,
    pub weight: Option<Vec<Tensor>>,
    pub bias: Option<Vec<Tensor>>,
    pub residual: Option<Vec<Tensor>>,
}

impl GradientTensors {
    /// The result of the call.
    pub fn into_output<O: Output>(
        self,
        report: Option<crate::stats::BackwardReport>,
    ) -> Result<crate::Gradients<O>, Error> {
        Ok(crate::Gradients {
            input: O::of_list(self.input.unwrap_or_default())?,
            weight: self.weight.map(O::of_list).transpose()?,
            bias: self.bias.map(O::of_list).transpose()?,
            residual: self.residual.map(O::of_list).transpose()?,
            report,
        })
    }

    /// All of them as targets.
    fn targets(&mut self) -> Targets<'_> {
        fn list(tensors: &mut Option<Vec<Tensor>>) -> Option<ListMut<'_>> {
            tensors.as_mut().map(|tensors| ListMut::Slice(tensors))
        }
        let Self { input, weight, bias, residual } = self;
        Targets {
            input: list(input),
            weight: list(weight),
            bias: list(bias),
            residual: list(residual),
        }
    }
}

/// A backward request that has passed its checks.
pub(crate) struct CheckedBackward {
    shapes: Vec<Shape>,
    grad_shapes: Vec<Shape>,
    /// Made for the caller, where it gave no targets.
    pub made: GradientTensors,
}

impl Base {
    /// Checks the inputs and targets of backward, and makes the gradients of these steps that
    /// are to be returned.
    pub fn check_backward(
        &self,
        saved: &SavedCall,
        parts: &BackwardParts<'_>,
        steps: Steps,
    ) -> Result<CheckedBackward, Error> {
        let CheckedInputs { x, residual, shapes } = self.check_inputs(saved, &parts.inputs)?;
        // Samples that were padded in forward are padded here.
        let shapes = saved.padded(shapes);
        let grad_output = parts.grad_output.tensors();
        let grad_shapes = self.check_grad_output(&grad_output, &shapes, &x)?;
        let mut made = GradientTensors::default();
        match &parts.targets {
            Some(targets) => {
                let is_in_place = matches!(parts.grad_output, Source::InPlace(_));
                let sources = vec![
                    Argument::new("x", &x),
                    Argument::new("residual", &residual),
                    Argument::new("grad_output", &grad_output),
                ];
                self.check_gradient_targets(targets, sources, is_in_place, steps)?;
            }
            None => {
                if steps.apply {
                    made.input = Some(all_like(&x)?);
                    made.residual = self.config.residual.then(|| all_like(&x)).transpose()?;
                }
                if steps.sums {
                    made.weight = self.channel_vectors(self.config.weight, x.len())?;
                    made.bias = self.channel_vectors(self.config.bias, x.len())?;
                }
            }
        }
        Ok(CheckedBackward { shapes, grad_shapes, made })
    }

    /// Checks that targets are of gradients that the layer has and these steps write, fit, and have
    /// memory of their own.
    fn check_gradient_targets<'t>(
        &self,
        targets: &'t Targets<'_>,
        sources: Vec<Argument<'t>>,
        is_in_place: bool,
        steps: Steps,
    ) -> Result<(), Error> {
        let tensors = |list: &'t Option<ListMut<'_>>| {
            list.as_ref().map(|list| list.iter().collect::<Tensors<'_>>())
        };
        let input = tensors(&targets.input);
        let residual = tensors(&targets.residual);
        let weight = tensors(&targets.weight);
        let bias = tensors(&targets.bias);
        let not_wanted =
            |argument, reason| Err(ArgumentError::NotWanted { argument, reason }.into());
        let x = sources[0].tensors;
        let mut others: Vec<Argument<'_>> = sources;
        if is_in_place {
            if input.is_some() {
                return not_wanted("input_gradient", "it overwrites grad_output");
            }
            let grad_output = others[2];
            let sources = &others[..2];
            self.check_targets(grad_output, sources, x.len())?;
            check_like(grad_output, x, false)?;
        }
        let adds_residual = self.config.residual;
        let activations =
            [("input_gradient", true, &input), ("residual_gradient", adds_residual, &residual)];
        for (argument, configured, tensors) in activations {
            let Some(tensors) = tensors else { continue };
            if !configured {
                return Err(ArgumentError::ResidualNotAdded { argument }.into());
            }
            if !steps.apply {
                return not_wanted(
                    argument,
                    "it needs the sums of all ranks: give it to input_gradients",
                );
            }
            let target = Argument::new(argument, tensors);
            self.check_targets(target, &others, x.len())?;
            check_like(target, x, false)?;
            others.push(target);
        }
        let vectors = [
            ("weight_gradient", "with_weight", self.config.weight, &weight),
            ("bias_gradient", "with_bias", self.config.bias, &bias),
        ];
        for (argument, setting, configured, tensors) in vectors {
            let Some(tensors) = tensors else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { argument, setting }.into());
            }
            if self.config.freeze_affine {
                return Err(ArgumentError::Frozen { argument }.into());
            }
            if !steps.sums {
                return not_wanted(argument, "local_gradient_sums writes it");
            }
            let target = Argument::new(argument, tensors);
            self.check_targets(target, &others, x.len())?;
            self.check_vectors(argument, tensors)?;
            for (rank, tensor) in tensors.iter().enumerate() {
                let rank = position(rank, tensors.len());
                tensor.check_writable().map_err(|error| named(error, argument, rank))?;
            }
            others.push(target);
        }
        Ok(())
    }

    /// A vector of channels for the gradient of a parameter on every rank, where it gets one.
    pub(super) fn channel_vectors(
        &self,
        configured: bool,
        ranks: usize,
    ) -> Result<Option<Vec<Tensor>>, Error> {
        let vectors = (0..ranks).map(|rank| self.device(rank).zeros(&[self.config.num_features]));
        self.has_gradient(configured).then(|| vectors.collect()).transpose()
    }

    /// Whether a parameter that is configured gets a gradient.
    fn has_gradient(&self, configured: bool) -> bool {
        configured && !self.config.freeze_affine
    }
}

impl CheckedBackward {
    /// The ranks of the call, with their plans.
    pub fn ranks<'r>(
        &'r mut self,
        base: &'r Base,
        saved: &'r SavedCall,
        parts: BackwardParts<'r>,
        steps: Steps,
    ) -> Result<Vec<BackwardRank<'r>>, Error> {
        let Targets { input, weight, bias, residual } = match parts.targets {
            Some(targets) => targets,
            None => self.made.targets(),
        };
        let (g, input): (SmallVec<[Option<&Tensor>; 4]>, _) = match parts.grad_output {
            Source::Read(list) => (list.iter().map(Some).collect(), input),
            Source::InPlace(list) => ((0..list.len()).map(|_| None).collect(), Some(list)),
        };
        let mut grad_input = tensors(input);
        let mut grad_residual = tensors(residual);
        let mut grad_weight = tensors(weight);
        let mut grad_bias = tensors(bias);
        let mut residuals = parts.inputs.residual.iter().flat_map(|list| list.iter());
        let shapes =
            std::mem::take(&mut self.shapes).into_iter().zip(std::mem::take(&mut self.grad_shapes));
        let mut ranks = Vec::with_capacity(g.len());
        for (rank, ((x, g), (shape, g_shape))) in
            parts.inputs.x.iter().zip(g).zip(shapes).enumerate()
        {
            ranks.push(BackwardRank {
                x,
                shape,
                g,
                g_shape,
                residual: residuals.next().filter(|_| saved.needs_residual()),
                mask: saved.kept.masks.get(rank).cloned(),
                layer: base.engine_layer(rank),
                depends_on_batch: saved.statistics != Statistics::Running,
                grad_input: grad_input.next(),
                grad_residual: grad_residual.next(),
                grad_weight: grad_weight.next(),
                grad_bias: grad_bias.next(),
                lengths: saved.kept.lengths.get(rank).cloned().flatten(),
                sums: None,
                apply: None,
            });
        }
        ranks
            .iter_mut()
            .enumerate()
            .try_for_each(|(rank, of)| of.plan(base.device(rank), steps))?;
        Ok(ranks)
    }
}

/// The tensors of a target, or none.
fn tensors<'r>(list: Option<ListMut<'r>>) -> impl Iterator<Item = &'r mut Tensor> {
    list.map_or_else(SmallVec::new, ListMut::into_tensors).into_iter()
}
