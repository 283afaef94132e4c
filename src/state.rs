//! The state of a layer as plain values, and checkpoints: files with the states of many layers,
//! under the names of any framework.
//!
//! A layer gives its state with `state()` and takes one in with `load_state()`. A [`Checkpoint`]
//! reads and writes states of any number of layers. [`Naming`] is a table of names.
//!
//! ```no_run
//! use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
//! use syncbn::state::{Checkpoint, LoadOptions};
//!
//! # pollster::block_on(async {
//! let mut bn = SyncBatchNorm::new(BatchNormConfig::torch(64), [Device::host()])?;
//! let checkpoint = Checkpoint::open("resnet50.safetensors")?;
//! bn.load_state(&checkpoint.layer("layer1.0.bn1")?, &LoadOptions::default())?;
//! // Other tensors of the file stay, byte for byte.
//! Checkpoint::update("resnet50.safetensors", [("layer1.0.bn1", &bn.state().await?)])?;
//! # Ok::<(), syncbn::Error>(())
//! # }).unwrap();
//! ```
//!
//! [`StateDict::scale_shift`] and [`ScaleShift::fold`] make one layer of a convolution and the
//! normalization behind it, for inference.

#[cfg(feature = "safetensors")]
mod checkpoint;
mod fold;
mod message;
mod naming;
mod options;
mod source;

#[cfg(feature = "safetensors")]
pub use checkpoint::Checkpoint;
pub use fold::ScaleShift;
pub use naming::{Counter, Naming};
pub use options::{LoadOptions, LoadReport};

use crate::checksum::{Checksum, Listing, Manifest};
use crate::config::{BatchNormConfig, Momentum};
use crate::error::StateError;
use crate::stats::RunningStats;
use source::Source;

/// Everything that a layer keeps between calls. A field is `None` if the layer was configured
/// without it.
///
/// A state is made by a layer, by a [`Checkpoint`], or from nothing:
///
/// ```
/// use syncbn::state::StateDict;
/// let mut state = StateDict::default();
/// state.running_mean = Some(vec![0.5; 3]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// Weight (gamma), (C).
    pub weight: Option<Vec<f32>>,
    /// Bias (beta), (C).
    pub bias: Option<Vec<f32>>,
    /// Running mean, (C).
    pub running_mean: Option<Vec<f32>>,
    /// Running variance, (C).
    pub running_var: Option<Vec<f32>>,
    /// Training steps counted. Also `None` if a file has no counter. The layer's counter stays
    /// then.
    pub num_batches_tracked: Option<u64>,
    /// Names of the tensors in their file.
    source: Source,
}

impl StateDict {
    /// A state without running statistics.
    pub(crate) fn of_parameters(weight: Option<Vec<f32>>, bias: Option<Vec<f32>>) -> Self {
        Self { weight, bias, ..Self::default() }
    }

    /// The same state with these running statistics.
    pub(crate) fn with_running(self, running: &RunningStats) -> Self {
        Self {
            running_mean: Some(running.mean.clone()),
            running_var: Some(running.var.clone()),
            num_batches_tracked: Some(running.num_batches_tracked),
            ..self
        }
    }

    /// The running statistics, if all of them are there.
    pub(crate) fn running(&self) -> Option<RunningStats> {
        let mean = self.running_mean.clone()?;
        let var = self.running_var.clone()?;
        Some(RunningStats { mean, var, num_batches_tracked: self.num_batches_tracked? })
    }

    /// The running statistics of a layer that takes in this state and has `own`.
    pub(crate) fn running_or(&self, own: RunningStats) -> RunningStats {
        RunningStats {
            mean: self.running_mean.clone().unwrap_or(own.mean),
            var: self.running_var.clone().unwrap_or(own.var),
            num_batches_tracked: self.num_batches_tracked.unwrap_or(own.num_batches_tracked),
        }
    }

    /// The state without the tensors that a layer of this configuration does not have.
    pub(crate) fn fitting(&self, config: &BatchNormConfig) -> Self {
        let of = |values: &Option<Vec<f32>>, has: bool| values.clone().filter(|_| has);
        let tracked = config.track_running_stats;
        Self {
            weight: of(&self.weight, config.weight),
            bias: of(&self.bias, config.bias),
            running_mean: of(&self.running_mean, tracked),
            running_var: of(&self.running_var, tracked),
            num_batches_tracked: self.num_batches_tracked.filter(|_| tracked),
            source: self.source.clone(),
        }
    }

    fn vectors(&self) -> [Option<&Vec<f32>>; 4] {
        [&self.weight, &self.bias, &self.running_mean, &self.running_var].map(Option::as_ref)
    }

    /// The state as a list, with a checksum of the bits of each vector. Ranks compare their states
    /// by it.
    pub(crate) fn manifest(&self) -> Manifest {
        let names = ["weight", "bias", "running_mean", "running_var"];
        let mut lines = Listing::default();
        for (name, values) in names.into_iter().zip(self.vectors()) {
            let Some(values) = values else { continue };
            let mut checksum = Checksum::new();
            values.iter().for_each(|value| checksum.add(&value.to_le_bytes()));
            lines.add(name, format_args!("{:#018x}", checksum.finish()));
        }
        if let Some(count) = self.num_batches_tracked {
            lines.add("num_batches_tracked", count);
        }
        lines.finish()
    }

    /// Checks that a layer of this configuration can take in the state. Reports the tensors that
    /// the layer would keep, and those that it would leave out.
    ///
    /// # Errors
    /// [`StateError`] names the tensor, as its file does, and the channel.
    pub fn check(
        &self,
        config: &BatchNormConfig,
        options: &LoadOptions,
    ) -> Result<LoadReport, StateError> {
        let report = self.compare(config);
        if options.strict {
            self.check_strictly(config, &report)?;
        }
        let names = self.source.names();
        let places = self.places(config);
        for ((name, values), _) in
            names.iter().zip(self.vectors()).zip(places).filter(|(_, has_place)| *has_place)
        {
            let Some(values) = values else { continue };
            check_vector(name, values, config.num_features, options.allow_non_finite)?;
        }
        let [.., running_var, _] = names;
        let negative = self.running_var.iter().flatten().enumerate().find(|(_, var)| **var < 0.0);
        match negative.filter(|_| config.track_running_stats) {
            Some((channel, &found)) => {
                Err(StateError::NegativeVariance { name: running_var, channel, found })
            }
            None => Ok(report),
        }
    }

    /// For each of weight, bias, running mean, running variance and counter: whether a layer has
    /// it.
    fn places(&self, config: &BatchNormConfig) -> [bool; naming::TENSORS] {
        let tracked = config.track_running_stats;
        [config.weight, config.bias, tracked, tracked, tracked]
    }

    /// For each of them: whether the state has it.
    fn present(&self) -> [bool; naming::TENSORS] {
        let [weight, bias, mean, var] = self.vectors().map(|values| values.is_some());
        [weight, bias, mean, var, self.num_batches_tracked.is_some()]
    }

    fn compare(&self, config: &BatchNormConfig) -> LoadReport {
        let mut report = LoadReport::default();
        let each = self.present().into_iter().zip(self.places(config));
        for (name, (is_present, has_place)) in self.source.names().into_iter().zip(each) {
            match (is_present, has_place) {
                (true, false) => report.unexpected.push(name),
                (false, true) => report.missing.push(name),
                _ => {}
            }
        }
        report.unexpected.extend_from_slice(self.source.beside());
        report
    }

    /// Refuses missing and surplus tensors. A counter may be missing unless another value depends
    /// on it.
    fn check_strictly(
        &self,
        config: &BatchNormConfig,
        report: &LoadReport,
    ) -> Result<(), StateError> {
        let names = self.source.names();
        let needs_counter = config.momentum == Momentum::Cumulative;
        let [.., counter] = &names;
        if let Some(name) = report.missing.iter().find(|name| *name != counter || needs_counter) {
            let present = names.iter().zip(self.present()).filter(|(_, is_present)| *is_present);
            let found: Vec<String> = present.map(|(name, _)| name.clone()).collect();
            return Err(StateError::Missing {
                name: name.clone(),
                of: found.len(),
                found,
                guess: None,
            });
        }
        match report.unexpected.first() {
            Some(name) => Err(StateError::Unexpected { name: name.clone() }),
            None => Ok(()),
        }
    }
}

fn check_vector(
    name: &str,
    values: &[f32],
    expected: usize,
    allow_non_finite: bool,
) -> Result<(), StateError> {
    let name = || name.to_owned();
    if values.len() != expected {
        let found = vec![values.len()];
        return Err(StateError::Shape { name: name(), found, expected: vec![expected] });
    }
    let refused = values.iter().enumerate().find(|(_, value)| !value.is_finite());
    match refused.filter(|_| !allow_non_finite) {
        Some((channel, &found)) => Err(StateError::NotFinite { name: name(), channel, found }),
        None => Ok(()),
    }
}
