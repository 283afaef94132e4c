//! What forward leaves for backward: statistics and the identity of what it used, no activation.

use super::{AffineParameters, DeviceGroup, Inputs};
use crate::config::Statistics;
use crate::engine::{Mask, Upstream, View};
use crate::error::ArgumentError;
use crate::shape::Shape;
use crate::stats::Normalization;
use crate::tensor::{Seen, Tensor};

/// The saved context of one forward call, for [`DeviceGroup::backward`] on the same group.
///
/// It keeps the statistics that normalized, where [`SyncBatchNormConfig::activation_mask`] asks for it a bit per value, and
/// recognizes the inputs: they are given again to backward, and y is not needed. Each call has its own, so that a layer may run several times before backward.
///
/// [`SyncBatchNormConfig::activation_mask`]: crate::SyncBatchNormConfig::activation_mask
#[derive(Clone, Debug)]
pub struct SavedForward {
    pub(super) call: SavedCall,
    /// Number of the call's exchange, by which peers know that they differentiate the same one.
    pub(super) exchange: u64,
    /// One for all ranks, or one for each rank.
    pub(super) normalizations: Vec<Normalization>,
}

impl SavedForward {
    /// What normalized on a rank.
    pub(super) fn normalization(&self, rank: usize) -> &Normalization {
        &self.normalizations[rank % self.normalizations.len()]
    }

    /// Whether backward needs the residuals of the call again: they decide on which side of the activation v was,
    /// unless the layer keeps a mask that says so.
    pub fn needs_residuals(&self) -> bool {
        self.call.needs_residuals()
    }

    /// Bytes of device or host memory that the call keeps for backward beyond statistics: its masks.
    pub fn mask_bytes(&self) -> u64 {
        self.call.mask_bytes()
    }
}

/// By what a forward call is recognized, and the masks that it filled: all that is saved but statistics.
#[derive(Clone, Debug)]
pub(crate) struct SavedCall {
    layer: u64,
    /// Weight and bias of each rank.
    parameters: Vec<[Option<Seen>; 2]>,
    inputs: Vec<Seen>,
    /// Those that backward needs again.
    residuals: Vec<Seen>,
    /// One for each rank, where the layer keeps them.
    masks: Vec<Mask>,
    pub statistics: Statistics,
}

impl SavedCall {
    /// Made before the call reads anything, so that nothing it reads is written unseen; the call fills the masks.
    pub fn new(group: &DeviceGroup, inputs: Inputs<'_>, statistics: Statistics, masks: Vec<Mask>) -> Self {
        let seen = |tensors: &[Tensor]| tensors.iter().map(Tensor::seen).collect();
        // A residual that is only added has no part in any gradient, and one whose part a mask has is not read again.
        let decides = group.config.epilogue.activates() && masks.is_empty();
        let residuals = inputs.residuals.filter(|_| decides).map_or(Vec::new(), seen);
        let inputs = seen(inputs.x);
        let parameters = group.parameters.iter().map(AffineParameters::seen).collect();
        Self { layer: group.id, parameters, inputs, residuals, masks, statistics }
    }

    pub fn masks(&self) -> &[Mask] {
        &self.masks
    }

    pub fn masks_mut(&mut self) -> &mut [Mask] {
        &mut self.masks
    }

    pub fn needs_residuals(&self) -> bool {
        !self.residuals.is_empty()
    }

    /// No later call uses the memory of the masks again.
    pub fn keep_out(&self) {
        self.masks.iter().for_each(Mask::keep_out);
    }

    pub fn mask_bytes(&self) -> u64 {
        self.masks.iter().map(Mask::size_bytes).sum()
    }

    /// What backward reads of a rank but the gradient.
    pub fn upstream<'a>(&'a self, inputs: Inputs<'a>, shapes: &'a [Shape], rank: usize) -> Upstream<'a> {
        Upstream {
            x: View { tensor: &inputs.x[rank], shape: &shapes[rank] },
            residual: inputs.residual(rank).filter(|_| self.needs_residuals()),
            mask: self.masks.get(rank),
        }
    }

    /// Refuses another layer, other inputs, or parameters set since.
    pub fn check(&self, group: &DeviceGroup, inputs: Inputs<'_>) -> Result<(), ArgumentError> {
        let refuse = |argument: &str, reason| Err(ArgumentError::NotSaved { argument: argument.to_owned(), reason });
        if self.layer != group.id {
            return refuse("saved", "it belongs to another layer");
        }
        let unchanged = |(parameter, seen): (Option<&Tensor>, &Option<Seen>)| match (parameter, seen) {
            (Some(parameter), Some(seen)) => seen.is(parameter) && !seen.is_written(parameter),
            (None, None) => true,
            _ => false,
        };
        let parameters = group.parameters.iter().flat_map(AffineParameters::both);
        if !parameters.zip(self.parameters.iter().flatten()).all(unchanged) {
            return refuse("weight or bias", "they were set since");
        }
        let residuals = inputs.residuals.unwrap_or(&[]);
        let given = [("inputs", inputs.x, &self.inputs), ("residuals", residuals, &self.residuals)];
        for (argument, tensors, all) in given {
            for (rank, (tensor, seen)) in tensors.iter().zip(all).enumerate() {
                if !seen.is(tensor) {
                    return refuse(&format!("{argument}[{rank}]"), "it is another tensor");
                }
                if seen.is_written(tensor) {
                    return refuse(&format!("{argument}[{rank}]"), "it was written since");
                }
            }
        }
        Ok(())
    }
}
