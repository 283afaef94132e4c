//! Owns tolerances for cases that store none: how far a careful f32 computation may be off, from
//! the conditioning of the case and not from any implementation.
//!
//! The formulas are those that the `doc` of the golden manifest gives, with u = 2⁻²⁴, x̂ = (x -
//! mean)·inv_std and k = |weight|·inv_std:
//!
//! ```text
//! dm      = 2u·|mean| + 8u·std              a mean held in one f32
//! mean    : 2·dm                            var  : 1e-5·var + 8·dm²
//! y       : 4k·dm + 1e-5·(|weight|·max|x̂| + |bias| + max|y|)
//! dbias   : 1e-5·Σ|g|                       dweight : 1e-5·Σ|g·x̂| + 4·inv_std·dm·Σ|g|
//! dx      : 1e-5·k·(1 + max|x̂|)·(max|g| + Σ|g·x̂|/N)
//!           + 4k·inv_std·dm·(Σ|g|/N + Σ|g·x̂|/N + max|x̂|·Σ|g|/N)
//! running : f·tol(batch) + 4e-7·(|old| + |batch|)
//! ```
//!
//! y and dx of a 16-bit type are rounded once more, to the nearest: half an ulp of the largest of
//! them in the channel.
//!
//! The last term of dx is what dm moves in x̂, A/N and B/N; given statistics have none of these, so
//! there dx is 1e-5·k·max|g|. The self-test holds these against the tolerances that the golden
//! cases store: none may be wider.

use half::{bf16, f16};
use syncbn::DType;
use syncbn::low_level::epilogue_of;

use crate::compare::{Check, Tolerance};
use crate::epilogue;
use crate::scenario::{RankTensor, Scenario, Step};

/// Half an ulp of 1 in f32.
const U: f64 = 1.0 / 16_777_216.0;

/// The relative error allowed to sums of well-conditioned f32 terms.
const RELATIVE: f64 = 1e-5;

/// How far rounding to the nearest may move values of at most this size that are stored as `dtype`,
/// beyond what the formulas for f32 have room for.
pub fn rounding(dtype: DType, largest: f64) -> f64 {
    let (relative, smallest) = match dtype {
        DType::F32 => return 0.0,
        DType::F16 => (2f64.powi(-11), f64::from(f16::from_bits(1))),
        DType::BF16 => (2f64.powi(-8), f64::from(bf16::from_bits(1))),
    };
    relative * largest + smallest / 2.0
}

/// Per channel what a check of values stored as `dtype` allows for their rounding.
pub fn roundings(check: &Check, dtype: DType, channels: usize) -> Vec<f64> {
    check.largest(channels).into_iter().map(|largest| rounding(dtype, largest)).collect()
}

/// Adds what values stored as `dtype` need to a check whose tolerance is that of f32.
pub fn allow_rounding(check: &mut Check, dtype: DType) {
    let Tolerance::Channel(tolerance) = &check.tolerance else { return };
    let roundings = roundings(check, dtype, tolerance.len());
    check.tolerance =
        Tolerance::Channel(tolerance.iter().zip(roundings).map(|(a, b)| a + b).collect());
}

/// What the tolerances of one channel depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel {
    pub count: f64,
    pub mean: f64,
    pub var: f64,
    pub inv_std: f64,
    weight: f64,
    bias: f64,
    max_xhat: f64,
    max_y: f64,
    max_g: f64,
    sum_abs_g: f64,
    sum_abs_g_xhat: f64,
}

/// [`channels`] of a step: y as it leaves the epilogue, and what of the upstream gradients passes
/// it.
pub fn of_step(scenario: &Scenario, step: &Step, statistics: (&[f64], &[f64])) -> Vec<Channel> {
    let passed = epilogue::passed(scenario, step, statistics);
    let affine = (scenario.weight.as_deref(), scenario.bias.as_deref());
    let mut channels =
        channels(&step.inputs, passed.as_deref(), statistics, affine, scenario.config.eps);
    channels.iter_mut().for_each(|channel| channel.max_y = 0.0);
    for (input, v) in step.inputs.iter().zip(epilogue::entering(scenario, step, statistics)) {
        let map = input.map();
        for (i, v) in v.into_iter().enumerate() {
            let channel = &mut channels[map.channel(i)];
            channel.max_y =
                channel.max_y.max(epilogue::activated(epilogue_of(&scenario.config), v).abs());
        }
    }
    channels
}

/// Looks at every value of a step that is normalized with `mean` and `var`, each of length C.
pub fn channels(
    inputs: &[RankTensor],
    grad_outputs: Option<&[RankTensor]>,
    (mean, var): (&[f64], &[f64]),
    (weight, bias): (Option<&[f32]>, Option<&[f32]>),
    eps: f64,
) -> Vec<Channel> {
    let parameter = |values: Option<&[f32]>, c: usize, fill: f64| {
        values.map_or(fill, |values| f64::from(values[c]))
    };
    let mut channels: Vec<Channel> = (0..mean.len())
        .map(|c| Channel {
            mean: mean[c],
            var: var[c],
            inv_std: if var[c] + eps == 0.0 { 0.0 } else { 1.0 / (var[c] + eps).sqrt() },
            weight: parameter(weight, c, 1.0),
            bias: parameter(bias, c, 0.0),
            ..Channel::default()
        })
        .collect();
    for (rank, input) in inputs.iter().enumerate() {
        let map = input.map();
        let g = grad_outputs.and_then(|ranks| ranks.get(rank)).map(|rank| &rank.values);
        for (i, &x) in input.values.iter().enumerate() {
            channels[map.channel(i)]
                .see(f64::from(x), g.and_then(|g| g.get(i)).map_or(0.0, |&g| f64::from(g)));
        }
    }
    channels
}

impl Channel {
    fn see(&mut self, x: f64, g: f64) {
        let xhat = (x - self.mean) * self.inv_std;
        self.count += 1.0;
        self.max_xhat = self.max_xhat.max(xhat.abs());
        self.max_y = self.max_y.max((self.weight * xhat + self.bias).abs());
        self.max_g = self.max_g.max(g.abs());
        self.sum_abs_g += g.abs();
        self.sum_abs_g_xhat += (g * xhat).abs();
    }

    fn dm(&self) -> f64 {
        2.0 * U * self.mean.abs() + 8.0 * U * self.var.sqrt()
    }

    /// The largest |weight·inv_std·g|.
    pub fn largest_gradient(&self) -> f64 {
        self.k() * self.max_g
    }

    /// Σ|g|.
    pub fn sum_abs_g(&self) -> f64 {
        self.sum_abs_g
    }

    /// Σ|g·x̂|.
    pub fn sum_abs_g_xhat(&self) -> f64 {
        self.sum_abs_g_xhat
    }

    fn k(&self) -> f64 {
        self.weight.abs() * self.inv_std
    }

    pub fn tol_mean(&self) -> f64 {
        2.0 * self.dm()
    }

    pub fn tol_var(&self) -> f64 {
        RELATIVE * self.var + 8.0 * self.dm() * self.dm()
    }

    pub fn tol_y(&self) -> f64 {
        let size = self.weight.abs() * self.max_xhat + self.bias.abs() + self.max_y;
        4.0 * self.k() * self.dm() + RELATIVE * size
    }

    pub fn tol_dbias(&self) -> f64 {
        RELATIVE * self.sum_abs_g
    }

    pub fn tol_dweight(&self) -> f64 {
        RELATIVE * self.sum_abs_g_xhat + 4.0 * self.inv_std * self.dm() * self.sum_abs_g
    }

    /// Of dx through the batch's statistics.
    pub fn tol_dx(&self) -> f64 {
        let mean_g = self.sum_abs_g / self.count;
        let mean_g_xhat = self.sum_abs_g_xhat / self.count;
        let size = (1.0 + self.max_xhat) * (self.max_g + mean_g_xhat);
        let moved = self.inv_std * self.dm() * (mean_g + mean_g_xhat + self.max_xhat * mean_g);
        self.k() * (RELATIVE * size + 4.0 * moved)
    }

    /// Of the gradient of a residual behind a curve.
    pub fn tol_dz(&self) -> f64 {
        RELATIVE * self.max_g
    }

    /// Of dx with given statistics.
    pub fn tol_dx_given(&self) -> f64 {
        RELATIVE * self.k() * self.max_g
    }

    /// Of the running mean, which was `old`, after a step with the new batch's weight `f`.
    pub fn tol_running_mean(&self, old: f64, f: f64) -> f64 {
        f * self.tol_mean() + 4e-7 * (old.abs() + self.mean.abs())
    }

    /// Of the running variance, where `correction` times the biased variance of the batch enters.
    pub fn tol_running_var(&self, old: f64, f: f64, correction: f64) -> f64 {
        correction * f * self.tol_var() + 4e-7 * (old.abs() + correction * self.var)
    }
}
