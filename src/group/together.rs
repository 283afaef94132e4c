//! Groups whose ranks are all in this process's memory: channel by channel, both halves of a pass at once.

use super::{DeviceGroup, Inputs, SavedForward};
use crate::config::Statistics;
use crate::coordinator::merge_ranks;
use crate::engine::{self, BackwardRank, ForwardRank, Mask, Upstream, View};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, GradientSums};
use crate::tensor::Tensor;

impl DeviceGroup {
    /// Whether the statistics of a channel depend on nothing but host memory of this process, the same for every rank.
    fn is_together(&self, statistics: Statistics) -> bool {
        let alone = self.exchange.group().world_size() == 1;
        let same = statistics != Statistics::Local || self.devices.len() == 1;
        alone && same && self.devices.iter().all(|device| device.is_host())
    }

    /// Local statistics and outputs, and masks where there are any, where they can be had at once; else nothing is written.
    pub(super) fn forward_together(
        &self,
        statistics: Statistics,
        inputs: Inputs<'_>,
        shapes: &[Shape],
        outputs: &mut [Tensor],
        masks: &mut [Mask],
    ) -> Option<Vec<Vec<ChannelStats>>> {
        let count: u64 = shapes.iter().map(Shape::values_per_channel).sum();
        // One value has no statistics, which is found out before anything is written.
        if statistics == Statistics::Running || !self.is_together(statistics) || count < 2 {
            return None;
        }
        let views = inputs.x.iter().zip(shapes).map(|(tensor, shape)| View { tensor, shape });
        let mut masks = masks.iter_mut();
        let mut ranks: Vec<ForwardRank<'_>> = views
            .zip(outputs)
            .enumerate()
            .map(|(rank, (x, y))| ForwardRank {
                x,
                residual: inputs.residual(rank),
                layer: self.engine_layer(rank),
                y,
                mask: masks.next(),
            })
            .collect();
        let eps = self.config.eps;
        engine::forward(&mut ranks, |local| GlobalStats::finalize(merge_ranks(local), eps).normalization().centering())
    }

    /// Local gradient sums, and gradients of the inputs and residuals, where they can be had at once and the gradients of
    /// the inputs have memory of their own.
    pub(super) fn backward_together<'g>(
        &'g self,
        saved: &SavedForward,
        grad_outputs: impl Iterator<Item = View<'g>>,
        upstreams: &[Upstream<'g>],
        [inputs, residuals]: [Option<&'g mut [Tensor]>; 2],
    ) -> Option<Vec<Vec<GradientSums>>> {
        if !self.is_together(saved.call.statistics) {
            return None;
        }
        let mut residuals = residuals.map(|residuals| residuals.iter_mut());
        let mut ranks: Vec<BackwardRank<'_>> = upstreams
            .iter()
            .zip(grad_outputs)
            .zip(inputs?)
            .enumerate()
            .map(|(rank, ((upstream, g), dx))| BackwardRank {
                g,
                upstream: *upstream,
                layer: self.engine_layer(rank),
                dx,
                grad_residual: residuals.as_mut().and_then(Iterator::next),
            })
            .collect();
        engine::backward(&mut ranks, saved.normalization(0), |normalization, local| {
            normalization.grad_centering(&merge_ranks(local))
        })
    }
}
