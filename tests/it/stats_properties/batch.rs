//! Random batches whose exact statistics are known, and bounds on what rounding may do to them.
//!
//! A batch is whole numbers times a power of two: with S = Σk and Q = Σk² in `i128`, mean = S/n and
//! m2 = (n·Q − S²)/n.

use proptest::collection::vec;
use proptest::prelude::*;

use syncbn::low_level::tree::merge_all;
use syncbn::stats::Moments;

/// Unit roundoff of f64.
pub const U: f64 = f64::EPSILON / 2.0;

/// Values k·2^exponent, dealt to ranks at `cuts`; two equal cuts make an empty rank.
#[derive(Clone, Debug)]
pub struct Batch {
    pub k: Vec<i64>,
    pub exponent: i32,
    pub cuts: Vec<usize>,
}

impl Batch {
    pub fn values(&self) -> Vec<f64> {
        self.k.iter().map(|&k| k as f64 * 2f64.powi(self.exponent)).collect()
    }

    pub fn ranks(&self) -> Vec<Vec<f64>> {
        let values = self.values();
        let mut ends: Vec<usize> =
            self.cuts.iter().map(|&cut| cut.min(values.len())).chain([values.len()]).collect();
        ends.sort_unstable();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends).map(|(start, &end)| values[start..end].to_vec()).collect()
    }

    pub fn local(&self) -> Vec<Moments> {
        self.ranks().into_iter().map(Moments::from_values).collect()
    }

    /// Exact but for the rounding of two conversions and a quotient.
    pub fn exact(&self) -> Moments {
        let n = self.k.len() as i128;
        if n == 0 {
            return Moments::EMPTY;
        }
        let sum: i128 = self.k.iter().map(|&k| i128::from(k)).sum();
        let squares: i128 = self.k.iter().map(|&k| i128::from(k) * i128::from(k)).sum();
        let unit = 2f64.powi(self.exponent);
        let m2 = (n * squares - sum * sum) as f64 / n as f64 * unit * unit;
        Moments { count: n as u64, mean: sum as f64 / n as f64 * unit, m2 }
    }

    /// Bounds on the error of (mean, m2) when `ranks` local statistics merge in a tree.
    ///
    /// n values, X the largest magnitude, D the largest difference of two values, h the height of
    /// the tree, u the unit roundoff; first order, doubled for the rest.
    /// * Mean of a rank: d = x − pivot costs u·D each, their sum n·u·D, sum/n a u·D, pivot + that
    ///   u·X. A merge takes a weighted mean of two, which keeps their error, and adds 4u·D (δ,
    ///   share, product) + u·X (sum). e = u·((n + 2 + 4h)·D + (1 + h)·X), and u·X once more for the
    ///   exact value's own rounding.
    /// * m2 of a rank of n_r values: Σd² costs (n_r + 3)·u·n_r·D², sum²/n_r (2n_r + 3)·u·n_r·D²;
    ///   together below (3n + 6)·u·n·D² over all ranks. A merge adds δ²·nₐnᵦ/n with δ wrong by
    ///   2e + u·D and nₐnᵦ/n ≤ n/4, four roundings of it and two of sums up to n·D². One level of
    ///   the tree therefore adds n/4·(2D·(2e + uD) + 4u·D²) + 2u·n·D².
    pub fn bounds(&self) -> (f64, f64) {
        let values = self.values();
        let (min, max) =
            values.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        if values.is_empty() {
            return (0.0, 0.0);
        }
        let n = values.len() as f64;
        let d = max - min;
        let x = max.abs().max(min.abs());
        let h = f64::from((self.cuts.len() as u32 + 1).next_power_of_two().ilog2());
        let e = U * ((n + 2.0 + 4.0 * h) * d + (2.0 + h) * x);
        let level = n / 4.0 * (2.0 * d * (2.0 * e + U * d) + 4.0 * U * d * d) + 2.0 * U * n * d * d;
        (2.0 * e, 2.0 * ((3.0 * n + 6.0) * U * n * d * d + h * level))
    }
}

/// Batches about an offset of up to 2³⁶ deviations, on up to twelve ranks, some of them empty.
pub fn batches() -> impl Strategy<Value = Batch> {
    let offset = prop_oneof![Just(0i64), Just(1 << 20), Just(-(1 << 30)), Just(1 << 40)];
    let spread = prop_oneof![Just(0i64), Just(16), Just(1 << 12), Just(1 << 30)];
    let k = (offset, spread).prop_flat_map(|(o, s)| vec(o - s..=o + s, 0..300));
    (k, -60..30i32, vec(0usize..300, 0..12)).prop_map(|(k, exponent, cuts)| Batch {
        k,
        exponent,
        cuts,
    })
}

pub fn same_bits(a: &Moments, b: &Moments) -> bool {
    (a.count, a.mean.to_bits(), a.m2.to_bits()) == (b.count, b.mean.to_bits(), b.m2.to_bits())
}

pub fn merge(a: &Moments, b: &Moments) -> Moments {
    a.merge(*b)
}

/// A formula as the tree takes it.
pub fn in_place<T>(merge: impl Fn(&T, &T) -> T) -> impl Fn(&mut T, &T) {
    move |left, right| *left = merge(left, right)
}

pub fn whole(leaves: &[Moments]) -> Moments {
    merge_all(leaves.iter().copied(), in_place(merge)).unwrap_or(Moments::EMPTY)
}
