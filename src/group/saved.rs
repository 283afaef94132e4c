//! What forward leaves for backward: statistics and the identity of what it used, no activation.

use super::DeviceGroup;
use crate::config::Statistics;
use crate::error::ArgumentError;
use crate::stats::Normalization;
use crate::tensor::{Tensor, TensorKey, moment};

/// The saved context of one forward call, for [`DeviceGroup::backward`] on the same group.
///
/// It keeps the statistics that normalized, and recognizes the inputs: they are given again to backward, and y is not
/// needed. Each call has its own, so that a layer may run several times before backward.
#[derive(Clone, Debug)]
pub struct SavedForward {
    layer: u64,
    parameters_version: u64,
    inputs: Vec<TensorKey>,
    /// When the call took place.
    moment: u64,
    pub(super) statistics: Statistics,
    /// One for all ranks, or one for each rank.
    pub(super) normalizations: Vec<Normalization>,
}

impl SavedForward {
    pub(super) fn new(
        group: &DeviceGroup,
        inputs: &[Tensor],
        statistics: Statistics,
        normalizations: Vec<Normalization>,
    ) -> Self {
        let inputs = inputs.iter().map(Tensor::key).collect();
        let (layer, parameters_version) = (group.id, group.parameters_version);
        Self { layer, parameters_version, inputs, moment: moment(), statistics, normalizations }
    }

    /// What normalized on a rank.
    pub(super) fn normalization(&self, rank: usize) -> &Normalization {
        &self.normalizations[rank % self.normalizations.len()]
    }

    /// Refuses another layer, other inputs, or parameters set since.
    pub(super) fn check(&self, group: &DeviceGroup, inputs: &[Tensor]) -> Result<(), ArgumentError> {
        let refuse = |argument: &str, reason| Err(ArgumentError::NotSaved { argument: argument.to_owned(), reason });
        if self.layer != group.id {
            return refuse("saved", "it belongs to another layer");
        }
        if self.parameters_version != group.parameters_version {
            return refuse("weight or bias", "they were set since");
        }
        for (rank, (input, key)) in inputs.iter().zip(&self.inputs).enumerate() {
            if input.key() != *key {
                return refuse(&format!("inputs[{rank}]"), "it is another tensor");
            }
            if input.is_written_since(self.moment) {
                return refuse(&format!("inputs[{rank}]"), "it was written since");
            }
        }
        Ok(())
    }
}
