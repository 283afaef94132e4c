//! What happens between the two halves of a pass: check, merge along the tree, finalize. No GPU type comes here.

use crate::error::{BatchError, Error};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, GradientSums, tree};

/// Merges the local statistics of all ranks, `local[rank][channel]`, channel by channel along the canonical tree.
pub(crate) fn merge_stats(local: &[Vec<ChannelStats>], eps: f64) -> GlobalStats {
    GlobalStats::finalize(merge_channels(local, |a, b| a.merge(*b)), eps)
}

/// Adds up the local gradient sums of all ranks, `local[rank][channel]`, channel by channel along the canonical tree.
pub(crate) fn merge_gradient_sums(local: &[Vec<GradientSums>]) -> Vec<GradientSums> {
    merge_channels(local, |a, b| a.merge(*b))
}

fn merge_channels<T: Copy>(local: &[Vec<T>], merge: impl Fn(&T, &T) -> T) -> Vec<T> {
    let channels = local.first().map_or(0, Vec::len);
    let of_channel = |channel: usize| {
        let ranks: Vec<T> = local.iter().map(|rank| rank[channel]).collect();
        tree::merge_all(&ranks, &merge)
    };
    (0..channels).filter_map(of_channel).collect()
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
