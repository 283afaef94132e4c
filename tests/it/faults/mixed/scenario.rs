//! Trainings drawn by seed: which calls all ranks make, and what one or two of them do wrong at one
//! of these.

use std::time::Duration;

use crate::common::{Batch, Random};
use crate::faults::scenario::Then;
use crate::faults::survivors::Ended;

/// Channels of the two layers.
pub const CHANNELS: [usize; 2] = [2, 3];
/// Steps before the end; the fault is in one of them but the last.
const STEPS: usize = 4;

/// The step with which survivors go on.
pub const STEP: usize = 1000;

/// How a step makes its exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Forward of one layer, and backward of it.
    Single(usize),
    /// Forward and backward of both layers in joint calls.
    Joint,
    /// Statistics, then gradient sums, of both layers, in exchanges that are started together and
    /// awaited in the other order.
    Started,
    /// The state of a layer of rank 0.
    Share(usize),
    /// Sums of the program's values.
    Sum,
    /// Process groups.
    Split,
}

impl Way {
    const ALL: [Self; 9] = [
        Self::Single(0),
        Self::Single(1),
        Self::Joint,
        Self::Joint,
        Self::Started,
        Self::Started,
        Self::Share(0),
        Self::Sum,
        Self::Split,
    ];

    /// Whether it has a forward and a backward pass.
    pub fn passes(self) -> bool {
        matches!(self, Self::Single(_) | Self::Joint | Self::Started)
    }

    /// The layers that take part.
    pub fn layers(self) -> &'static [usize] {
        match self {
            Self::Single(0) | Self::Share(0) => &[0],
            Self::Single(_) | Self::Share(_) => &[1],
            Self::Joint | Self::Started => &[0, 1],
            Self::Sum | Self::Split => &[],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Joint => "joint",
            Self::Started => "started",
            Self::Share(_) => "broadcast of a state",
            Self::Sum => "sum",
            Self::Split => "partition",
        }
    }
}

/// A call of all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: usize,
    pub step: usize,
    pub way: Way,
    /// Of a way with passes: which of both.
    pub forward: bool,
}

/// What a rank does at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Panics before the call.
    Panics,
    /// Panics in the transport, in the middle of the call.
    PanicsInside,
    /// Drops everything.
    Leaves,
    /// Comes after twice the deadline.
    Late,
    /// Drops the call's future after one poll, and leaves.
    DropsCall,
    /// Notifies the others that it has failed, and calls all the same.
    Notifies,
    /// Gives a tensor of the wrong shape.
    BadShape,
    /// Sends bytes that are no message.
    Garbage,
    /// Its GPU is lost before the call.
    LosesDevice,
    /// Its GPU is lost while its message is on its way.
    LosesDeviceInside,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Panics,
        Self::PanicsInside,
        Self::Leaves,
        Self::Late,
        Self::DropsCall,
        Self::Notifies,
        Self::BadShape,
        Self::Garbage,
        Self::LosesDevice,
        Self::LosesDeviceInside,
    ];

    /// Whether it costs the rank a GPU of its own.
    pub fn loses_device(self) -> bool {
        matches!(self, Self::LosesDevice | Self::LosesDeviceInside)
    }

    fn fits(self, call: Call) -> bool {
        !(self.loses_device() || self == Self::BadShape) || call.way.passes()
    }

    /// Whether the others may have the result of the call, and learn of the fault in the next one.
    pub fn may_be_noticed_later(self) -> bool {
        matches!(self, Self::DropsCall | Self::LosesDeviceInside)
    }
}

/// What drives the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Executor {
    Threads,
    Tasks,
    /// All ranks on one thread.
    OneThread,
}

/// Where the ranks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Devices {
    Host,
    /// GPU and host in turn.
    Mixed,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub world_size: usize,
    pub executor: Executor,
    pub devices: Devices,
    pub calls: Vec<Call>,
    /// The call with the fault.
    pub at: usize,
    /// One rank or two, and what each of them does.
    pub faults: Vec<(usize, Fault)>,
    /// Another rank, and what it does while it is agreed who goes on.
    pub second: Option<(usize, Then)>,
    pub deadline: Duration,
}

/// Where nobody is late on purpose, nobody has to wait for it.
const LONG: Duration = Duration::from_secs(10);
/// The same of GPUs: longer than a rank on a busy machine takes, whose GPU is software.
const OF_GPUS: Duration = Duration::from_secs(30);
/// Where a rank is late: longer than a busy machine delays the others.
const SHORT: Duration = Duration::from_millis(800);

impl Scenario {
    /// A fault of a GPU takes a device of its own, so most scenarios are on the host.
    pub fn draw(seed: u64, gpu_of: usize) -> Self {
        let mut random = Random::new(seed ^ 0xfa17);
        let on_gpu = random.below(gpu_of) == 0;
        let world_size = 2 + random.below(if on_gpu { 4 } else { 15 });
        let (calls, at) = Self::draw_calls(&mut random);
        let mut ranks: Vec<usize> = (0..world_size).collect();
        let mut rank = || ranks.swap_remove(random.below(ranks.len()));
        let culprits = [rank(), rank()];
        // Of a group of two somebody must be left, to say what was seen.
        let other = (!ranks.is_empty()).then(|| ranks[random.below(ranks.len())]);
        let count = if other.is_some() { 1 + random.below(2) } else { 1 };
        let mut fault = || loop {
            let fault = Fault::ALL[random.below(Fault::ALL.len())];
            // Twice the deadline is long, that of a GPU above all.
            let is_late = fault == Fault::Late && (on_gpu || random.below(4) > 0);
            let is_possible = !is_late && (on_gpu || !fault.loses_device());
            if is_possible && fault.fits(calls[at]) {
                return fault;
            }
        };
        let faults: Vec<_> = culprits[..count].iter().map(|rank| (*rank, fault())).collect();
        let is_late = faults.iter().any(|(_, fault)| *fault == Fault::Late);
        let then = Then::ALL[random.below(Then::ALL.len())];
        let second = other.filter(|_| random.below(2) == 0).map(|rank| (rank, then));
        Self {
            seed,
            world_size,
            executor: [Executor::Threads, Executor::Tasks, Executor::OneThread][random.below(3)],
            devices: if on_gpu { Devices::Mixed } else { Devices::Host },
            calls,
            at,
            faults,
            second,
            deadline: match (is_late, on_gpu) {
                (true, _) => SHORT,
                (false, true) => OF_GPUS,
                (false, false) => LONG,
            },
        }
    }

    fn draw_calls(random: &mut Random) -> (Vec<Call>, usize) {
        let mut calls = Vec::new();
        for step in 0..STEPS {
            let way = Way::ALL[random.below(Way::ALL.len())];
            for forward in [true, false].into_iter().take(1 + usize::from(way.passes())) {
                calls.push(Call { number: calls.len(), step, way, forward });
            }
        }
        let at = random.below(calls.len() - 1);
        (calls, at)
    }

    pub fn fault(&self, rank: usize) -> Option<Fault> {
        self.faults.iter().find(|(culprit, _)| *culprit == rank).map(|(_, fault)| *fault)
    }

    /// Whether this rank has a GPU.
    pub fn is_gpu(&self, rank: usize) -> bool {
        self.devices == Devices::Mixed
            && (rank.is_multiple_of(2) || self.fault(rank).is_some_and(Fault::loses_device))
    }

    /// The scenario of so many ranks that have gone on.
    pub fn of_survivors(&self, survivors: usize) -> Self {
        Self { world_size: survivors, faults: Vec::new(), ..self.clone() }
    }

    /// What a layer works on in a step: every rank's batch, and its upstream gradient.
    pub fn data(&self, step: usize, layer: usize) -> [Vec<Batch>; 2] {
        let place = (step * CHANNELS.len() + layer) as u64;
        let mut random = Random::new(self.seed.wrapping_mul(1000) + place);
        let dims: Vec<Vec<usize>> = (0..self.world_size)
            .map(|rank| {
                // The first rank always has two values, so that the group has; so has one that
                // loses its device, which would not notice without. Others may have none.
                let drawn = random.below(3);
                let must = rank == 0 || self.fault(rank).is_some_and(Fault::loses_device);
                vec![if must { 2 } else { drawn }, CHANNELS[layer], 1 + random.below(2)]
            })
            .collect();
        [(); 2].map(|()| dims.iter().map(|dims| Batch::random(dims, &mut random)).collect())
    }
}

impl Ended for Scenario {
    fn world_size(&self) -> usize {
        self.world_size
    }

    fn has_fault(&self, rank: usize) -> bool {
        self.fault(rank).is_some()
    }

    fn then(&self, rank: usize) -> Option<Then> {
        self.second.filter(|(second, _)| *second == rank).map(|(_, then)| then)
    }

    fn data_of_survivors(&self, survivors: usize, layer: usize) -> [Vec<Batch>; 2] {
        self.of_survivors(survivors).data(STEP, layer)
    }
}
