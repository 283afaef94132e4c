//! Values of one caller's ranks, before the exchange.

use super::{GradientSums, Mergeable, Moments};
use crate::error::{ArgumentError, Error, position};

/// Values of every channel of each of a caller's ranks: [`LocalStatistics`] or
/// [`LocalGradientSums`].
///
/// It is a plain value that can be kept, merged, and sent with serde.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Local<T> {
    channels: usize,
    ranks: Vec<Vec<T>>,
}

/// Moments of the values of each rank's channels, of one batch or of several merged.
pub type LocalStatistics = Local<Moments>;

/// Gradient sums of each rank's channels, of one batch or of several merged.
pub type LocalGradientSums = Local<GradientSums>;

impl<T: Mergeable> Local<T> {
    /// Statistics or sums of no value, for any number of ranks. Merging begins with it, and a rank
    /// without a batch synchronizes it.
    pub fn empty(channels: usize) -> Self {
        Self { channels, ranks: Vec::new() }
    }

    /// Values of one rank for each channel, such as [`Moments::from_sums`] of another kernel's
    /// sums. All channels of a rank have the same count.
    pub fn of_rank(channels: impl IntoIterator<Item = T>) -> Self {
        let rank: Vec<T> = channels.into_iter().collect();
        Self { channels: rank.len(), ranks: vec![rank] }
    }

    pub(crate) fn new(channels: usize, ranks: Vec<Vec<T>>) -> Self {
        Self { channels, ranks }
    }

    /// Values of each rank, `ranks()[rank][channel]`. [`empty`](Self::empty) has no rank.
    pub fn ranks(&self) -> &[Vec<T>] {
        &self.ranks
    }

    /// Appends further ranks of the same caller.
    ///
    /// # Errors
    /// [`ArgumentError::Length`] for other channels.
    pub fn append(&mut self, other: Self) -> Result<(), Error> {
        self.check_channels("other", &other)?;
        self.ranks.extend(other.ranks);
        Ok(())
    }

    /// Merges values of the same ranks from another batch, rank by rank. That equals one batch of
    /// both, up to rounding.
    ///
    /// # Errors
    /// [`ArgumentError::Length`] for other channels, [`ArgumentError::RankCount`] for another
    /// number of ranks. Nothing is merged then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        self.check_channels("other", other)?;
        match (other.ranks.len(), self.ranks.len()) {
            (0, _) => {}
            (_, 0) => self.ranks.clone_from(&other.ranks),
            (found, expected) if found != expected => {
                return Err(ArgumentError::RankCount { argument: "other", found, expected }.into());
            }
            _ => {
                for (own, other) in
                    self.ranks.iter_mut().flatten().zip(other.ranks.iter().flatten())
                {
                    *own = own.merge(*other);
                }
            }
        }
        Ok(())
    }

    /// Values of each of `count` ranks. [`empty`](Self::empty) gives `count` ranks without values.
    ///
    /// # Errors
    /// [`ArgumentError`] for other channels or another number of ranks.
    pub(crate) fn into_ranks(
        self,
        channels: usize,
        count: usize,
    ) -> Result<Vec<Vec<T>>, ArgumentError> {
        Self::empty(channels).check_channels("local", &self)?;
        let mut ranks = self.ranks;
        if ranks.is_empty() {
            ranks = vec![vec![T::EMPTY; channels]; count];
        }
        if ranks.len() != count {
            return Err(ArgumentError::RankCount {
                argument: "local",
                found: ranks.len(),
                expected: count,
            });
        }
        for (rank, channels) in ranks.iter_mut().enumerate() {
            check_statistics("local", position(rank, count), channels)?;
        }
        Ok(ranks)
    }

    fn check_channels(&self, argument: &'static str, other: &Self) -> Result<(), ArgumentError> {
        let expected = self.channels as u64;
        // A deserialized value may be damaged.
        let all_ranks = other.ranks.iter().chain(&self.ranks);
        let spoilt = all_ranks.map(|rank| rank.len() as u64).find(|channels| *channels != expected);
        let found = spoilt.unwrap_or(other.channels as u64);
        if found == expected {
            Ok(())
        } else {
            Err(ArgumentError::Length { argument, found, expected })
        }
    }
}

/// Refuses channels that cannot come from one batch of a rank or of all ranks. Channels that are
/// not finite become NaN.
pub(crate) fn check_statistics<T: Mergeable>(
    argument: &'static str,
    rank: Option<usize>,
    channels: &mut [T],
) -> Result<(), ArgumentError> {
    let count = channels.first().map_or(0, Mergeable::count);
    for (channel, of) in channels.iter_mut().enumerate() {
        let refuse = |reason| ArgumentError::Statistics { argument, rank, channel, reason };
        *of = of.checked(count).map_err(refuse)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_begins_with_no_value_and_counts_every_value_once() {
        let [a, b] =
            [[1.0, 2.0], [6.0, 8.0]].map(|values| Local::of_rank([Moments::from_values(values)]));
        let mut merged = LocalStatistics::empty(1);
        for batch in [&a, &LocalStatistics::empty(1), &b] {
            merged.merge(batch).unwrap();
        }
        assert_eq!(merged, Local::of_rank([Moments::from_values([1.0, 2.0, 6.0, 8.0])]));
    }
}
