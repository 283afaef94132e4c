//! The shape of an activation: (N, C, spatial…), checked once, in plain numbers.
//!
//! Owns the reading of `dims` as batch, channels and positions. It knows no buffer and no device.
//! Plans are made from it.

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
        Ok(Self { dims: dims.to_vec(), layout, channels, spatial: spatial.to_vec(), spatial_len })
    }

    /// Distances between neighbours in memory.
    pub fn strides(&self) -> Strides {
        let (channels, inner) = (self.channels, self.spatial_len);
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

    /// N·L, the values that one channel has on this rank.
    pub fn values_per_channel(&self) -> u64 {
        self.batch() as u64 * self.spatial_len as u64
    }

    /// N·C·L.
    pub fn elements(&self) -> u64 {
        self.values_per_channel() * self.channels() as u64
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
