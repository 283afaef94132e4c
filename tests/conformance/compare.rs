//! Owns the comparison of one observed quantity with its expected values, within tolerances that
//! are never widened.

use syncbn::Layout;

/// What is observed of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// y of a rank.
    Output(usize),
    /// Mean of the group.
    Mean,
    /// Biased variance of the group.
    VarBiased,
    /// 1/√(var_biased + eps) of the group.
    InvStd,
    /// Mean of a rank's own batch.
    LocalMean(usize),
    /// Biased variance of a rank's own batch.
    LocalVarBiased(usize),
    /// Running mean after the step.
    RunningMean,
    /// Running variance after the step.
    RunningVar,
    /// grad_input of a rank.
    GradInput(usize),
    /// Gradient of a rank's residual.
    GradResidual(usize),
    /// Local grad_weight of a rank.
    GradWeight(usize),
    /// Local grad_bias of a rank.
    GradBias(usize),
    /// grad_weight summed over the group.
    GradWeightSum,
    /// grad_bias summed over the group.
    GradBiasSum,
    /// Gradient of backward with respect to x of a rank.
    DoubleInput(usize),
    /// The same with respect to grad_output.
    DoubleGradOutput(usize),
    /// The same with respect to the weight, a rank's part.
    DoubleWeight(usize),
    /// All ranks' together.
    DoubleWeightSum,
}

/// The two halves of a case that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Forward,
    Backward,
}

impl Quantity {
    pub fn part(self) -> Part {
        match self {
            Self::GradInput(_)
            | Self::GradResidual(_)
            | Self::GradWeight(_)
            | Self::GradBias(_)
            | Self::GradWeightSum
            | Self::GradBiasSum => Part::Backward,
            _ if self.is_double() => Part::Backward,
            _ => Part::Forward,
        }
    }

    /// Whether it is of double backward.
    pub fn is_double(self) -> bool {
        matches!(
            self,
            Self::DoubleInput(_)
                | Self::DoubleGradOutput(_)
                | Self::DoubleWeight(_)
                | Self::DoubleWeightSum
        )
    }
}

/// Absolute tolerances.
#[derive(Clone, Debug)]
pub enum Tolerance {
    /// One per channel. Infinite for a poisoned channel, of which only the pattern is compared.
    Channel(Vec<f64>),
    /// One per expected value.
    Value(Vec<f64>),
}

/// Where the channel of a value is found: value i belongs to channel (i / inner) % channels.
#[derive(Clone, Copy, Debug)]
pub struct ChannelMap {
    pub channels: usize,
    /// Neighbouring values of one channel: the spatial length of channels-first data, 1 for
    /// channels-last data and for a vector of length C.
    pub inner: usize,
}

impl ChannelMap {
    /// Of data (N, C, spatial...) or, channels last, (N, spatial..., C).
    pub fn of_dims(dims: &[usize], layout: Layout) -> Self {
        let (channels, inner) = match layout {
            Layout::ChannelsFirst => (dims.get(1), dims.iter().skip(2).product::<usize>()),
            Layout::ChannelsLast => (dims.last(), 1),
        };
        Self { channels: channels.copied().unwrap_or(1).max(1), inner: inner.max(1) }
    }

    /// Of a vector with one value per channel.
    pub fn vector(channels: usize) -> Self {
        Self { channels: channels.max(1), inner: 1 }
    }

    pub fn channel(&self, position: usize) -> usize {
        (position / self.inner) % self.channels
    }
}

/// Expected values of one quantity.
#[derive(Clone, Debug)]
pub struct Check {
    /// Name in messages: that of the stored tensor.
    pub name: String,
    pub quantity: Quantity,
    pub expected: Vec<f64>,
    pub tolerance: Tolerance,
    pub map: ChannelMap,
    /// Where the expected values lie in the observed ones; `None` for all of them, in order.
    pub positions: Option<Vec<usize>>,
    /// Per channel, the size of the ulp in which errors are measured, too, where they are.
    pub ulp: Option<Vec<f64>>,
    /// An expected infinity may also be observed as NaN: which of them a mean becomes depends on
    /// the algorithm.
    pub any_non_finite: bool,
}

impl Check {
    /// Of a quantity with one value per channel.
    pub fn vector(
        name: String,
        quantity: Quantity,
        expected: Vec<f64>,
        tolerance: Vec<f64>,
    ) -> Self {
        let map = ChannelMap::vector(expected.len());
        let tolerance = Tolerance::Channel(tolerance);
        Self {
            name,
            quantity,
            expected,
            tolerance,
            map,
            positions: None,
            ulp: None,
            any_non_finite: false,
        }
    }

    /// Of values laid out as `map` says, with a tolerance per channel.
    pub fn values(
        name: String,
        quantity: Quantity,
        map: ChannelMap,
        expected: Vec<f64>,
        tolerance: Vec<f64>,
    ) -> Self {
        let tolerance = Tolerance::Channel(tolerance);
        Self {
            name,
            quantity,
            expected,
            tolerance,
            map,
            positions: None,
            ulp: None,
            any_non_finite: false,
        }
    }

    /// Where expected value `i` lies in the observed values.
    pub fn position(&self, i: usize) -> usize {
        self.positions.as_ref().and_then(|positions| positions.get(i)).copied().unwrap_or(i)
    }

    pub fn channel(&self, i: usize) -> usize {
        self.map.channel(self.position(i))
    }

    /// Per channel the largest finite magnitude that is expected.
    pub fn largest(&self, channels: usize) -> Vec<f64> {
        let mut largest = vec![0.0f64; channels];
        for (i, value) in self.expected.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let largest = &mut largest[self.channel(i)];
            *largest = largest.max(value.abs());
        }
        largest
    }

    pub fn tolerance_of(&self, i: usize) -> Option<f64> {
        match &self.tolerance {
            Tolerance::Channel(tolerance) => tolerance.get(self.channel(i)).copied(),
            Tolerance::Value(tolerance) => tolerance.get(i).copied(),
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The worst error as a share of its tolerance, and where.
    pub share: f64,
    pub share_at: String,
    /// The worst error in ulp, and where, if it was measured.
    pub ulp: Option<f64>,
    pub ulp_at: String,
    /// What is wrong; empty when nothing is.
    pub failures: Vec<String>,
    /// How many values were compared.
    pub values: usize,
}

impl Verdict {
    /// A verdict that says only that something is wrong.
    pub fn failed(message: String) -> Self {
        Self { failures: vec![message], ..Self::default() }
    }

    /// Joins what another comparison of the same entry found.
    pub fn join(&mut self, other: Self) {
        if other.share > self.share || (self.share_at.is_empty() && !other.share_at.is_empty()) {
            (self.share, self.share_at) = (other.share, other.share_at);
        }
        if other.ulp.is_some_and(|other| self.ulp.is_none_or(|ulp| other > ulp)) {
            (self.ulp, self.ulp_at) = (other.ulp, other.ulp_at);
        }
        self.failures.extend(other.failures);
        self.values += other.values;
    }
}

/// Compares everything that `check` expects with what was observed.
///
/// The message of a failure names the worst value, as shares of the tolerance go.
pub fn compare(check: &Check, observed: &[f64]) -> Verdict {
    if check.positions.is_none() && observed.len() != check.expected.len() {
        let name = &check.name;
        let found = observed.len();
        let expected = check.expected.len();
        return Verdict::failed(format!(
            "{name}: {found} values were observed, {expected} are expected"
        ));
    }
    let mut verdict = Verdict { ulp: check.ulp.as_ref().map(|_| 0.0), ..Verdict::default() };
    let mut wrong = 0;
    let mut worst: Option<(f64, String)> = None;
    for (i, &expected) in check.expected.iter().enumerate() {
        let position = check.position(i);
        let channel = check.channel(i);
        let (Some(&found), Some(tolerance)) = (observed.get(position), check.tolerance_of(i))
        else {
            let name = &check.name;
            let len = observed.len();
            return Verdict::failed(format!(
                "{name}[{position}]: no such value among {len}, or no tolerance for it"
            ));
        };
        let share = share(expected, found, tolerance, check.any_non_finite);
        let place = || format!("{}[{position}], channel {channel}", check.name);
        if share > verdict.share {
            (verdict.share, verdict.share_at) = (share, place());
        }
        if share.is_nan() || share > 1.0 {
            wrong += 1;
            if worst.as_ref().is_none_or(|(worst, _)| share > *worst) {
                let off = (found - expected).abs();
                let message = format!(
                    "{}: {found:e}, expected {expected:e}, off by {off:.3e}, allowed \
                    {tolerance:.3e}",
                    place()
                );
                worst = Some((share, message));
            }
        }
        if let (Some(ulp), true) =
            (check.ulp.as_ref().and_then(|ulp| ulp.get(channel)), expected.is_finite())
        {
            let ulps = in_ulp((found - expected).abs(), *ulp);
            if verdict.ulp.is_some_and(|worst| ulps > worst) {
                (verdict.ulp, verdict.ulp_at) = (Some(ulps), place());
            }
        }
    }
    verdict.values = check.expected.len();
    if let Some((_, message)) = worst {
        verdict
            .failures
            .push(format!("{message} ({wrong} of {} values are outside)", check.expected.len()));
    }
    verdict
}

/// The error as a share of the tolerance: at most 1 when allowed, infinite when the pattern of
/// non-finite values differs.
fn share(expected: f64, found: f64, tolerance: f64, any_non_finite: bool) -> f64 {
    let same = match (expected.is_finite(), found.is_finite()) {
        (true, true) => {
            let off = (found - expected).abs();
            return if off == 0.0 { 0.0 } else { off / tolerance };
        }
        (true, false) | (false, true) => false,
        (false, false) if expected.is_nan() => found.is_nan(),
        (false, false) => any_non_finite || found == expected,
    };
    if same { 0.0 } else { f64::INFINITY }
}

/// An error in units of `ulp`; one that is not a number counts as infinite.
fn in_ulp(off: f64, ulp: f64) -> f64 {
    let ulps = if off == 0.0 { 0.0 } else { off / ulp };
    if ulps.is_nan() { f64::INFINITY } else { ulps }
}
