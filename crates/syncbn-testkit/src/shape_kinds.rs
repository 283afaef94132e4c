//! The kinds of shape that storage can go wrong at, drawn at random with 2 to 5 dimensions.

use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Odd sizes throughout: a word of 16-bit elements holds the end of one channel and the start
    /// of the next, and half of the last word is not the tensor's.
    Odd,
    /// Anything.
    Any,
    /// L = 1.
    OnePosition,
    /// C = 1.
    OneChannel,
    /// More values than a tile has in any layout.
    Tiles,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Odd, Self::Any, Self::OnePosition, Self::OneChannel, Self::Tiles];

    /// Dimensions of three ranks, channels first: they differ in samples and in spatial sizes; the
    /// last may be empty.
    pub fn dims(self, dimensions: usize, seed: u64) -> Vec<Vec<usize>> {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut odd = |end: usize| 1 + 2 * random.below(end / 2);
        let first_samples = 3 + odd(8);
        let channels = odd(12);
        let channels = match self {
            Self::Odd | Self::OnePosition => channels,
            Self::Any => channels + first_samples % 2,
            Self::OneChannel => 1,
            Self::Tiles => 3,
        };
        let mut ranks = Vec::new();
        for rank in 0..3 {
            let spatial: Vec<usize> = (2..dimensions)
                .map(|_| match self {
                    Self::Odd | Self::OneChannel | Self::Tiles => 1 + 2 * (odd(8) / 2),
                    Self::Any => 1 + odd(8) / dimensions,
                    Self::OnePosition => 1,
                })
                .collect();
            let samples = match (self, rank) {
                // More than 256·16 values.
                (Self::Tiles, 0) => 1 + 2 * (4097 / (2 * spatial.iter().product::<usize>()) + 1),
                (Self::Odd, 0) => odd(8) + 2,
                (_, 0) => first_samples,
                (Self::Odd, _) => odd(4),
                (_, 1) => odd(4) + 1,
                _ => odd(6) / 2,
            };
            ranks.push([vec![samples, channels], spatial].concat());
        }
        ranks
    }
}
