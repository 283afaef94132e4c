//! The transport among ranks of one process: a rendezvous in shared memory, for threads, tasks, or
//! futures on one thread.

mod answer;
mod roll_call;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, select};

use self::answer::{Asked, Waiting, ask};
use self::roll_call::{RollCall, Vacated};
use super::{Collective, CollectiveError, Gathered, Survivors};
use crate::timer::Timer;

/// Time for which a rank polls for its peers before it sleeps, about the cost of waking up.
const LOOKOUT: Duration = Duration::from_micros(30);

/// How an exchange ends.
type End = Result<Gathered, CollectiveError>;

/// Ranks of one process.
///
/// ```
/// use syncbn::{ProcessGroup, collective::LocalGroup};
/// let ranks = LocalGroup::ranks(4);
/// let groups: Vec<ProcessGroup> = ranks.into_iter().map(ProcessGroup::new).collect();
/// assert_eq!((groups[3].rank(), groups[3].world_size()), (3, 4));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LocalGroup;

impl LocalGroup {
    /// The ranks of a new group, each to be moved to its thread or task.
    pub fn ranks(world_size: usize) -> Vec<LocalRank> {
        let shared = Arc::new(Shared::new(world_size));
        (0..world_size).map(|rank| LocalRank { rank, shared: shared.clone() }).collect()
    }
}

/// One rank of a [`LocalGroup`]. Dropping it leaves the group.
#[derive(Debug)]
pub struct LocalRank {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world_size: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Incomplete rounds. The front one has the number `first_round`.
    rounds: VecDeque<Round>,
    first_round: u64,
    /// Round of each rank's next message.
    next_round: Vec<u64>,
    /// Thread of each rank's last message.
    threads: Vec<Option<ThreadId>>,
    /// Ranks that are gone, and whether they panicked.
    gone: Vec<Option<bool>>,
    broken: Option<CollectiveError>,
    /// Subgroups that not all members have taken yet.
    subgroups: HashMap<(u64, Vec<usize>), Vec<Option<LocalRank>>>,
    /// Whether each rank has aborted: it takes no more places.
    aborted: Vec<bool>,
    roll_call: RollCall,
    /// Ranks that have their answers, to be woken when the lock is released.
    woken: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Round {
    messages: Vec<Option<Arc<[u8]>>>,
    waiting: Vec<Asked<End>>,
}

impl Shared {
    fn new(world_size: usize) -> Self {
        let next_round = vec![0; world_size];
        let threads = vec![None; world_size];
        let gone = vec![None; world_size];
        let aborted = vec![false; world_size];
        let state = State { next_round, threads, gone, aborted, ..State::default() };
        Self { world_size, state: Mutex::new(state) }
    }

    /// Changes the state. Then, without the lock, ranks are woken, and places that nobody will take
    /// leave their subgroups: both may run anything.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let vacated = state.vacate();
        let woken = take(&mut state.woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        vacated.into_iter().for_each(Vacated::leave);
        result
    }
}

impl State {
    /// A rank will send nothing more. Complete rounds stay complete. Ranks that wait for it get an
    /// error.
    fn leave(&mut self, rank: usize, panicked: bool) {
        // It may leave a second time, when the place of a rank that panicked is dropped.
        let panicked = *self.gone[rank].get_or_insert(panicked);
        let awaited = self
            .rounds
            .iter()
            .any(|round| round.messages[rank].is_none() && !round.waiting.is_empty());
        if awaited {
            self.break_with(CollectiveError::Left { rank, panicked });
        }
    }

    /// Puts a message into the rank's next round, and ends the round if it is the last. Returns the
    /// round, the wait for its end, and whether an awaited rank runs on another thread than this
    /// one.
    fn deposit(
        &mut self,
        rank: usize,
        message: Vec<u8>,
    ) -> Result<(u64, Waiting<End>, bool), CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let number = self.next_round[rank];
        let absent = |peer: usize| self.next_round[peer] <= number && peer != rank;
        let gone = self
            .gone
            .iter()
            .enumerate()
            .find_map(|(peer, gone)| gone.filter(|_| absent(peer)).map(|p| (peer, p)));
        if let Some((rank, panicked)) = gone {
            let error = CollectiveError::Left { rank, panicked };
            self.break_with(error.clone());
            return Err(error);
        }
        self.next_round[rank] += 1;
        let index = (number - self.first_round) as usize;
        let world_size = self.next_round.len();
        while self.rounds.len() <= index {
            self.rounds.push_back(Round { messages: vec![None; world_size], waiting: Vec::new() });
        }
        let round = &mut self.rounds[index];
        let (asked, waiting) = ask();
        round.messages[rank] = Some(message.into());
        round.waiting.push(asked);
        let here = thread::current().id();
        self.threads[rank] = Some(here);
        let awaited =
            round.messages.iter().zip(&self.threads).filter(|(message, _)| message.is_none());
        let elsewhere = awaited.filter_map(|(_, thread)| *thread).any(|thread| thread != here);
        // Rounds complete in order, because every rank deposits in order.
        while let Some(gathered) = self
            .rounds
            .front()
            .and_then(|round| round.messages.iter().cloned().collect::<Option<Gathered>>())
        {
            let ended = self.rounds.pop_front().into_iter().flat_map(|round| round.waiting);
            self.woken.extend(ended.filter_map(|asked| asked.give(Ok(gathered.clone()))));
            self.first_round += 1;
        }
        Ok((number, waiting, elsewhere))
    }

    /// Ends everything with an error, the first one for good.
    fn break_with(&mut self, error: CollectiveError) {
        let error = self.broken.get_or_insert(error).clone();
        let ended = self.rounds.drain(..).flat_map(|round| round.waiting);
        self.woken.extend(ended.filter_map(|asked| asked.give(Err(error.clone()))));
    }

    /// The deadline of a round has passed for a rank.
    fn expire(&mut self, number: u64, deadline: Duration) {
        let Some(index) = number.checked_sub(self.first_round) else { return };
        let Some(round) = self.rounds.get(index as usize) else { return };
        let missing = round.messages.iter().enumerate().filter(|(_, message)| message.is_none());
        let ranks = missing.map(|(rank, _)| rank).collect();
        self.break_with(CollectiveError::Late { ranks, deadline });
    }
}

/// Leaves the group unless the exchange ended first.
struct LeaveOnDrop {
    shared: Arc<Shared>,
    rank: usize,
    armed: bool,
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let rank = self.rank;
            let panicked = thread::panicking();
            self.shared.change(|state| {
                state.leave(rank, panicked);
                state.break_with(CollectiveError::Left { rank, panicked });
            });
        }
    }
}

impl Collective for LocalRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.shared.world_size
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        let deposited = self.shared.change(|state| state.deposit(self.rank, message));
        let guard =
            LeaveOnDrop { shared: self.shared.clone(), rank: self.rank, armed: deposited.is_ok() };
        async move {
            // The whole guard moves into the future, so dropping the future drops it.
            let mut guard = guard;
            let (round, waiting, elsewhere) = deposited?;
            // The last rank to come finds the others' messages without a timer.
            let lookout = if elsewhere { LOOKOUT } else { Duration::ZERO };
            if let Some(end) = waiting.look_out(lookout) {
                guard.armed = false;
                return end;
            }
            let end = match select(waiting, Timer::new(deadline)).await {
                Either::Left((end, _)) => end,
                Either::Right(((), waiting)) => {
                    guard.shared.change(|state| state.expire(round, deadline));
                    // Already answered, by the end of the round or by the expiry.
                    waiting.await
                }
            };
            guard.armed = false;
            end
        }
        .boxed()
    }

    fn abort(&self, message: Vec<u8>) {
        self.shared.change(|state| {
            state.break_with(CollectiveError::Aborted { rank: self.rank, message });
            state.aborted[self.rank] = true;
        });
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        let (rank, world_size) = (self.rank, self.world_size());
        if members.iter().any(|&member| member >= world_size) {
            let message = format!("{members:?} are not all ranks of a group of {world_size}");
            return Err(CollectiveError::Transport { message });
        }
        let place = members.iter().position(|&member| member == rank);
        let name = (key, members.to_vec());
        let made = || LocalGroup::ranks(members.len()).into_iter().map(Some).collect();
        let taken = self.shared.change(|state| {
            let places = state.subgroups.entry(name).or_insert_with(made);
            place.and_then(|place| places[place].take())
        });
        let message = format!("rank {rank} takes its place in {members:?} twice, or has none");
        Ok(Arc::new(taken.ok_or(CollectiveError::Transport { message })?))
    }

    fn supports_survivors(&self) -> bool {
        true
    }

    fn survivors(
        &self,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
        roll_call::survivors(self, deadline)
    }
}

impl Drop for LocalRank {
    fn drop(&mut self) {
        let panicked = thread::panicking();
        self.shared.change(|state| {
            state.leave(self.rank, panicked);
            state.depart(self.rank);
        });
    }
}
