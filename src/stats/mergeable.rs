//! Values per channel that ranks exchange.

use super::{DoublePair, Global, GlobalStatistics, GradientSums, IntegerSums, Moments, ValueRange};

mod sealed {
    pub trait Sealed {}
}

/// Both components of every channel, as they are sent.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub enum Components {
    Floats(Vec<[f64; 2]>),
    Integers(Vec<[i128; 2]>),
}

/// A number of [`Components`].
#[doc(hidden)]
pub trait Component: Copy + std::fmt::Debug + Send + Sync + sealed::Sealed + 'static {
    fn list(pairs: Vec<[Self; 2]>) -> Components;
    /// `None` for components of another kind.
    fn pairs(list: Components) -> Option<Vec<[Self; 2]>>;
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
    /// The numbers as which they are sent.
    #[doc(hidden)]
    type Component: Component;
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
    fn components(&self) -> [Self::Component; 2];
    #[doc(hidden)]
    fn from_components(count: u64, components: [Self::Component; 2]) -> Self;
    /// [`merge`](Self::merge) of many channels in place. All channels of a side have its count.
    #[doc(hidden)]
    fn merge_channels(
        [left_count, right_count]: [u64; 2],
        left: &mut [[Self::Component; 2]],
        right: &[[Self::Component; 2]],
    ) {
        for (left, right) in left.iter_mut().zip(right) {
            let right = Self::from_components(right_count, *right);
            *left = Self::from_components(left_count, *left).merge(right).components();
        }
    }
}

impl Component for f64 {
    fn list(pairs: Vec<[Self; 2]>) -> Components {
        Components::Floats(pairs)
    }

    fn pairs(list: Components) -> Option<Vec<[Self; 2]>> {
        if let Components::Floats(pairs) = list { Some(pairs) } else { None }
    }
}

impl Component for i128 {
    fn list(pairs: Vec<[Self; 2]>) -> Components {
        Components::Integers(pairs)
    }

    fn pairs(list: Components) -> Option<Vec<[Self; 2]>> {
        if let Components::Integers(pairs) = list { Some(pairs) } else { None }
    }
}

impl sealed::Sealed for f64 {}
impl sealed::Sealed for i128 {}

impl sealed::Sealed for Moments {}
impl sealed::Sealed for GradientSums {}
impl sealed::Sealed for DoublePair {}
impl sealed::Sealed for ValueRange {}
impl<const STATISTICS: bool> sealed::Sealed for IntegerSums<STATISTICS> {}

impl Mergeable for Moments {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = true;
    type Component = f64;

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

    fn components(&self) -> [f64; 2] {
        [self.mean, self.m2]
    }

    fn from_components(count: u64, [mean, m2]: [f64; 2]) -> Self {
        Self { count, mean, m2 }
    }

    fn merge_channels(counts: [u64; 2], left: &mut [[f64; 2]], right: &[[f64; 2]]) {
        Self::merge_channels(counts, left, right);
    }
}

impl Mergeable for GradientSums {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = false;
    type Component = f64;

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

impl Mergeable for DoublePair {
    const EMPTY: Self = Self([0.0; 2]);
    const IS_STATISTICS: bool = false;
    type Component = f64;

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

    fn components(&self) -> [f64; 2] {
        self.0
    }

    fn from_components(_: u64, pair: [f64; 2]) -> Self {
        Self(pair)
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
    type Component = f64;

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

    fn components(&self) -> [f64; 2] {
        [self.low.into(), self.high.into()]
    }

    fn from_components(count: u64, [low, high]: [f64; 2]) -> Self {
        Self { count, low: low as f32, high: high as f32 }
    }
}

impl<const STATISTICS: bool> Mergeable for IntegerSums<STATISTICS> {
    const EMPTY: Self = Self::EMPTY;
    const IS_STATISTICS: bool = STATISTICS;
    type Component = i128;

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

    fn components(&self) -> [i128; 2] {
        self.sums
    }

    fn from_components(count: u64, sums: [i128; 2]) -> Self {
        Self { count, sums }
    }
}
