//! Batch renormalization.

use super::BatchNormConfig;
use super::check::out_of_range;
use crate::error::ConfigError;

/// Limits of batch renormalization (Ioffe 2017), which normalizes the batch as its running
/// statistics would, within limits: y = (x̂·r + d)·weight + bias, where x̂ is normalized with the
/// statistics of the group's batch and σ² is variance + eps.
///
/// ```text
/// r = σ_batch/σ_running,                 from 1/r_max to r_max
/// d = (mean_batch − mean_running)/σ_running, from −d_max to d_max
/// ```
///
/// Backward takes r and d as constants. The running statistics are those before the batch. With
/// limits of 1 and 0 it is batch normalization: a schedule begins there, and widens them.
///
/// σ_batch² is the biased variance + eps, and σ_running² the running variance + eps. The paper has
/// the biased variance in both: set [`RunningVariance::Biased`](super::RunningVariance::Biased). It
/// matters for batches of few values. The running variance averages σ², where TensorFlow averages
/// σ.
///
/// Every rank takes r and d from its own running statistics. Give all ranks the same ones: load a
/// state on every rank, or use [`broadcast_state`](crate::SyncBatchNorm::broadcast_state).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Renorm {
    /// The largest r, from 1 to 1e6; 1/r_max is the smallest.
    pub r_max: f64,
    /// The largest |d|, from 0 to 1e6.
    pub d_max: f64,
}

impl Renorm {
    /// As settings are compared.
    pub(super) fn text(of: Option<Self>) -> String {
        of.map_or("none".to_owned(), |Self { r_max, d_max }| {
            // −0 is 0.
            format!("({r_max:e}, {:e})", d_max + 0.0)
        })
    }
}

impl BatchNormConfig {
    /// Sets batch renormalization; `None` for none.
    pub fn with_renorm(self, renorm: Option<Renorm>) -> Self {
        Self { renorm, ..self }
    }

    /// Refuses it for a layer whose running statistics are on the device.
    pub(crate) fn check_without_renorm(&self) -> Result<(), ConfigError> {
        let setting = "renorm";
        let needs = "a SyncBatchNorm, whose running statistics are on the host";
        self.renorm.map_or(Ok(()), |_| Err(ConfigError::Conflict { setting, needs }))
    }

    pub(super) fn check_renorm(&self) -> Result<(), ConfigError> {
        let Some(Renorm { r_max, d_max }) = self.renorm else { return Ok(()) };
        let setting = "renorm";
        // Beyond, a pivot that is moved by d deviations may leave the range of f32.
        if !(1.0..=1e6).contains(&r_max) {
            return out_of_range("r_max", r_max, "1 to 1e6");
        }
        if !(0.0..=1e6).contains(&d_max) {
            return out_of_range("d_max", d_max, "0 to 1e6");
        }
        if self.use_batch_statistics == Some(false) {
            let needs = "use_batch_statistics other than Some(false)";
            return Err(ConfigError::Conflict { setting, needs });
        }
        if !self.track_running_stats {
            return Err(ConfigError::Conflict { setting, needs: "track_running_stats = true" });
        }
        if self.eps == 0.0 {
            let needs = "an eps above 0, because it divides by the running deviation";
            return Err(ConfigError::Conflict { setting, needs });
        }
        Ok(())
    }
}
