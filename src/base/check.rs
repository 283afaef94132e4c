//! The checks of a call's tensors, all of them before anything is submitted or changed.

use super::Base;
use crate::error::{ArgumentError, Error, indexed, position};
use crate::request::Named;
use crate::shape::Shape;
use crate::stats::RunningStats;
use crate::tensor::{DType, Tensor};

/// An argument: one tensor per rank.
#[derive(Clone, Copy)]
pub(super) struct Argument<'t> {
    pub name: &'static str,
    pub tensors: &'t [&'t Tensor],
}

impl<'t> Argument<'t> {
    pub fn new(name: &'static str, tensors: &'t [&'t Tensor]) -> Self {
        Self { name, tensors }
    }
}

impl Base {
    /// Checks that running statistics are of this layer.
    pub fn check_running(&self, running: &RunningStats) -> Result<(), ArgumentError> {
        if !self.config.track_running_stats {
            let argument = "running statistics";
            let setting = "with_track_running_stats";
            return Err(ArgumentError::NoSuchParameter { argument, setting });
        }
        self.check_length("running_mean", running.mean.len())?;
        self.check_length("running_var", running.var.len())?;
        match running.var.iter().position(|&var| var < 0.0) {
            None => Ok(()),
            Some(channel) => {
                let reason =
                    format!("its variance is {}, expected at least 0", running.var[channel]);
                Err(ArgumentError::Statistics {
                    argument: "running_var",
                    rank: None,
                    channel,
                    reason,
                })
            }
        }
    }

    /// Checks x and reads its shapes.
    pub(super) fn check_x(&self, x: &[&Tensor]) -> Result<Vec<Shape>, Error> {
        let argument = "x";
        self.check_ranks(argument, x)?;
        let mut shapes = Vec::with_capacity(x.len());
        for (rank, tensor) in positions(x) {
            let shape =
                tensor.shape().map_err(|shape| ArgumentError::Shape { argument, rank, shape })?;
            let found = shape.channels();
            let expected = self.config.num_features;
            if found != expected {
                let dims = tensor.dims().to_vec();
                return Err(
                    ArgumentError::Channels { argument, rank, dims, found, expected }.into()
                );
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// Checks that there is a residual where it is needed, and only there, each as its x.
    pub(super) fn check_residual(
        &self,
        residual: Option<&[&Tensor]>,
        x: &[&Tensor],
        needed: bool,
    ) -> Result<(), Error> {
        match residual {
            Some(residual) if self.config.residual => {
                self.check_ranks_of("residual", residual, x.len())?;
                check_like(Argument::new("residual", residual), x, false)
            }
            Some(_) => Err(ArgumentError::ResidualNotAdded { argument: "residual" }.into()),
            None if needed => Err(ArgumentError::NoResidual.into()),
            None => Ok(()),
        }
    }

    /// Reads the shapes of grad_output, which may be of another layout than x.
    pub(super) fn check_grad_output(
        &self,
        grad_output: &[&Tensor],
        shapes: &[Shape],
        x: &[&Tensor],
    ) -> Result<Vec<Shape>, Error> {
        let argument = "grad_output";
        self.check_ranks_of(argument, grad_output, x.len())?;
        let mut grad_shapes = Vec::with_capacity(x.len());
        for ((rank, tensor), (x, of_x)) in positions(grad_output).zip(x.iter().zip(shapes)) {
            let shape =
                tensor.shape().map_err(|shape| ArgumentError::Shape { argument, rank, shape })?;
            if !shape.is_like(of_x) {
                let found = tensor.dims().to_vec();
                let expected = x.dims().to_vec();
                return Err(ArgumentError::Dims { argument, rank, found, expected }.into());
            }
            check_dtype(argument, rank, tensor.dtype(), x.dtype(), true)?;
            grad_shapes.push(shape);
        }
        Ok(grad_shapes)
    }

    /// Checks that there is one target per rank, with memory of its own: shared neither with the
    /// layer's parameters nor with any of `others`.
    pub(super) fn check_targets(
        &self,
        target: Argument<'_>,
        others: &[Argument<'_>],
        ranks: usize,
    ) -> Result<(), Error> {
        let Argument { name: argument, tensors: targets } = target;
        self.check_ranks_of(argument, targets, ranks)?;
        for (index, target) in targets.iter().enumerate() {
            let rank = position(index, targets.len());
            let overlap =
                |other, other_rank| ArgumentError::Overlap { argument, rank, other, other_rank };
            for other in others {
                let shared = positions(other.tensors).find(|(_, tensor)| target.overlaps(tensor));
                if let Some((other_rank, _)) = shared {
                    return Err(overlap(other.name, other_rank).into());
                }
            }
            let earlier = targets[..index].iter().position(|earlier| target.overlaps(earlier));
            if earlier.is_some() {
                return Err(overlap(argument, earlier).into());
            }
            let ranks = self.parameters.len();
            for (other_rank, parameters) in self.parameters.iter().enumerate() {
                for (other, parameter) in ["weight", "bias"].into_iter().zip(parameters.both()) {
                    if parameter.is_some_and(|parameter| target.overlaps(parameter)) {
                        return Err(overlap(other, position(other_rank, ranks)).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that a target of the only rank shares memory with no other tensor of its call.
    pub fn check_target(
        &self,
        name: &'static str,
        target: &Tensor,
        others: &Named<'_>,
    ) -> Result<(), Error> {
        let others: Vec<_> =
            others.iter().map(|(name, tensors)| Argument::new(name, tensors)).collect();
        self.check_targets(Argument::new(name, &[target]), &others, 1)
    }

    /// Checks that tensors are of dimensions (C), stored as f32, each on its rank's device.
    pub fn check_vectors(&self, argument: &'static str, tensors: &[&Tensor]) -> Result<(), Error> {
        self.check_devices(argument, tensors)?;
        for (rank, tensor) in positions(tensors) {
            check_dims(argument, rank, tensor.dims(), &[self.config.num_features])?;
            let found = tensor.dtype();
            if found != DType::F32 {
                let argument = indexed(argument, rank);
                let expected = DType::F32.to_string();
                return Err(ArgumentError::DType { argument, found, expected }.into());
            }
        }
        Ok(())
    }

    /// Checks that there is one tensor per rank, each on its rank's device.
    fn check_ranks(&self, argument: &'static str, tensors: &[&Tensor]) -> Result<(), Error> {
        let expected = if self.any_ranks { tensors.len().max(1) } else { self.devices.len() };
        self.check_ranks_of(argument, tensors, expected)
    }

    /// Checks that there are so many tensors, each on its rank's device.
    pub(super) fn check_list(
        &self,
        argument: &'static str,
        tensors: &[&Tensor],
        expected: usize,
    ) -> Result<(), Error> {
        self.check_ranks_of(argument, tensors, expected)
    }

    fn check_ranks_of(
        &self,
        argument: &'static str,
        tensors: &[&Tensor],
        expected: usize,
    ) -> Result<(), Error> {
        let found = tensors.len();
        if found != expected {
            return Err(ArgumentError::RankCount { argument, found, expected }.into());
        }
        self.check_devices(argument, tensors)
    }

    fn check_devices(&self, argument: &'static str, tensors: &[&Tensor]) -> Result<(), Error> {
        for (rank, tensor) in tensors.iter().enumerate() {
            let device = self.device(rank);
            if !tensor.device().is_same(device) {
                let rank = position(rank, tensors.len());
                let found = tensor.device().to_string();
                let expected = device.to_string();
                return Err(ArgumentError::WrongDevice { argument, rank, found, expected }.into());
            }
        }
        Ok(())
    }
}

/// The tensors of an argument, each with its position if there are several.
fn positions<'t>(tensors: &'t [&'t Tensor]) -> impl Iterator<Item = (Option<usize>, &'t Tensor)> {
    tensors.iter().enumerate().map(|(rank, &tensor)| (position(rank, tensors.len()), tensor))
}

/// The tensors that a request reads and writes, by the names of its arguments.
pub(crate) struct Access<'t> {
    pub base: &'t Base,
    pub read: Named<'t>,
    pub written: Named<'t>,
}

/// Checks that what each request of a joint call writes is disjoint from all tensors of the others,
/// and from the parameters of their layers. An error comes with the number of its request.
pub(crate) fn check_disjoint<'t>(
    requests: impl ExactSizeIterator<Item = Access<'t>>,
) -> Result<(), (usize, Error)> {
    if requests.len() < 2 {
        return Ok(());
    }
    let requests: Vec<_> = requests.collect();
    for (index, request) in requests.iter().enumerate() {
        for (name, targets) in &request.written {
            let target = Argument::new(name, targets);
            for (_, other) in requests.iter().enumerate().filter(|(other, _)| *other != index) {
                let tensors = other.read.iter().chain(&other.written);
                let tensors: Vec<_> =
                    tensors.map(|(name, tensors)| Argument::new(name, tensors)).collect();
                let checked = other.base.check_targets(target, &tensors, targets.len());
                checked.map_err(|error| (index, error))?;
            }
        }
    }
    Ok(())
}

/// Checks that tensors have the dimensions and the layout of x, and storage types that go with it:
/// the same, or f32 with another where `mixed`.
pub(super) fn check_like(argument: Argument<'_>, x: &[&Tensor], mixed: bool) -> Result<(), Error> {
    let Argument { name: argument, tensors } = argument;
    for ((rank, tensor), x) in positions(tensors).zip(x) {
        // First, because another layout has other dimensions.
        let found = tensor.layout();
        let expected = x.layout();
        if found != expected {
            return Err(ArgumentError::Layout { argument, rank, found, expected }.into());
        }
        check_dims(argument, rank, tensor.dims(), x.dims())?;
        check_dtype(argument, rank, tensor.dtype(), x.dtype(), mixed)?;
    }
    Ok(())
}

fn check_dims(
    argument: &'static str,
    rank: Option<usize>,
    found: &[usize],
    expected: &[usize],
) -> Result<(), ArgumentError> {
    if found == expected {
        return Ok(());
    }
    Err(ArgumentError::Dims { argument, rank, found: found.to_vec(), expected: expected.to_vec() })
}

/// Checks that a storage type goes with that of x.
fn check_dtype(
    argument: &'static str,
    rank: Option<usize>,
    found: DType,
    x: DType,
    mixed: bool,
) -> Result<(), ArgumentError> {
    if found == x || (mixed && found.goes_with(x)) {
        return Ok(());
    }
    let expected = if mixed { format!("{x} or f32, as x is {x}") } else { format!("{x}, as x is") };
    Err(ArgumentError::DType { argument: indexed(argument, rank), found, expected })
}
