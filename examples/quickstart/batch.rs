//! The photos as one batch of numbers, and how it is cut into shards.

use std::ops::Range;

use crate::photos::Photo;

/// R, G and B.
pub const CHANNELS: usize = 3;

/// The pixel values of all photos, 0 to 255, as (N, 3, H, W).
#[derive(Debug)]
pub struct Batch {
    values: Vec<f32>,
    photos: usize,
    height: usize,
    width: usize,
}

impl Batch {
    /// All photos have the size of the first.
    pub fn new(photos: &[Photo]) -> Self {
        let (width, height) = photos.first().map_or((0, 0), |photo| photo.image.dimensions());
        let mut values = Vec::new();
        for photo in photos {
            for channel in 0..CHANNELS {
                values.extend(photo.image.pixels().map(|pixel| f32::from(pixel.0[channel])));
            }
        }
        Self { values, photos: photos.len(), height: height as usize, width: width as usize }
    }

    /// N.
    pub fn photos(&self) -> usize {
        self.photos
    }

    /// (N, 3, H, W) of a shard of `photos` photos.
    pub fn dims(&self, photos: usize) -> [usize; 4] {
        [photos, CHANNELS, self.height, self.width]
    }

    /// H·W, the values of one channel of one photo.
    pub fn plane(&self) -> usize {
        self.height * self.width
    }

    /// The values of the photos in `shard`.
    pub fn values(&self, shard: &Range<usize>) -> &[f32] {
        self.part(&self.values, shard)
    }

    /// What belongs to the photos in `shard` of numbers that lie as the values of this batch do.
    pub fn part<'a>(&self, all: &'a [f32], shard: &Range<usize>) -> &'a [f32] {
        let photo = CHANNELS * self.plane();
        &all[shard.start * photo..shard.end * photo]
    }

    /// Size of the values of all photos.
    pub fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}

/// The photos of each shard: contiguous, in order, sizes differing by at most one with the larger
/// first.
///
/// With fewer photos than shards the last shards are empty; their devices take part all the same.
pub fn cut(photos: usize, shards: usize) -> Vec<Range<usize>> {
    let mut start = 0;
    (0..shards)
        .map(|rank| {
            let len = photos / shards + usize::from(rank < photos % shards);
            start += len;
            start - len..start
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    fn lens(photos: usize, shards: usize) -> Vec<usize> {
        cut(photos, shards).into_iter().map(|shard| shard.len()).collect()
    }

    #[test]
    fn the_first_shards_are_larger() {
        assert_eq!(lens(4, 3), [2, 1, 1]);
        assert_eq!(lens(4, 4), [1, 1, 1, 1]);
        assert_eq!(lens(11, 4), [3, 3, 3, 2]);
    }

    #[test]
    fn with_more_shards_than_photos_the_last_are_empty() {
        assert_eq!(lens(4, 5), [1, 1, 1, 1, 0]);
        assert_eq!(lens(0, 2), [0, 0]);
    }

    #[test]
    fn every_photo_is_in_exactly_one_shard_in_order() {
        for photos in 0..20 {
            for shards in 1..9 {
                let all: Vec<usize> = cut(photos, shards).into_iter().flatten().collect();
                assert_eq!(all, (0..photos).collect::<Vec<_>>(), "{photos} over {shards}");
            }
        }
    }

    #[test]
    fn a_batch_holds_one_plane_per_channel_photo_after_photo() {
        let photo = |base: u8| Photo {
            name: String::new(),
            image: RgbImage::from_fn(2, 1, |x, _| {
                Rgb([base + x as u8, base + 10 + x as u8, base + 20 + x as u8])
            }),
        };
        let batch = Batch::new(&[photo(0), photo(100)]);
        assert_eq!(batch.values(&(0..1)), [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
        assert_eq!(batch.values(&(1..2)), [100.0, 101.0, 110.0, 111.0, 120.0, 121.0]);
        assert!(batch.values(&(2..2)).is_empty());
        assert_eq!(batch.dims(2), [2, 3, 1, 2]);
    }
}
