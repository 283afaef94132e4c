//! The meaning of the settings for one call.

use super::BatchNormConfig;
use crate::epilogue::Epilogue;
use crate::error::ConfigError;

/// Whether a call trains or evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Train,
    Eval,
}

/// The statistics that a call normalizes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// Those of the group's batch. They update the running statistics, if there are any.
    Group,
    /// Those of each rank's own batch.
    Local,
    /// The running ones.
    Running,
}

impl BatchNormConfig {
    /// How the layer ends.
    pub(crate) fn epilogue(&self) -> Epilogue {
        Epilogue { residual: self.residual, activation: self.activation }
    }

    /// Whether forward keeps a mask. It does if backward would otherwise read the residual.
    pub(crate) fn keeps_mask(&self) -> bool {
        self.activation_mask && self.residual && self.epilogue().has_two_slopes()
    }

    /// Refuses changes of settings that parameters, statistics or saved contexts of a layer depend
    /// on.
    pub(crate) fn check_change(&self, to: &Self) -> Result<(), ConfigError> {
        let kept = [
            ("num_features", self.num_features == to.num_features),
            ("weight", self.weight == to.weight),
            ("bias", self.bias == to.bias),
            ("track_running_stats", self.track_running_stats == to.track_running_stats),
            ("activation", self.activation == to.activation),
            ("residual", self.residual == to.residual),
            ("activation_mask", self.activation_mask == to.activation_mask),
            ("reproducible", self.reproducible == to.reproducible),
        ];
        match kept.into_iter().find(|(_, is_kept)| !is_kept) {
            Some((name, _)) => {
                let value = |config: &Self| config.manifest().value(name).to_owned();
                Err(ConfigError::Fixed { name, found: value(to), expected: value(self) })
            }
            None => Ok(()),
        }
    }

    /// Refuses a layer whose evaluation depends on the batch.
    pub(crate) fn check_evaluates_with_running(&self) -> Result<(), ConfigError> {
        if self.statistics(Mode::Eval) == Statistics::Running {
            return Ok(());
        }
        let setting = "evaluation as a scale and a shift";
        let needs = "a layer that evaluates with running statistics: track_running_stats = true, \
            use_batch_statistics None or Some(false)";
        Err(ConfigError::Conflict { setting, needs })
    }

    /// The statistics that a call in this mode normalizes with.
    pub(crate) fn statistics(&self, mode: Mode) -> Statistics {
        match (self.use_batch_statistics, mode) {
            (Some(true), _) | (None, Mode::Train) => Statistics::Group,
            (Some(false), _) => Statistics::Running,
            (None, Mode::Eval) if self.track_running_stats => Statistics::Running,
            // As in PyTorch: evaluation never synchronizes.
            (None, Mode::Eval) => Statistics::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_a_call_follow_the_table_of_modes() {
        use {Mode::*, Statistics::*};
        let config = |batch, track| {
            BatchNormConfig::torch(1)
                .with_use_batch_statistics(batch)
                .with_track_running_stats(track)
        };
        let of = |config: BatchNormConfig| (config.statistics(Train), config.statistics(Eval));
        assert_eq!(of(config(None, true)), (Group, Running));
        assert_eq!(of(config(None, false)), (Group, Local));
        assert_eq!(of(config(Some(true), true)), (Group, Group));
        assert_eq!(of(config(Some(false), true)), (Running, Running));
        assert!(matches!(config(Some(false), false).validate(), Err(ConfigError::Conflict { .. })));
    }
}
