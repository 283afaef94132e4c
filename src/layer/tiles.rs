//! Statistics from sums that another kernel has written.

use crate::error::{ArgumentError, Error};
use crate::stats::{Local, LocalStatistics, Moments};
use crate::tensor::Tensor;

/// Values per channel of a tile.
const VALUES_PER_CHANNEL: usize = 4;

impl LocalStatistics {
    /// Statistics of one rank from sums that another kernel, such as a convolution, has written on
    /// a device. `tiles` is (T, C, 4) in f32, with four numbers for every tile and channel.
    /// `counts` is the number of values per channel of every tile.
    ///
    /// | | |
    /// |---|---|
    /// | 0 | a pivot p near the values: the first of them, or 0 if the mean is not far from 0 |
    /// | 1 | Σ(x − p) |
    /// | 2 | Σ(x − p)² |
    /// | 3 | 0 if all values are finite. Any other number makes the channel NaN. |
    ///
    /// Tiles merge in f64, in their order. Tiles without values are skipped. The merge cannot
    /// restore the accuracy that f32 sums lose if p is many deviations from the mean, or over more
    /// than some thousand values.
    ///
    /// # Errors
    /// [`ArgumentError::Dims`] for other dimensions, [`ArgumentError::Length`] for another number
    /// of counts, [`ArgumentError::DType`]; [`GpuError`](crate::error::GpuError) when the device
    /// does not deliver.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn from_tiles(tiles: &Tensor, counts: &[u64]) -> Result<Self, Error> {
        let &[tile_count, channels, VALUES_PER_CHANNEL] = tiles.dims() else {
            let argument = "tiles";
            let found = tiles.dims().to_vec();
            let expected =
                vec![counts.len(), found.get(1).copied().unwrap_or(0), VALUES_PER_CHANNEL];
            return Err(ArgumentError::Dims { argument, rank: None, found, expected }.into());
        };
        if counts.len() != tile_count {
            let found = counts.len() as u64;
            let expected = tile_count as u64;
            return Err(ArgumentError::Length { argument: "counts", found, expected }.into());
        }
        let sums = tiles.to_vec_of::<f32>().await?;
        let mut rank = vec![Moments::EMPTY; channels];
        for (tile, &count) in sums.chunks_exact((VALUES_PER_CHANNEL * channels).max(1)).zip(counts)
        {
            for (moments, sums) in rank.iter_mut().zip(tile.chunks_exact(VALUES_PER_CHANNEL)) {
                *moments = moments.merge(moments_of(sums, count));
            }
        }
        Ok(Local::of_rank(rank))
    }
}

fn moments_of(sums: &[f32], count: u64) -> Moments {
    match sums {
        &[pivot, sum, squares, 0.0] => {
            Moments::from_sums(count, pivot.into(), sum.into(), squares.into())
        }
        _ if count == 0 => Moments::EMPTY,
        _ => Moments::not_finite(count),
    }
}
