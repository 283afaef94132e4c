//! A forward request, checked and made into ranks.

use smallvec::SmallVec;

use super::Base;
use super::check::{Argument, check_like};
use crate::config::Statistics;
use crate::engine::{ForwardRank, Mask, Steps};
use crate::error::Error;
use crate::gpu::Memory;
use crate::request::{ForwardParts, Source};
use crate::saved::SavedCall;
use crate::shape::Shape;
use crate::tensor::{Tensor, Tensors, all_like};

impl Base {
    /// Checks the inputs and targets of forward, makes the outputs that are to be returned, and
    /// remembers the identity of the call's tensors.
    pub fn check_forward(
        &self,
        parts: &ForwardParts<'_>,
        statistics: Statistics,
    ) -> Result<CheckedForward, Error> {
        let x = parts.x.tensors();
        let shapes = self.check_padded_x(&x, parts.lengths.as_deref())?;
        let residual: Option<Tensors<'_>> =
            parts.residual.as_ref().map(|list| list.iter().collect());
        self.check_residual(residual.as_deref(), &x, self.config.residual)?;
        let residual = Argument::new("residual", residual.as_deref().unwrap_or_default());
        let mut outputs = Vec::new();
        match (&parts.x, &parts.output) {
            (Source::InPlace(_), _) => {
                self.check_targets(Argument::new("x", &x), &[residual], x.len())?;
            }
            (Source::Read(_), Some(output)) => {
                let output: Tensors<'_> = output.iter().collect();
                let target = Argument::new("output", &output);
                self.check_targets(target, &[Argument::new("x", &x), residual], x.len())?;
                check_like(target, &x, true)?;
            }
            (Source::Read(_), None) => outputs = all_like(&x)?,
        }
        let y = parts.output.iter().flat_map(|list| list.iter()).map(Tensor::dtype);
        let y =
            y.chain(x.iter().skip(parts.output.as_ref().map_or(0, |_| x.len())).map(|x| x.dtype()));
        let mut ranks = x.iter().zip(&shapes).zip(y).enumerate();
        let is_in_place = matches!(parts.x, Source::InPlace(_));
        let keeps_mask = self.config.keeps_mask()
            && !is_in_place
            && ranks
                .all(|(rank, ((x, shape), y))| Mask::is_possible(self.device(rank), x, shape, y));
        let mut call = SavedCall::new(self, &x, residual.tensors, statistics, keeps_mask);
        call.padding = shapes.iter().map(|shape| shape.padding().cloned()).collect();
        Ok(CheckedForward { shapes, outputs, keeps_mask, call })
    }

    /// Checks that the statistics of an x can be taken, and makes its ranks.
    pub fn statistics_ranks<'r>(
        &'r self,
        parts: &'r ForwardParts<'_>,
    ) -> Result<Vec<ForwardRank<'r>>, Error> {
        let x = parts.x.tensors();
        let shapes = self.check_padded_x(&x, parts.lengths.as_deref())?;
        let steps = Steps { sums: true, apply: false };
        let ranks = x.into_iter().zip(shapes).enumerate();
        let rank = |(rank, (x, shape))| {
            let mut planned = ForwardRank::new(Some(x), shape, self.engine_layer(rank));
            planned.plan(self.device(rank), None, false, steps)?;
            Ok(planned)
        };
        ranks.map(rank).collect()
    }
}

/// A forward request that has passed its checks.
pub(crate) struct CheckedForward {
    pub shapes: Vec<Shape>,
    /// Made for the caller, where it gave none.
    pub outputs: Vec<Tensor>,
    pub keeps_mask: bool,
    pub call: SavedCall,
}

impl CheckedForward {
    /// The ranks of the call, with their plans and masks.
    pub fn ranks<'r>(
        &'r mut self,
        base: &'r Base,
        parts: ForwardParts<'r>,
        steps: Steps,
        memory: Option<&Memory>,
    ) -> Result<Vec<ForwardRank<'r>>, Error> {
        let (x, y): (SmallVec<[Option<&Tensor>; 4]>, SmallVec<[&mut Tensor; 4]>) =
            match (parts.x, parts.output) {
                (Source::InPlace(list), _) => {
                    let y = list.into_tensors();
                    (y.iter().map(|_| None).collect(), y)
                }
                (Source::Read(list), Some(output)) => {
                    (list.iter().map(Some).collect(), output.into_tensors())
                }
                (Source::Read(list), None) => {
                    (list.iter().map(Some).collect(), self.outputs.iter_mut().collect())
                }
            };
        let mut residual = parts.residual.iter().flat_map(|list| list.iter());
        let mut ranks = Vec::with_capacity(x.len());
        for (rank, ((x, y), shape)) in
            x.into_iter().zip(y).zip(std::mem::take(&mut self.shapes)).enumerate()
        {
            let mut planned = ForwardRank {
                residual: residual.next(),
                y: Some(y),
                ..ForwardRank::new(x, shape, base.engine_layer(rank))
            };
            planned.plan(base.device(rank), memory, self.keeps_mask, steps)?;
            ranks.push(planned);
        }
        Ok(ranks)
    }
}
