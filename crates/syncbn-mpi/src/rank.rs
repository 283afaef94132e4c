//! The transport: a rank of a group, as the layers of `syncbn` use it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use syncbn::collective::{Collective, CollectiveError, Gathered, ReduceOp, Survivors};

use crate::flat::Flat;
use crate::group::Group;
use crate::notice::{Notice, transport};
use crate::raw::Comm;
use crate::tree::Tree;
use crate::wait::{AWAKE, Exchange};
use crate::watchdog::Watchdog;
use crate::{awake, end, live, survive, tag};

/// How long MPI may take to make a group whose members have all come, how long they wait until all
/// are sure of that, and how long for each other where no exchange has said it.
pub(crate) const SPLIT_DEADLINE: Duration = Duration::from_secs(30);

/// How often to look for the members of a new group.
const LOOK: Duration = Duration::from_micros(500);

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
///     let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()])?;
///     let layer = layer.named("bn1").in_group(&group)?;
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

    /// Waits until every member is sure to make the group of `key`. MPI cannot give up making a
    /// group, so it must not wait for a missing member. Returns the tag to make it with.
    ///
    /// The thread waits: for as long as an exchange does until all are ready, and then for
    /// [`SPLIT_DEADLINE`] until all are sure, who look for messages all the time. Messages of other
    /// groups of the process arrive meanwhile.
    fn meet(&self, key: u64, members: &[usize]) -> Result<u64, CollectiveError> {
        let began = awake::now();
        let own = self.group.comm.rank;
        let own_tag = tag::next(&self.group.job);
        let peers: Vec<usize> = members.iter().copied().filter(|&member| member != own).collect();
        let notify = |state: &mut _, notice| {
            self.group.notify(state, peers.iter().copied(), &notice);
        };
        notify(&mut self.group.lock(), Notice::Ready { key, tag: own_tag });
        let mut sure_since = None;
        loop {
            let now = awake::now();
            let waited = now.saturating_sub(began);
            let mut state = self.group.lock();
            self.group.catch_up(&mut state);
            let unready = state.meeting.missing(key, &peers, false);
            // A rank that knows of a missing member is not sure. Nobody enters MPI before all are.
            let may_come = !state.meeting.is_off(key) && state.first_left(&peers).is_none();
            if sure_since.is_none() && unready.is_empty() && may_come {
                sure_since = Some(now);
                notify(&mut state, Notice::Sure { key });
            }
            let missing = match sure_since {
                Some(_) => state.meeting.missing(key, &peers, true),
                None => unready,
            };
            if sure_since.is_some() && missing.is_empty() && !state.meeting.is_off(key) {
                let lowest = members.iter().copied().min().unwrap_or(own);
                let tag = state.meeting.tag(key, lowest).unwrap_or(own_tag);
                state.meeting.forget(key);
                return Ok(tag);
            }
            let deadline = state.deadline.unwrap_or(SPLIT_DEADLINE);
            let is_late = match sure_since {
                Some(since) => now.saturating_sub(since) >= SPLIT_DEADLINE,
                None => waited >= deadline,
            };
            // All have agreed on the group, so a failure of the old one since is no reason to stay
            // away.
            let awaited = if sure_since.is_some() { &missing } else { &peers };
            let error = if let Some((rank, panicked)) = state.first_left(awaited) {
                Some(CollectiveError::Left { rank, panicked })
            } else if state.meeting.is_off(key) {
                // The rank that gave up has said why, or this rank came late.
                let late = CollectiveError::Late { ranks: vec![own], deadline };
                Some(state.broken.clone().unwrap_or(late))
            } else if is_late {
                let deadline = if sure_since.is_some() { waited } else { deadline };
                Some(CollectiveError::Late { ranks: missing, deadline })
            } else {
                None
            };
            if let Some(error) = error {
                // The reason goes first, so that the others report the same.
                self.group.break_with(&mut state, &error);
                notify(&mut state, Notice::Unready { key });
                state.look_after_notices();
                state.meeting.forget(key);
                drop(state);
                self.group.see_off();
                return Err(error);
            }
            drop(state);
            live::look();
            if waited < AWAKE { std::thread::yield_now() } else { std::thread::sleep(LOOK) }
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
        match self.group.begin(&mut state, false, deadline) {
            Ok(round) => {
                let course = Flat::begin(&self.group, &mut state, round, message);
                Exchange::new(self.group.clone(), course, round, deadline).boxed()
            }
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn now(&self) -> Duration {
        awake::now()
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
        match self.group.begin(&mut state, true, deadline) {
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
        self.group.see_off();
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        if !members.contains(&self.rank()) {
            return Err(transport(format!("rank {} is not among {members:?}", self.rank())));
        }
        let tag = self.meet(key, members)?;
        let _limit = Watchdog::new(SPLIT_DEADLINE, "the making of a process group");
        let made = self.group.comm.subset(members, &self.group.job, tag);
        let comm: Comm = made.map_err(|failure| transport(failure.to_string()))?;
        Ok(Arc::new(Self::new(live::keep(Group::new(
            comm,
            self.group.job.clone(),
            self.group.job_ranks(members),
            self.group.tree_from,
        )))))
    }

    fn supports_survivors(&self) -> bool {
        end::recovers()
    }

    fn survivors(
        &self,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
        if end::recovers() {
            return survive::survivors(self.group.clone(), deadline);
        }
        let message = "the launcher ends the job when a rank is gone: start it with Open MPI's \
                       `mpirun --enable-recovery`, or begin again from a checkpoint";
        ready(Err(transport(message.to_owned()))).boxed()
    }
}

impl Drop for MpiRank {
    fn drop(&mut self) {
        self.group.leave();
    }
}
