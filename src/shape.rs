//! The shape of an activation: (N, C, spatial…), checked once, in plain numbers.
//!
//! Owns the reading of `dims` as batch, channels and positions. It knows no buffer and no device.
//! Plans are made from it.

use std::sync::Arc;

use crate::error::ShapeError;

/// Where the channel axis lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// (N, C, spatial…).
    #[default]
    ChannelsFirst,
    /// (N, spatial…, C).
    ChannelsLast,
}

/// Distances in elements between neighbours along the three axes of batch normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strides {
    /// From one sample to the next.
    pub sample: usize,
    /// From one channel to the next.
    pub channel: usize,
    /// From one position to the next.
    pub inner: usize,
}

/// Shape of an activation `x`: (N, C, spatial…) or, channels last, (N, spatial…, C); rank 2 or
/// more.
///
/// L is the product of the spatial sizes, 1 without any. N or L may be 0 (a rank without samples).
/// C is at least 1.
///
/// ```
/// use syncbn::{Layout, low_level::Shape};
/// let shape = Shape::new(&[8, 3, 32, 32], Layout::ChannelsFirst)?;
/// assert_eq!((shape.batch(), shape.channels(), shape.spatial_len()), (8, 3, 1024));
/// assert_eq!(shape.values_per_channel(), 8 * 1024);
/// # Ok::<(), syncbn::error::ShapeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<usize>,
    layout: Layout,
    channels: usize,
    spatial: Vec<usize>,
    spatial_len: usize,
    padding: Option<Arc<Padding>>,
}

/// Which positions of a padded batch count: the first ones of each sample.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Positions that count, of L, by sample.
    positions: Vec<usize>,
    /// Their sum: values per channel.
    values: u64,
}

impl Padding {
    /// Positions that count, by sample. They come first in their sample.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Values per channel that count.
    pub fn values(&self) -> u64 {
        self.values
    }
}

impl Shape {
    /// Reads `dims` as (N, C, spatial…) or (N, spatial…, C).
    ///
    /// # Errors
    /// [`ShapeError`] when there are fewer than two dimensions, no channel, or more elements than
    /// `u64` counts.
    pub fn new(dims: &[usize], layout: Layout) -> Result<Self, ShapeError> {
        let (channels, spatial) = match (dims, layout) {
            (&[_, channels, ref spatial @ ..], Layout::ChannelsFirst) => (channels, spatial),
            (&[_, ref spatial @ .., channels], Layout::ChannelsLast) => (channels, spatial),
            _ => return Err(ShapeError::Dimensions { dims: dims.to_vec() }),
        };
        if channels == 0 {
            let axis = match layout {
                Layout::ChannelsFirst => 1,
                Layout::ChannelsLast => dims.len() - 1,
            };
            return Err(ShapeError::NoChannels { dims: dims.to_vec(), axis });
        }
        element_count(dims)?;
        // Smaller than the element count unless N is 0. Therefore the product is checked by itself.
        let spatial_len = spatial
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .ok_or_else(|| ShapeError::TooLarge { dims: dims.to_vec() })?;
        // With one channel or one position both layouts are the same memory. One answer for both
        // keeps strides unambiguous.
        let layout = if channels == 1 || spatial_len == 1 { Layout::ChannelsFirst } else { layout };
        let spatial = spatial.to_vec();
        Ok(Self { dims: dims.to_vec(), layout, channels, spatial, spatial_len, padding: None })
    }

    /// The same shape of a padded batch: of sample n only the first `lengths[n]` positions of the
    /// first spatial axis count. A batch without padding is as if it had no lengths.
    ///
    /// The caller has checked that there is such an axis, a length for every sample, and none
    /// beyond the axis.
    pub fn with_lengths(self, lengths: &[u32]) -> Self {
        let most = self.time();
        if lengths.iter().all(|&length| length as usize >= most) {
            return self;
        }
        let per_step = self.spatial_len / most.max(1);
        let positions: Vec<usize> =
            lengths.iter().map(|&length| (length as usize).min(most) * per_step).collect();
        let values = positions.iter().map(|&positions| positions as u64).sum();
        self.with_padding(Some(Arc::new(Padding { positions, values })))
    }

    /// The same shape with the padding of another of its size.
    pub fn with_padding(self, padding: Option<Arc<Padding>>) -> Self {
        Self { padding, ..self }
    }

    /// Which positions count, where not all do.
    pub fn padding(&self) -> Option<&Arc<Padding>> {
        self.padding.as_ref()
    }

    /// T, the size of the first spatial axis; 1 where there is none.
    pub fn time(&self) -> usize {
        self.spatial.first().copied().unwrap_or(1)
    }

    /// Distances between neighbours in memory.
    pub fn strides(&self) -> Strides {
        let channels = self.channels;
        let inner = self.spatial_len;
        match self.layout {
            Layout::ChannelsFirst => Strides { sample: channels * inner, channel: inner, inner: 1 },
            Layout::ChannelsLast => {
                Strides { sample: channels * inner, channel: 1, inner: channels }
            }
        }
    }

    /// Whether another shape has the same samples, channels and spatial sizes, in whichever layout.
    pub fn is_like(&self, other: &Self) -> bool {
        self.batch() == other.batch()
            && self.channels == other.channels
            && self.spatial == other.spatial
    }

    /// The dimensions as given.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// N, the samples of this rank.
    pub fn batch(&self) -> usize {
        self.dims[0]
    }

    /// C.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// L, the product of the spatial sizes (1 for rank 2).
    pub fn spatial_len(&self) -> usize {
        self.spatial_len
    }

    /// The values that count of one channel on this rank: N·L, less what is padded.
    pub fn values_per_channel(&self) -> u64 {
        match &self.padding {
            Some(padding) => padding.values,
            None => self.batch() as u64 * self.spatial_len as u64,
        }
    }

    /// N·C·L, padded positions included.
    pub fn elements(&self) -> u64 {
        self.batch() as u64 * self.spatial_len as u64 * self.channels() as u64
    }
}

/// The number of elements of a tensor with these sizes.
///
/// # Errors
/// [`ShapeError::TooLarge`] when it does not fit `u64`, also if a size of 0 would hide the overflow
/// of the others.
pub(crate) fn element_count(dims: &[usize]) -> Result<u64, ShapeError> {
    let too_large = || ShapeError::TooLarge { dims: dims.to_vec() };
    dims.iter()
        .map(|&size| size.max(1) as u64)
        .try_fold(1u64, |product, size| product.checked_mul(size))
        .ok_or_else(too_large)?;
    Ok(dims.iter().map(|&size| size as u64).product())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_two_dimensions_are_refused_with_the_dimensions_found() {
        assert_eq!(
            Shape::new(&[7], Layout::ChannelsFirst),
            Err(ShapeError::Dimensions { dims: vec![7] })
        );
        assert_eq!(
            Shape::new(&[], Layout::ChannelsFirst),
            Err(ShapeError::Dimensions { dims: vec![] })
        );
    }

    #[test]
    fn no_channel_is_refused_but_no_sample_and_no_position_are_not() {
        assert!(matches!(
            Shape::new(&[2, 0, 3], Layout::ChannelsFirst),
            Err(ShapeError::NoChannels { .. })
        ));
        assert_eq!(Shape::new(&[0, 4, 3], Layout::ChannelsFirst).map(|s| s.elements()), Ok(0));
        assert_eq!(
            Shape::new(&[2, 4, 0], Layout::ChannelsFirst).map(|s| s.values_per_channel()),
            Ok(0)
        );
    }

    #[test]
    fn channels_last_has_the_channel_axis_at_the_end() {
        let shape = Shape::new(&[2, 5, 7, 3], Layout::ChannelsLast).expect("a valid shape");
        assert_eq!((shape.batch(), shape.channels(), shape.spatial_len()), (2, 3, 35));
        assert_eq!(shape.strides(), Strides { sample: 105, channel: 1, inner: 3 });
        let matrix = Shape::new(&[2, 5], Layout::ChannelsLast).expect("a valid shape");
        assert_eq!(matrix, Shape::new(&[2, 5], Layout::ChannelsFirst).expect("a valid shape"));
    }

    #[test]
    fn a_product_beyond_u64_is_refused_even_with_an_empty_batch() {
        let huge = usize::MAX / 2;
        assert!(matches!(
            Shape::new(&[4, huge, 2], Layout::ChannelsFirst),
            Err(ShapeError::TooLarge { .. })
        ));
        assert!(matches!(
            Shape::new(&[0, 2, huge, 4], Layout::ChannelsFirst),
            Err(ShapeError::TooLarge { .. })
        ));
    }
}
