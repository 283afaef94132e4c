//! Owns the sum of the oracle. It is compensated: its error does not grow with the number of terms.

/// A running sum that carries what each addition rounds off (A. Neumaier, *Rundungsfehleranalyse
/// einiger Verfahren zur Summation endlicher Summen*, ZAMM 54, 1974): the error is about one
/// rounding of the total, plus n·2⁻¹⁰⁶ of Σ|x|.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CompensatedSum {
    sum: f64,
    carry: f64,
}

impl CompensatedSum {
    pub(super) fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        self.carry +=
            if self.sum.abs() >= x.abs() { (self.sum - sum) + x } else { (x - sum) + self.sum };
        self.sum = sum;
    }

    /// The total. An infinite or NaN sum is given as it is: its carry would turn ±∞ into NaN.
    pub(super) fn total(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.carry } else { self.sum }
    }
}
