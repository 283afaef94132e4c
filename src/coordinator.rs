//! What happens between the two halves of a pass: check, merge along the tree, finalize. No GPU type comes here.

use crate::error::{BatchError, Error};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, tree};

/// Merges the local statistics of all ranks, `local[rank][channel]`, channel by channel along the canonical tree.
pub(crate) fn merge_stats(local: &[Vec<ChannelStats>], eps: f64) -> GlobalStats {
    let channels = local.first().map_or(0, Vec::len);
    let merged = (0..channels).map(|channel| {
        let ranks: Vec<ChannelStats> = local.iter().map(|rank| rank[channel]).collect();
        tree::merge_all(&ranks, |a, b| a.merge(*b)).unwrap_or(ChannelStats::EMPTY)
    });
    GlobalStats::finalize(merged.collect(), eps)
}

/// Refuses a batch with one value per channel in the whole group, which has no variance to train with.
pub(crate) fn check_batch(shapes: &[Shape]) -> Result<(), Error> {
    let values: u64 = shapes.iter().map(Shape::values_per_channel).fold(0, u64::saturating_add);
    if values == 1
        && let Some((rank, shape)) = shapes.iter().enumerate().find(|(_, shape)| shape.values_per_channel() == 1)
    {
        return Err(BatchError::OneValue { rank, dims: shape.dims().to_vec() }.into());
    }
    Ok(())
}
