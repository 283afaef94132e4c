//! Batch renormalization.

use super::{BatchNormConfig, out_of_range};
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
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Renorm {
    /// The largest r, finite and at least 1; 1/r_max is the smallest.
    pub r_max: f64,
    /// The largest |d|, finite and at least 0.
    pub d_max: f64,
}

impl Renorm {
    /// As settings are compared.
    pub(super) fn text(of: Option<Self>) -> String {
        of.map_or("none".to_owned(), |Self { r_max, d_max }| format!("({r_max:e}, {d_max:e})"))
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
        if !(r_max >= 1.0 && r_max.is_finite()) {
            return out_of_range("r_max", r_max, "finite and at least 1");
        }
        if !(d_max >= 0.0 && d_max.is_finite()) {
            return out_of_range("d_max", d_max, "finite and at least 0");
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
