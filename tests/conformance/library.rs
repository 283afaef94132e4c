//! Runs a case with the library: in a place, through one of its drivers.

use syncbn::{Device, DeviceGroup, ProcessGroup, SyncBatchNorm};

use crate::message::chain;
use crate::place::{Form, Place};
use crate::scenario::{Group, Observed};
use crate::steps::Driven;
use crate::{agreement, threads};

/// Who calls the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// One caller for all ranks of a group. It knows no process groups: an application that wants several makes a
    /// `DeviceGroup` for each, and so does the runner.
    DeviceGroup,
    /// One caller per rank, each on a thread of its own. Process groups are cut out of the group of all ranks.
    SyncBatchNorm,
}

impl Driver {
    pub const ALL: [Self; 2] = [Self::DeviceGroup, Self::SyncBatchNorm];

    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceGroup => "DeviceGroup",
            Self::SyncBatchNorm => "SyncBatchNorm",
        }
    }
}

/// Runs every step of a case on the first devices of `place`, one per rank; what is observed of each group.
///
/// # Errors
/// What the library says, with the step and the ranks that say it, and when there are fewer devices than ranks.
pub fn observe(case: &[Group], place: &Place, driver: Driver) -> Result<Vec<Vec<Observed>>, String> {
    let world: usize = case.iter().map(|group| group.ranks.len()).sum();
    let devices =
        place.devices.get(..world).ok_or_else(|| format!("{world} ranks, {} devices", place.devices.len()))?;
    match driver {
        Driver::DeviceGroup => case.iter().map(|group| threads::contained(|| in_one_call(group, devices))).collect(),
        Driver::SyncBatchNorm => rank_by_rank(case, devices, place.form),
    }
}

fn in_one_call(group: &Group, devices: &[Device]) -> Result<Vec<Observed>, String> {
    let devices = group.ranks.iter().map(|&rank| devices[rank].clone()).collect();
    let mut caller = DeviceGroup::new(group.scenario.config.clone(), devices).map_err(|error| chain(&error))?;
    Driven { group, members: 0..group.ranks.len() }.observe(&mut caller)
}

fn rank_by_rank(case: &[Group], devices: &[Device], form: Form) -> Result<Vec<Vec<Observed>>, String> {
    let mut ranks = threads::run(devices.len(), |rank, world| {
        let placed = |group| Some((group, place_in(group, rank)?));
        let (group, member) = case.iter().find_map(placed).ok_or("is in no group")?;
        let process_group = process_group(case, group, form, &world)?;
        let (config, device) = (group.scenario.config.clone(), devices[rank].clone());
        let layer = SyncBatchNorm::named(&group.scenario.name, config, device, &process_group);
        Driven { group, members: member..member + 1 }.observe(&mut layer.map_err(|error| chain(&error))?)
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
fn process_group(case: &[Group], group: &Group, form: Form, world: &ProcessGroup) -> Result<ProcessGroup, String> {
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
    let (found, expected) = (made.world_ranks(), &group.ranks[..]);
    if found == expected { Ok(made) } else { Err(format!("is in a group of the ranks {found:?}, not {expected:?}")) }
}
