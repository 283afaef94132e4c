//! Runs a case with the library: in a place, through one of its drivers.

use syncbn::{BatchNorm, Device, ProcessGroup, SyncBatchNorm};

use crate::caller::Synchronized;
use crate::message::chain;
use crate::on_device::OnDevice;
use crate::place::{Form, Place};
use crate::scenario::{Group, Observed};
use crate::steps::Driven;
use crate::{agreement, threads};

/// Who calls the library, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// One caller for all ranks of a group. It knows no process groups: an application that wants
    /// several makes a layer for each, and so does the runner.
    OneCaller,
    /// One caller per rank, each on a thread of its own. Process groups are cut out of the group of
    /// all ranks.
    EachRank,
    /// One caller for all ranks, which takes the three steps of a training pass by hand.
    OneByHand,
    /// One caller per rank: those of even ranks take the steps by hand, and exchange with the whole
    /// passes of the others.
    EachInTurn,
    /// One layer on one device, whose tensors are the ranks. It merges in f32, so that its bits are
    /// its own.
    OnDevice,
}

impl Driver {
    /// Those that give the same bits.
    pub const ALIKE: [Self; 4] =
        [Self::OneCaller, Self::EachRank, Self::OneByHand, Self::EachInTurn];

    /// Of those the ones that a place has: sums of integers have rounds of their own by hand, which
    /// `tests/reproducible` takes, also over several callers with GPUs.
    pub fn alike(place: &Place) -> &'static [Self] {
        match (place.reproducible, place.devices.iter().all(syncbn::Device::is_host)) {
            (false, _) => &Self::ALIKE,
            (true, true) => &Self::ALIKE[..2],
            (true, false) => &Self::ALIKE[..1],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::OneCaller => "one caller",
            Self::EachRank => "each rank",
            Self::OneByHand => "one, by hand",
            Self::EachInTurn => "each, in turn",
            Self::OnDevice => "on the device",
        }
    }

    fn is_by_hand(self, rank: usize) -> bool {
        match self {
            Self::OneCaller | Self::EachRank | Self::OnDevice => false,
            Self::OneByHand => true,
            Self::EachInTurn => rank.is_multiple_of(2),
        }
    }
}

/// Runs every step of a case on the first devices of `place`, one per rank; what is observed of
/// each group.
///
/// # Errors
/// What the library says, with the step and the ranks that say it, and when there are fewer devices
/// than ranks.
pub fn observe(
    case: &[Group],
    place: &Place,
    driver: Driver,
) -> Result<Vec<Vec<Observed>>, String> {
    let world: usize = case.iter().map(|group| group.ranks.len()).sum();
    let devices = place
        .devices
        .get(..world)
        .ok_or_else(|| format!("{world} ranks, {} devices", place.devices.len()))?;
    match driver {
        Driver::OneCaller | Driver::OneByHand => case
            .iter()
            .map(|group| threads::contained(|| in_one_call(group, (devices, place), driver)))
            .collect(),
        Driver::OnDevice => {
            let of = |group| threads::contained(|| on_device(group, &devices[0], place));
            case.iter().map(of).collect()
        }
        Driver::EachRank | Driver::EachInTurn => rank_by_rank(case, (devices, place), driver),
    }
}

fn in_one_call(
    group: &Group,
    (devices, place): (&[Device], &Place),
    driver: Driver,
) -> Result<Vec<Observed>, String> {
    let devices = group.ranks.iter().map(|&rank| devices[rank].clone());
    let config = group.scenario.config.clone().with_reproducible(place.reproducible);
    let layer = SyncBatchNorm::new(config, devices).map_err(|error| chain(&error))?;
    let mut caller = Synchronized { layer, by_hand: driver.is_by_hand(0) };
    Driven { group, members: 0..group.ranks.len() }.observe(&mut caller)
}

fn on_device(group: &Group, device: &Device, place: &Place) -> Result<Vec<Observed>, String> {
    let ranks = group.ranks.len();
    let config = group.scenario.config.clone().with_reproducible(place.reproducible);
    let layer = BatchNorm::new(config, device).map_err(|error| chain(&error))?;
    Driven { group, members: 0..ranks }.observe(&mut OnDevice { layer, ranks })
}

fn rank_by_rank(
    case: &[Group],
    (devices, place): (&[Device], &Place),
    driver: Driver,
) -> Result<Vec<Vec<Observed>>, String> {
    let mut ranks = threads::run(devices.len(), |rank, world| {
        let placed = |group| Some((group, place_in(group, rank)?));
        let (group, member) = case.iter().find_map(placed).ok_or("is in no group")?;
        let process_group = process_group(case, group, place.form, &world)?;
        let config = group.scenario.config.clone().with_reproducible(place.reproducible);
        let device = devices[rank].clone();
        let layer = SyncBatchNorm::new(config, [device]);
        let layer =
            layer.and_then(|layer| layer.named(&group.scenario.name).in_group(&process_group));
        let layer = layer.map_err(|error| chain(&error))?;
        let mut caller = Synchronized { layer, by_hand: driver.is_by_hand(member) };
        Driven { group, members: member..member + 1 }.observe(&mut caller)
    })?;
    let mut joined = |group: &Group| {
        let members = group.ranks.iter().map(|&rank| std::mem::take(&mut ranks[rank]));
        agreement::join(group, members.collect())
    };
    Ok(case.iter().map(&mut joined).collect())
}

fn place_in(group: &Group, rank: usize) -> Option<usize> {
    group.ranks.iter().position(|&member| member == rank)
}

/// This rank's process group: the world itself where the case has no other group.
fn process_group(
    case: &[Group],
    group: &Group,
    form: Form,
    world: &ProcessGroup,
) -> Result<ProcessGroup, String> {
    if case.len() == 1 {
        return Ok(world.clone());
    }
    let lists: Vec<Vec<usize>> = case.iter().map(|group| group.ranks.clone()).collect();
    let made = pollster::block_on(async {
        match form {
            Form::Partition => world.partition(&lists).await,
            Form::Subgroup => world.subgroup(&group.ranks).await,
        }
    });
    let made = made.map_err(|error| chain(&error))?;
    let found = made.world_ranks();
    let expected = &group.ranks[..];
    if found == expected {
        Ok(made)
    } else {
        Err(format!("is in a group of the ranks {found:?}, not {expected:?}"))
    }
}
