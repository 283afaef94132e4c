//! Sums of integers of ranks on one GPU, on their way to where those of all ranks lie.

use super::super::gpu::{Slices, record_sums};
use super::Centers;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Memory, Recorder};
use crate::plan::{Merge, Role, Section, SumsPlan, Taken};

/// The sums of all ranks, with their plans and memory.
pub(super) struct Integers {
    all: Lease,
    /// `None` for a rank without values.
    ranks: Vec<Option<OfRank>>,
}

/// The plan of one rank, and the memory of its sums.
struct OfRank {
    plan: Box<SumsPlan>,
    tiles: Lease,
    sections: Vec<BufferSlice>,
}

impl Integers {
    /// For the plans of the ranks, with memory for the sections that are taken.
    pub fn new(
        gpu: &Gpu,
        memory: Option<&Memory>,
        merge: &Merge,
        plans: Vec<Option<Box<SumsPlan>>>,
        sections: &[Section],
    ) -> Result<Self, Error> {
        let all = gpu.scratch_of(memory, merge.integers_bytes())?;
        let of_rank = |(rank, plan): (usize, Option<Box<SumsPlan>>)| {
            let Some(plan) = plan else { return Ok(None) };
            let tiles = gpu.scratch_of(memory, plan.tiles_bytes)?;
            let slots = sections.iter().map(|&section| merge.integers_slot(rank, section));
            let sections = slots.map(|slot| all.part(slot)).collect();
            Ok(Some(OfRank { plan, tiles, sections }))
        };
        let ranks = plans.into_iter().enumerate().map(of_rank).collect::<Result<_, Error>>()?;
        Ok(Self { all, ranks })
    }

    /// Records the kernels that take something of a rank's values into a section.
    pub fn record(
        &self,
        recorder: &mut Recorder<'_>,
        rank: usize,
        (taken, section): (Taken, Section),
        slices: Slices<'_>,
    ) {
        let Some(OfRank { plan, tiles, sections }) = &self.ranks[rank] else { return };
        let local = &sections[section as usize];
        record_sums(recorder, &plan.taking(taken), Some(tiles), local, |role| slices.role(role));
    }

    /// The slice of a role of a kernel that merges them; `slice` gives those of other roles.
    pub fn role<'a>(
        &'a self,
        role: Role,
        centers: &'a Centers,
        slice: impl Fn(Role) -> &'a BufferSlice,
    ) -> &'a BufferSlice {
        match role {
            Role::Locals => &self.all,
            Role::RankWeights => &centers.rank_weights,
            _ => slice(role),
        }
    }
}
