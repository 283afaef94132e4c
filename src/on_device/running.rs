//! The use of statistics in a call, and running statistics that the caller gives.

use super::BatchNorm;
use crate::base::Base;
use crate::config::{Momentum, Statistics};
use crate::engine::resident::{Normalizer, Running, RunningPlace};
use crate::error::{ArgumentError, BatchError, Error};
use crate::plan::RunningUpdate;
use crate::request::{ForwardParts, RunningTensors};
use crate::shape::Shape;

impl BatchNorm {
    /// The source of the statistics that normalize in a call.
    pub(super) fn normalizer(
        &self,
        statistics: Statistics,
        parts: &ForwardParts<'_>,
        given: &RunningTensors<'_>,
        shapes: &[Shape],
    ) -> Result<Normalizer, BatchError> {
        let config = self.config();
        let values = shapes
            .iter()
            .fold(0, |values: u64, shape| values.saturating_add(shape.values_per_channel()));
        if statistics == Statistics::Group && values == 1 {
            return Err(BatchError::OneValue);
        }
        let has_running = if given.is_empty() {
            config.track_running_stats && !parts.untracked
        } else {
            given.next.is_some()
        };
        let tracks = statistics == Statistics::Group && has_running;
        let running_update = tracks.then_some(RunningUpdate {
            momentum: config.momentum,
            variance: config.running_variance,
        });
        Ok(match statistics {
            Statistics::Group => Normalizer::Batch { per_rank: false, running_update },
            Statistics::Local => Normalizer::Batch { per_rank: true, running_update },
            Statistics::Running => Normalizer::Running,
        })
    }
}

impl RunningTensors<'_> {
    /// Whether the layer's own are used.
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_none()
    }

    /// The place of the call's running statistics.
    pub(super) fn place<'r>(&'r self, layer: &'r Running) -> RunningPlace<'r> {
        let Some([Some(mean), Some(var)]) = self.now.map(|now| now.map(|tensor| tensor.slice()))
        else {
            return RunningPlace::Layer(layer);
        };
        let next = match &self.next {
            Some([mean, var]) => mean.slice().zip(var.slice()).map(<[_; 2]>::from),
            None => None,
        };
        RunningPlace::Vectors { layer, now: [mean, var], next }
    }
}

/// Takes the caller's running statistics out of a request and checks them. Notes that the call
/// writes the next ones.
pub(super) fn check<'a>(
    base: &Base,
    parts: &mut ForwardParts<'a>,
    statistics: Statistics,
) -> Result<RunningTensors<'a>, Error> {
    let running = std::mem::take(&mut parts.running);
    let refuse = |argument, reason| Err(ArgumentError::NotWanted { argument, reason }.into());
    if statistics == Statistics::Running && running.next.is_some() {
        return refuse("write_running_stats_to", "the running statistics normalize");
    }
    let Some(now) = &running.now else {
        return match running.next {
            Some(_) => refuse("write_running_stats_to", "running_stats says what they were"),
            None => Ok(running),
        };
    };
    for (name, tensor) in ["running mean", "running variance"].into_iter().zip(now) {
        base.check_vectors(name, &[tensor])?;
    }
    let Some(next) = &running.next else { return Ok(running) };
    if parts.untracked {
        return refuse("write_running_stats_to", "the call is untracked");
    }
    if base.config.momentum == Momentum::Cumulative {
        return refuse("write_running_stats_to", "a cumulative momentum needs a counter");
    }
    let mut others = parts.read();
    others.extend(parts.written());
    others.push(("running_stats", now.to_vec()));
    for (name, tensor) in ["next running mean", "next running variance"].into_iter().zip(next) {
        base.check_vectors(name, &[tensor])?;
        base.check_target(name, tensor, &others)?;
        others.push((name, vec![tensor]));
    }
    drop(others);
    let mut running = running;
    for tensor in running.next.iter_mut().flatten() {
        tensor.memory_mut();
    }
    Ok(running)
}
