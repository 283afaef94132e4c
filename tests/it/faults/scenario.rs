//! A training run of a few ranks in which one of them, the culprit, does something wrong at one
//! call.
//!
//! Every rank has two layers, `first` and `second`. A step is four calls, each with an exchange:
//! forward of both, then backward in the opposite order.

use std::time::Duration;

use syncbn::BatchNormConfig;

use crate::common::{Batch, Random};
use crate::faults::survivors::Ended;

/// Calls of a step.
pub const CALLS: usize = 4;
/// Steps of a run. The last one is without a fault.
pub const STEPS: usize = 3;
/// Channels of the two layers.
const CHANNELS: [usize; 2] = [2, 3];

/// What the culprit does instead of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Comes after twice the deadline.
    Late,
    /// Panics before the call.
    Panics,
    /// Panics in the transport, in the middle of the call.
    PanicsInside,
    /// Gives a tensor of the wrong shape.
    BadShape,
    /// Drops the call's future before it has run at all, and then everything else.
    DropsUnpolled,
    /// Drops the call's future in the exchange, and stays.
    DropsDuring,
    /// Drops its layers and its group.
    Leaves,
    /// Notifies the others that it has failed, and calls all the same.
    Notifies,
    /// Calls the other layer.
    OtherLayer,
    /// Calls backward for forward, or forward for backward.
    OtherPhase,
    /// Calls forward for recomputing where the others train.
    Recomputes,
    /// Calls backward of the layer's forward call of the step before.
    OtherForward,
    /// Has made the layer with another number of channels.
    OtherChannels,
    /// Has made the layer with another eps.
    OtherEps,
    /// Evaluates instead, which does not communicate, and is late then.
    Evaluates,
    /// Sends bytes that are not a frame.
    Garbage,
}

impl Fault {
    pub const ALL: [Self; 16] = [
        Self::Late,
        Self::Panics,
        Self::PanicsInside,
        Self::BadShape,
        Self::DropsUnpolled,
        Self::DropsDuring,
        Self::Leaves,
        Self::Notifies,
        Self::OtherLayer,
        Self::OtherPhase,
        Self::Recomputes,
        Self::OtherForward,
        Self::OtherChannels,
        Self::OtherEps,
        Self::Evaluates,
        Self::Garbage,
    ];

    /// Whether the others have to wait for the deadline.
    pub fn is_late(self) -> bool {
        matches!(self, Self::Late | Self::Evaluates)
    }

    /// Whether it can be planted at a call of the run.
    pub fn fits(self, call: Call) -> bool {
        match self {
            // What differs from the beginning is found at the layer's first exchange.
            Self::OtherChannels | Self::OtherEps => call.forward && call.step == 0,
            Self::Evaluates | Self::Recomputes => call.forward,
            Self::OtherForward => !call.forward && call.step > 0,
            // Backward needs a forward call before it.
            Self::OtherPhase => !call.forward || call.step > 0,
            _ => true,
        }
    }
}

/// What a second rank does after its error, while the others agree on who goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Then {
    /// Panics instead of going on.
    Panics,
    /// Drops its layers and its group instead.
    Leaves,
    /// Asks who goes on, drops the future at its first wait, and leaves. If that call ends at once,
    /// this rank goes on with the others.
    DropsSurvivors,
    /// Asks after the others have waited for some time.
    IsSlow,
}

impl Then {
    pub const ALL: [Self; 4] = [Self::Panics, Self::Leaves, Self::DropsSurvivors, Self::IsSlow];
}

/// What drives the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    Threads,
    Tasks,
}

/// A call of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: usize,
    pub step: usize,
    pub forward: bool,
    pub layer: usize,
}

impl Call {
    pub fn new(number: usize) -> Self {
        let step = number / CALLS;
        let place = number % CALLS;
        Self { number, step, forward: place < 2, layer: [0, 1, 1, 0][place] }
    }

    /// The calls at which a fault may be planted.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CALLS * (STEPS - 1)).map(Self::new)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub world_size: usize,
    pub culprit: usize,
    pub fault: Fault,
    /// Another rank, and what it does then.
    pub second: Option<(usize, Then)>,
    pub call: Call,
    pub deadline: Duration,
    pub executor: Executor,
    pub seed: u64,
}

impl Scenario {
    /// What a call works on: every rank's batch, and its upstream gradient.
    pub fn data(&self, step: usize, layer: usize) -> [Vec<Batch>; 2] {
        self.drawn(self.world_size, step, layer)
    }

    fn drawn(&self, world_size: usize, step: usize, layer: usize) -> [Vec<Batch>; 2] {
        let mut random =
            Random::new(self.seed.wrapping_mul(1000) + (step * CHANNELS.len() + layer) as u64);
        let dims: Vec<Vec<usize>> = (0..world_size)
            // The first rank always has two values, so that the group has; others may have none.
            .map(|rank| {
                vec![
                    if rank == 0 { 2 } else { random.below(3) },
                    CHANNELS[layer],
                    1 + random.below(2),
                ]
            })
            .collect();
        [(); 2].map(|()| dims.iter().map(|dims| Batch::random(dims, &mut random)).collect())
    }

    pub fn name(layer: usize) -> &'static str {
        ["first", "second"][layer]
    }

    /// How a rank makes a layer.
    pub fn config(&self, rank: usize, layer: usize) -> BatchNormConfig {
        let planted = rank == self.culprit && layer == self.call.layer;
        match self.fault {
            Fault::OtherChannels if planted => BatchNormConfig::torch(CHANNELS[layer] + 1),
            Fault::OtherEps if planted => BatchNormConfig::torch(CHANNELS[layer]).with_eps(1e-3),
            _ => BatchNormConfig::torch(CHANNELS[layer]),
        }
    }
}

impl Ended for Scenario {
    fn world_size(&self) -> usize {
        self.world_size
    }

    fn has_fault(&self, rank: usize) -> bool {
        rank == self.culprit
    }

    fn then(&self, rank: usize) -> Option<Then> {
        self.second.filter(|(second, _)| *second == rank).map(|(_, then)| then)
    }

    fn data_of_survivors(&self, survivors: usize, layer: usize) -> [Vec<Batch>; 2] {
        self.drawn(survivors, STEPS, layer)
    }
}
