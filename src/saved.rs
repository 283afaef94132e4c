//! The data that forward keeps for backward: statistics, and the identity of the call's tensors.
//! Activations are not kept.

use std::sync::Arc;

use crate::base::Base;
use crate::config::Statistics;
use crate::engine::resident::Centers;
use crate::engine::{Kept, Mask};
use crate::error::{ArgumentError, indexed, position};
use crate::shape::{Padding, Shape};
use crate::stats::{ForwardReport, GlobalStatistics, Grid, Normalization, PerRank};
use crate::tensor::{Seen, Tensor};

/// The data that a forward call saves for the backward pass of the same layer. Clones are the same.
///
/// It holds the statistics that normalized. It holds a mask of one bit per value if
/// [`activation_mask`](crate::BatchNormConfig::activation_mask) asks for one. It holds no
/// activation: backward takes the inputs again, unchanged, and recognizes them. y is not needed.
///
/// Every call has its own, so a layer may run several times before backward. Settings that change
/// in between hold for later calls.
#[derive(Clone, Debug)]
pub struct Saved {
    call: Arc<SavedCall>,
    of: Normalized,
}

/// The statistics that normalized, on the host or on the device.
#[derive(Clone, Debug)]
enum Normalized {
    OnHost(Arc<OnHost>),
    OnDevice(Arc<OnDevice>),
}

/// Statistics that stayed on the device.
#[derive(Debug)]
pub(crate) struct OnDevice {
    pub centers: Centers,
    /// `None` where the call took the caller's running statistics.
    pub mean_and_inv_std: Option<PerRank<[Tensor; 2]>>,
}

/// Statistics that came to the host.
#[derive(Debug)]
pub(crate) struct OnHost {
    /// By which peers know that they differentiate the same call.
    pub subject: u64,
    pub normalization: PerRank<Normalization>,
    pub global: Option<GlobalStatistics>,
    /// By which x became integers, where its sums were of such.
    pub grids: Option<PerRank<Vec<Grid>>>,
    pub report: ForwardReport,
}

/// By what a forward call is recognized, and the masks that it filled.
#[derive(Debug)]
pub(crate) struct SavedCall {
    layer: u64,
    /// The layer's `id` before it was in any other group.
    first_id: u64,
    /// Weight and bias of each rank, or those of all.
    parameters: Vec<Option<Seen>>,
    x: Vec<Seen>,
    /// Those that backward needs again.
    residual: Vec<Seen>,
    /// The buffers that forward keeps on the devices.
    pub kept: Kept,
    /// Which positions of each rank count, where not all do.
    pub padding: Vec<Option<Arc<Padding>>>,
    pub statistics: Statistics,
}

impl SavedCall {
    /// Made before the call reads anything, so that nothing it reads is written unseen; the masks
    /// come later.
    pub fn new(
        base: &Base,
        x: &[&Tensor],
        residual: &[&Tensor],
        statistics: Statistics,
        keeps_mask: bool,
    ) -> Self {
        // A residual that is only added has no part in any gradient, and one whose part a mask has
        // is not read again.
        let decides = base.config.epilogue().activates() && !keeps_mask;
        let seen = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.seen()).collect();
        let x = seen(x);
        let residual = seen(if decides { residual } else { &[] });
        Self {
            layer: base.id,
            first_id: base.first_id,
            parameters: base.seen_parameters(),
            x,
            residual,
            kept: Kept::default(),
            padding: Vec::new(),
            statistics,
        }
    }

    pub fn needs_residual(&self) -> bool {
        !self.residual.is_empty()
    }

    /// The shapes of x, with the padding of each rank.
    pub fn padded(&self, shapes: Vec<Shape>) -> Vec<Shape> {
        let of_ranks = shapes.into_iter().zip(&self.padding);
        of_ranks.map(|(shape, padding)| shape.with_padding(padding.clone())).collect()
    }

    /// Refuses another layer, parameters set since, and other tensors: where they are `recomputed`,
    /// those of another form.
    pub fn check(
        &self,
        base: &Base,
        x: &[&Tensor],
        residual: &[&Tensor],
        recomputed: bool,
    ) -> Result<(), ArgumentError> {
        let refuse = |argument: String, reason| Err(ArgumentError::NotSaved { argument, reason });
        if self.first_id != base.first_id {
            return refuse(
                "saved".to_owned(),
                "it is of another layer; give what a forward call of this layer returned",
            );
        }
        if self.layer != base.id {
            return refuse(
                "saved".to_owned(),
                "the layer has been moved to another group since; run forward again",
            );
        }
        if self.x.len() != x.len() {
            return refuse("x".to_owned(), "that had another number of ranks; run forward again");
        }
        if !base.has_parameters(&self.parameters) {
            return refuse(
                "weight or bias".to_owned(),
                "parameters were set since; run forward again",
            );
        }
        for (argument, tensors, all) in [("x", x, &self.x), ("residual", residual, &self.residual)]
        {
            for (rank, (tensor, seen)) in tensors.iter().zip(all).enumerate() {
                let name = || indexed(argument, position(rank, all.len()));
                if recomputed && !seen.is_like(tensor) {
                    return refuse(
                        name(),
                        "it has other dimensions, or another layout or type; run forward again",
                    );
                }
                if !recomputed && !seen.is(tensor) {
                    return refuse(
                        name(),
                        "it is another tensor; give that one, or say `recomputed()` if this one \
                        holds the same values",
                    );
                }
                if !recomputed && seen.is_written(tensor) {
                    let reason = match argument {
                        "x" => {
                            "it was written since, as a forward call in place does; run forward \
                             again"
                        }
                        _ => "it was written since; run forward again",
                    };
                    return refuse(name(), reason);
                }
            }
        }
        Ok(())
    }
}

impl Saved {
    pub(crate) fn of_host(call: SavedCall, of: OnHost) -> Self {
        Self { call: call.into(), of: Normalized::OnHost(of.into()) }
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn of_device(call: SavedCall, of: OnDevice) -> Self {
        Self { call: call.into(), of: Normalized::OnDevice(of.into()) }
    }

    pub(crate) fn call(&self) -> &SavedCall {
        &self.call
    }

    /// The statistics on the host; an error if a `BatchNorm` saved them.
    pub(crate) fn on_host(&self) -> Result<&OnHost, ArgumentError> {
        match &self.of {
            Normalized::OnHost(of) => Ok(of),
            Normalized::OnDevice(_) => {
                Err(of_another_kind("a BatchNorm saved it; give it to that layer"))
            }
        }
    }

    /// The statistics on the device; an error if a `SyncBatchNorm` saved them.
    pub(crate) fn on_device(&self) -> Result<&Centers, ArgumentError> {
        match &self.of {
            Normalized::OnDevice(of) => Ok(&of.centers),
            Normalized::OnHost(_) => {
                Err(of_another_kind("a SyncBatchNorm saved it; give it to that layer"))
            }
        }
    }

    /// Keeps its memory from later calls of the device, unless it is of a workspace.
    pub(crate) fn retain(&self) {
        self.call.kept.masks.iter().for_each(Mask::retain);
        if let Normalized::OnDevice(of) = &self.of {
            of.centers.retain();
        }
    }

    /// The statistics of all ranks that normalized. `None` if each rank used its own statistics or
    /// the running ones, and if the statistics are on the device.
    pub fn statistics(&self) -> Option<&GlobalStatistics> {
        self.on_host().ok()?.global.as_ref()
    }

    /// Local statistics and times of the call. `None` if nothing was read back.
    pub fn report(&self) -> Option<&ForwardReport> {
        self.on_host().ok().map(|of| &of.report)
    }

    /// Mean and 1/√(var + eps), (C) f32 each, with which a [`BatchNorm`](crate::BatchNorm)
    /// normalized a rank. They lie on the device.
    ///
    /// `None` for a [`SyncBatchNorm`](crate::SyncBatchNorm), whose [`statistics`](Self::statistics)
    /// are on the host, and for a call that took the caller's
    /// [running statistics](crate::Forward::running_stats). The values are there once the pass has
    /// run. They stay as long as a clone of this or a handle of one of them exists.
    pub fn mean_and_inv_std(&self, rank: usize) -> Option<[&Tensor; 2]> {
        match &self.of {
            Normalized::OnDevice(of) if rank < self.call.x.len() => {
                Some(of.mean_and_inv_std.as_ref()?.of(rank).each_ref())
            }
            _ => None,
        }
    }

    /// Whether backward needs the residual of the call again. The residual decides the sign of the
    /// value that enters the activation. A mask makes it unnecessary.
    pub fn needs_residual(&self) -> bool {
        self.call.needs_residual()
    }

    /// Bytes of device or host memory that the masks of the call take, which it keeps for backward.
    /// Beside them it keeps statistics, and of padded samples 4 bytes each.
    pub fn mask_bytes(&self) -> u64 {
        self.call.kept.masks.iter().map(Mask::size_bytes).sum()
    }
}

fn of_another_kind(reason: &'static str) -> ArgumentError {
    ArgumentError::NotSaved { argument: "saved".to_owned(), reason }
}
