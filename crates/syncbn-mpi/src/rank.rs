//! The transport: a rank of a group, as the layers of `syncbn` use it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use syncbn::collective::{Collective, CollectiveError, Gathered, ReduceOp};

use crate::awake;
use crate::flat::Flat;
use crate::group::Group;
use crate::live;
use crate::notice::{Notice, transport};
use crate::raw::Comm;
use crate::tree::Tree;
use crate::wait::Exchange;
use crate::watchdog::Watchdog;

/// How long the members of a new group wait for each other; all have agreed on it just before.
const SPLIT_DEADLINE: Duration = Duration::from_secs(30);

/// This process as a rank of a group, over MPI. Made by [`Mpi::world`](crate::Mpi::world); dropping
/// it leaves the group.
///
/// ```no_run
/// use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
/// use syncbn_mpi::Mpi;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mpi = Mpi::initialize()?;
///     let group = ProcessGroup::new(mpi.world()?);
///     let layer = SyncBatchNorm::new(BatchNormConfig::torch(1),
/// [Device::host()])?.named("bn1").in_group(&group)?;
///     let x = Device::host().upload(&[2, 1], &[group.rank() as f32, 1.0])?;
///     let forward = pollster::block_on(layer.forward_train(&x))?;
///     let mean = forward.saved.statistics().map(|global| global.channels()[0].mean);
///     println!("rank {}: mean of all ranks {mean:?}", group.rank());
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct MpiRank {
    group: Arc<Group>,
}

impl MpiRank {
    pub(crate) fn new(group: Arc<Group>) -> Self {
        Self { group }
    }

    /// Waits until every member is about to make the group of `key`. MPI cannot give up making a
    /// group, so it must not wait for a missing member.
    fn meet(&self, key: u64, members: &[usize]) -> Result<(), CollectiveError> {
        let began = awake::now();
        let own = self.group.comm.rank;
        let peers = || members.iter().copied().filter(|&member| member != own);
        self.group.notify(&mut self.group.lock(), peers(), &Notice::Ready { key });
        loop {
            let mut state = self.group.lock();
            self.group.progress(&mut state);
            let ranks: Vec<usize> =
                peers().filter(|&member| !state.is_ready(key, member)).collect();
            if ranks.is_empty() {
                return Ok(());
            }
            if let Some((rank, panicked)) = state.first_left(&ranks) {
                self.group.break_with(&mut state, &CollectiveError::Left { rank, panicked });
            } else if awake::now().saturating_sub(began) >= SPLIT_DEADLINE {
                self.group.break_with(
                    &mut state,
                    &CollectiveError::Late { ranks, deadline: SPLIT_DEADLINE },
                );
            }
            if let Some(error) = &state.broken {
                return Err(error.clone());
            }
            drop(state);
            std::thread::yield_now();
        }
    }
}

impl Collective for MpiRank {
    fn rank(&self) -> usize {
        self.group.comm.rank
    }

    fn world_size(&self) -> usize {
        self.group.comm.size
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        let mut state = self.group.lock();
        match self.group.begin(&mut state, false) {
            Ok(round) => {
                let course = Flat::begin(&self.group, &mut state, round, message);
                Exchange::new(self.group.clone(), course, round, deadline).boxed()
            }
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn supports_all_reduce(&self) -> bool {
        self.group.comm.size >= self.group.tree_from
    }

    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        let mut state = self.group.lock();
        match self.group.begin(&mut state, true) {
            Ok(round) => {
                let mut exchange =
                    Exchange::new(self.group.clone(), Tree::new(message, op), round, deadline);
                exchange.begin(&mut state);
                drop(state);
                exchange.boxed()
            }
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn abort(&self, message: Vec<u8>) {
        let rank = self.rank();
        self.group.break_with(&mut self.group.lock(), &CollectiveError::Aborted { rank, message });
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        if let Some(error) = &self.group.lock().broken {
            return Err(error.clone());
        }
        if !members.contains(&self.rank()) {
            return Err(transport(format!("rank {} is not among {members:?}", self.rank())));
        }
        self.meet(key, members)?;
        let _limit = Watchdog::new(SPLIT_DEADLINE, "the making of a process group");
        // A tag is one of the 32,768 that every MPI has.
        let made = self.group.comm.subset(members, &self.group.job, (key % 32_768) as i32);
        let comm: Comm = made.map_err(|failure| transport(failure.to_string()))?;
        Ok(Arc::new(Self::new(live::keep(Group::new(
            comm,
            self.group.job.clone(),
            self.group.tree_from,
        )))))
    }
}

impl Drop for MpiRank {
    fn drop(&mut self) {
        self.group.leave();
    }
}
