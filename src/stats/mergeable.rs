//! What is exchanged per channel.

use super::{Global, GlobalStatistics, GradientSums, Moments};

mod sealed {
    pub trait Sealed {}
}

/// [`Moments`] or [`GradientSums`]: something with a reduce operation, made of a count and two
/// components.
///
/// Implemented by this crate alone.
pub trait Mergeable: Copy + std::fmt::Debug + Send + Sync + sealed::Sealed + 'static {
    /// Of no value: the identity of [`merge`](Self::merge).
    #[doc(hidden)]
    const EMPTY: Self;
    /// Whether they are statistics of x, which running ones follow.
    #[doc(hidden)]
    const IS_STATISTICS: bool;
    #[doc(hidden)]
    fn as_statistics(global: &Global<Self>) -> Option<&GlobalStatistics>;
    /// The same where it is one that a channel can have beside one of so many values; else what is
    /// wrong with it.
    #[doc(hidden)]
    fn checked(self, count: u64) -> Result<Self, String>;
    #[doc(hidden)]
    fn merge(self, other: Self) -> Self;
    /// Values that it was taken of, the same for every channel of a rank.
    #[doc(hidden)]
    fn count(&self) -> u64;
    #[doc(hidden)]
    fn components(&self) -> [f64; 2];
    #[doc(hidden)]
    fn from_components(count: u64, components: [f64; 2]) -> Self;
}

impl sealed::Sealed for Moments {}
impl sealed::Sealed for GradientSums {}

impl Mergeable for Moments {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = true;

    fn as_statistics(global: &Global<Self>) -> Option<&GlobalStatistics> {
        Some(global)
    }

    fn checked(self, count: u64) -> Result<Self, String> {
        if self.count != count {
            return Err(format!(
                "it has {} value(s), expected {count}, as the first channel",
                self.count
            ));
        }
        if self.m2 < 0.0 {
            return Err(format!("its m2 is {}, expected at least 0", self.m2));
        }
        let is_finite = count == 0 || (self.mean.is_finite() && self.m2.is_finite());
        Ok(if is_finite { self } else { Self::not_finite(count) })
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn components(&self) -> [f64; 2] {
        [self.mean, self.m2]
    }

    fn from_components(count: u64, [mean, m2]: [f64; 2]) -> Self {
        Self { count, mean, m2 }
    }
}

impl Mergeable for GradientSums {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = false;

    fn as_statistics(_: &Global<Self>) -> Option<&GlobalStatistics> {
        None
    }

    fn checked(self, _: u64) -> Result<Self, String> {
        Ok(self)
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        0
    }

    fn components(&self) -> [f64; 2] {
        [self.sum_dy, self.sum_dy_xmu]
    }

    fn from_components(_: u64, [sum_dy, sum_dy_xmu]: [f64; 2]) -> Self {
        Self { sum_dy, sum_dy_xmu }
    }
}
