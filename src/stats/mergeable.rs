//! Values per channel that ranks exchange.

use super::{DoublePair, Global, GlobalStatistics, GradientSums, IntegerSums, Moments, ValueRange};

mod sealed {
    pub trait Sealed {}
}

/// Both components of a channel, as they are sent.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Components {
    Floats([f64; 2]),
    Integers([i128; 2]),
}

/// A value with a reduce operation, made of a count and two components: [`Moments`],
/// [`GradientSums`], [`ValueRange`] or [`IntegerSums`].
///
/// Only this crate implements it.
pub trait Mergeable: Copy + std::fmt::Debug + Send + Sync + sealed::Sealed + 'static {
    /// The value of an empty batch: the identity of [`merge`](Self::merge).
    #[doc(hidden)]
    const EMPTY: Self;
    /// Whether they are statistics of x, which update the running ones.
    #[doc(hidden)]
    const IS_STATISTICS: bool;
    /// Whether they are sent as integers.
    #[doc(hidden)]
    const ARE_INTEGERS: bool = false;
    #[doc(hidden)]
    fn as_statistics(_: &mut Global<Self>) -> Option<&mut GlobalStatistics> {
        None
    }
    /// The value, if a batch with `count` values per channel can have it. Otherwise the error.
    #[doc(hidden)]
    fn checked(self, count: u64) -> Result<Self, String>;
    #[doc(hidden)]
    fn merge(self, other: Self) -> Self;
    /// Number of values that it summarizes, the same for every channel of a rank.
    #[doc(hidden)]
    fn count(&self) -> u64;
    #[doc(hidden)]
    fn components(&self) -> Components;
    /// `None` for components of another kind.
    #[doc(hidden)]
    fn from_components(count: u64, components: Components) -> Option<Self>;
}

impl sealed::Sealed for Moments {}
impl sealed::Sealed for GradientSums {}
impl sealed::Sealed for DoublePair {}
impl sealed::Sealed for ValueRange {}
impl<const STATISTICS: bool> sealed::Sealed for IntegerSums<STATISTICS> {}

impl Mergeable for Moments {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = true;

    fn as_statistics(global: &mut Global<Self>) -> Option<&mut GlobalStatistics> {
        Some(global)
    }

    fn checked(self, count: u64) -> Result<Self, String> {
        check_count(self.count, count)?;
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

    fn components(&self) -> Components {
        Components::Floats([self.mean, self.m2])
    }

    fn from_components(count: u64, components: Components) -> Option<Self> {
        let Components::Floats([mean, m2]) = components else { return None };
        Some(Self { count, mean, m2 })
    }
}

impl Mergeable for GradientSums {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = false;

    fn checked(self, _: u64) -> Result<Self, String> {
        Ok(self)
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        0
    }

    fn components(&self) -> Components {
        Components::Floats([self.sum_dy, self.sum_dy_xmu])
    }

    fn from_components(_: u64, components: Components) -> Option<Self> {
        let Components::Floats([sum_dy, sum_dy_xmu]) = components else { return None };
        Some(Self { sum_dy, sum_dy_xmu })
    }
}

impl Mergeable for DoublePair {
    const EMPTY: Self = Self([0.0; 2]);
    const IS_STATISTICS: bool = false;

    fn checked(self, _: u64) -> Result<Self, String> {
        Ok(self)
    }

    fn merge(self, other: Self) -> Self {
        let Self([a, b]) = self;
        Self([a + other.0[0], b + other.0[1]])
    }

    fn count(&self) -> u64 {
        0
    }

    fn components(&self) -> Components {
        Components::Floats(self.0)
    }

    fn from_components(_: u64, components: Components) -> Option<Self> {
        let Components::Floats(pair) = components else { return None };
        Some(Self(pair))
    }
}

/// Refuses a channel of another number of values than the first.
fn check_count(found: u64, expected: u64) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("it has {found} value(s), expected {expected}, as the first channel"))
}

impl Mergeable for ValueRange {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = false;

    fn checked(self, count: u64) -> Result<Self, String> {
        check_count(self.count, count)?;
        Ok(self)
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn components(&self) -> Components {
        Components::Floats([self.low.into(), self.high.into()])
    }

    fn from_components(count: u64, components: Components) -> Option<Self> {
        let Components::Floats([low, high]) = components else { return None };
        Some(Self { count, low: low as f32, high: high as f32 })
    }
}

impl<const STATISTICS: bool> Mergeable for IntegerSums<STATISTICS> {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = STATISTICS;
    const ARE_INTEGERS: bool = true;

    fn checked(self, count: u64) -> Result<Self, String> {
        check_count(self.count, count)?;
        Ok(self)
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn components(&self) -> Components {
        Components::Integers(self.sums)
    }

    fn from_components(count: u64, components: Components) -> Option<Self> {
        let Components::Integers(sums) = components else { return None };
        Some(Self { count, sums })
    }
}
