//! Double backward in f64: the sums of a channel that it exchanges, and the coefficients for
//! devices.
//!
//! Of a channel with N values over all ranks, s = inv_std, h = (x − mean)·s and the layer's weight
//! w. g is the gradient before the activation, v the cotangent of grad_input, u and q those of
//! grad_weight and grad_bias. p is what grad_input is w·s times of:
//!
//! ```text
//! backward:  A = Σg, B = Σ g·h            p = g − A/N − h·B/N
//! sums:      V = Σv, H = Σ v·h, P = Σ v·p = Σ v·g − A·V/N − B·H/N, U₀ = Σ u·g, U₁ = Σ u·g·h
//! grad_output: act'·(w·s·(v − V/N − h·H/N) + u·h + q)
//! input:       s·(u·g − U₀/N − h·U₁/N)
//!              − (w·s²/N)·(H·(g − A/N) + B·(v − V/N) + h·(P − 2·B·H/N))
//! weight:      s·P
//! ```
//!
//! These are the derivatives of Σ v·grad_input + u·grad_weight + q·grad_bias. Nowhere is Σh² = N
//! used, which eps makes false.

use bytemuck::{Pod, Zeroable};

use super::{Centering, GradCentering, GradientSums, Normalization};

/// The sums of one channel that double backward exchanges, over a rank or over the group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleSums {
    /// Those of backward: Σg and Σ g·(x − mean).
    pub gradient: GradientSums,
    /// Σv.
    pub sum_v: f64,
    /// Σ v·(x − mean).
    pub sum_v_xmu: f64,
    /// Σ v·g.
    pub sum_vg: f64,
    /// Of the cotangents of grad_weight and of grad_bias: u·Σg and u·Σ g·(x − mean) where these
    /// gradients are of one rank each, u and q where they are summed over the group.
    pub parameters: [f64; 2],
}

impl DoubleSums {
    /// Pairs of one channel.
    pub const PAIRS: usize = 4;

    /// From the sums of a device: Σv, Σ v·(x − pivot), and Σ v·r of the remainder
    /// r = g − mean_dy − (x − mean)·projection, with both as they were sent. mean = pivot + `rest`.
    ///
    /// r is about as large as p. The term added to Σ v·r, in f64, is one that f32 would lose.
    pub fn from_pivot(
        gradient: GradientSums,
        [sum_v, sum_v_x, sum_vr]: [f64; 3],
        rest: f64,
        sent: &GradCentering,
    ) -> Self {
        let sum_v_xmu = sum_v_x - rest * sum_v;
        let projection = f64::from(sent.projection) * f64::from(sent.center.unit);
        let is_finite = gradient.sum_dy.is_finite() && gradient.sum_dy_xmu.is_finite();
        let sum_vg = if is_finite {
            sum_vr + f64::from(sent.mean_dy) * sum_v + projection * sum_v_xmu
        } else {
            f64::NAN
        };
        Self { gradient, sum_v, sum_v_xmu, sum_vg, parameters: [0.0; 2] }
    }

    /// As they travel, two by two.
    pub fn pairs(self) -> [DoublePair; Self::PAIRS] {
        let GradientSums { sum_dy, sum_dy_xmu } = self.gradient;
        let [weight, bias] = self.parameters;
        [[sum_dy, sum_dy_xmu], [self.sum_v, self.sum_v_xmu], [self.sum_vg, weight], [bias, 0.0]]
            .map(DoublePair)
    }

    /// From the values of a message.
    pub fn of_pairs(pairs: [DoublePair; Self::PAIRS]) -> Self {
        let [[sum_dy, sum_dy_xmu], [sum_v, sum_v_xmu], [sum_vg, weight], [bias, _]] =
            pairs.map(|pair| pair.0);
        let gradient = GradientSums { sum_dy, sum_dy_xmu };
        Self { gradient, sum_v, sum_v_xmu, sum_vg, parameters: [weight, bias] }
    }

    /// Σ v·p of these values, with the p of `all` values that the statistics were taken of: N of
    /// them; `None` where the statistics are constants.
    pub fn sum_vp(&self, all: &Self, count: Option<u64>, inv_std: f64) -> f64 {
        let Some(count) = count else { return self.sum_vg };
        let n = count.max(1) as f64;
        let projection = inv_std * (inv_std * all.gradient.sum_dy_xmu / n);
        self.sum_vg - self.sum_v * (all.gradient.sum_dy / n) - self.sum_v_xmu * projection
    }
}

/// Two of the [`DoubleSums`] of a channel, which add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoublePair(pub [f64; 2]);

/// The cotangents of the parameters' gradients as they enter one rank's channel, and what they are
/// with the sums of backward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ParameterCotangents {
    /// u.
    pub weight: f64,
    /// q.
    pub bias: f64,
    /// U₀ = Σ u·g.
    pub sum_ug: f64,
    /// Σ u·g·(x − mean); times inv_std U₁.
    pub sum_ug_xmu: f64,
}

/// The coefficients of one channel for both gradients of double backward. h counts in deviations; a
/// gradient that is not finite has a NaN `k1` or `q`, and the rest is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct DoubleCentering {
    /// Of [`Centering`].
    pub pivot: f32,
    /// Of [`Centering`].
    pub rest: f32,
    /// Of [`Centering`].
    pub inv_std: f32,
    /// Of [`Centering`].
    pub unit: f32,
    /// V/N.
    pub mean_v: f32,
    /// H/N.
    pub mean_vh: f32,
    /// u.
    pub u: f32,
    /// q; NaN where the gradient of grad_output is not finite.
    pub q: f32,
    /// A/N.
    pub mean_dy: f32,
    /// u·s.
    pub us: f32,
    /// s·(u·mean_dy − U₀/N).
    pub shift: f32,
    /// s·U₁/N; NaN where the gradient of x is not finite.
    pub k1: f32,
    /// (s/N)·(P − 2·B·H/N).
    pub k2: f32,
    /// s·H/N.
    pub g_factor: f32,
    /// s·B/N.
    pub v_factor: f32,
    /// Nothing.
    pub padding: f32,
}

impl DoubleCentering {
    fn of(center: Centering) -> Self {
        let Centering { pivot, rest, inv_std, unit } = center;
        Self { pivot, rest, inv_std, unit, ..Self::default() }
    }

    /// The centering of the channel, as in forward.
    pub fn center(&self) -> Centering {
        Centering { pivot: self.pivot, rest: self.rest, inv_std: self.inv_std, unit: self.unit }
    }

    /// The coefficients of both gradients, those of one that is not finite replaced.
    fn checked(self) -> Self {
        let of_grad_output = [self.mean_v, self.mean_vh, self.u, self.q];
        let of_input = [self.mean_v, self.mean_dy, self.us, self.shift, self.k1, self.k2];
        let more = [self.g_factor, self.v_factor];
        let mut checked = self;
        if !of_grad_output.iter().all(|of| of.is_finite()) {
            checked.q = f32::NAN;
            (checked.mean_vh, checked.u) = (0.0, 0.0);
        }
        if !of_input.iter().chain(&more).all(|of| of.is_finite()) {
            checked.k1 = f32::NAN;
            (checked.mean_dy, checked.us, checked.shift, checked.k2) = (0.0, 0.0, 0.0, 0.0);
            (checked.g_factor, checked.v_factor) = (0.0, 0.0);
        }
        if !checked.mean_v.is_finite() {
            checked.mean_v = 0.0;
        }
        checked
    }
}

impl Normalization {
    /// The coefficients that double backward sends to the devices, from the sums over all values of
    /// the statistics.
    pub fn double_centering(
        &self,
        sums: &[DoubleSums],
        parameters: &[ParameterCotangents],
    ) -> Vec<DoubleCentering> {
        let channels = self.centering().into_iter().zip(&self.inv_std);
        let channels = channels.zip(sums).zip(parameters);
        channels
            .map(|(((center, &s), sums), of)| {
                let constant = DoubleCentering {
                    u: of.weight as f32,
                    q: of.bias as f32,
                    us: (of.weight * s) as f32,
                    ..DoubleCentering::of(center)
                };
                let Some(count) = self.batch_count else { return constant.checked() };
                let n = count.max(1) as f64;
                let mean_dy = sums.gradient.sum_dy / n;
                let mean_gh = s * sums.gradient.sum_dy_xmu / n;
                let mean_vh = s * sums.sum_v_xmu / n;
                let sum_vp = sums.sum_vp(sums, Some(count), s);
                let from_products = sum_vp / n - 2.0 * mean_gh * mean_vh;
                DoubleCentering {
                    mean_v: (sums.sum_v / n) as f32,
                    mean_vh: mean_vh as f32,
                    mean_dy: mean_dy as f32,
                    // From the mean that devices subtract.
                    shift: (s * (of.weight * f64::from(mean_dy as f32) - of.sum_ug / n)) as f32,
                    k1: (s * (s * of.sum_ug_xmu / n)) as f32,
                    k2: (s * from_products) as f32,
                    g_factor: (s * mean_vh) as f32,
                    v_factor: (s * mean_gh) as f32,
                    ..constant
                }
                .checked()
            })
            .collect()
    }
}
