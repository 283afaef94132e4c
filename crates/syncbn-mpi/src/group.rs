//! A process group as one of its ranks sees it: messages are sent and taken in, exchanges begin,
//! and a failure breaks it.
//!
//! The module `wait` calls [`Group::progress`] repeatedly. The modules `flat` and `tree` know the
//! steps of an exchange. Nothing here waits with the lock held; [`Group::see_off`] and
//! [`Group::leave`] wait for a moment without it.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use syncbn::collective::CollectiveError;

use crate::inbox::take_arrived;
use crate::notice::{Notice, Tag, transport};
use crate::raw::{Comm, Failure};
use crate::{awake, live};
use state::Outgoing;
pub(crate) use state::State;

/// Empty looks after which no message is left. MPI needs one or two, by shared memory and by TCP.
const QUIET_LOOKS: usize = 3;
/// Shorter than any deadline.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How long others may have the lock between two looks after notices.
const BETWEEN_LOOKS: Duration = Duration::from_micros(50);
/// Exchanges of a rank that leaves a broken group: it fails to come to none.
const AFTER_ALL_ROUNDS: u64 = u64::MAX;

/// A communicator and this rank's knowledge of the others on it.
#[derive(Debug)]
pub(crate) struct Group {
    pub comm: Comm,
    /// All ranks of the job: by it MPI makes other communicators.
    pub job: Arc<Comm>,
    /// The ranks of the job that these are.
    pub ranks: Arc<[usize]>,
    /// The smallest number of ranks that all-reduce along the tree.
    pub tree_from: usize,
    state: Mutex<State>,
}

impl Group {
    pub fn new(comm: Comm, job: Arc<Comm>, ranks: Arc<[usize]>, tree_from: usize) -> Arc<Self> {
        Arc::new(Self { comm, job, ranks, tree_from, state: Mutex::default() })
    }

    /// The ranks of the job that these members are, in the order of their new group.
    pub fn job_ranks(&self, members: &[usize]) -> Arc<[usize]> {
        members.iter().filter_map(|&member| self.ranks.get(member).copied()).collect()
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`lock`](Self::lock), without waiting.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    pub fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.comm.rank;
        (0..self.comm.size).filter(move |&peer| peer != rank)
    }

    /// Breaks the group for good, and notifies all others unless they know. A caller that calls MPI
    /// no more then is to [`see_off`](Self::see_off) the notices, without the lock.
    pub fn break_with(&self, state: &mut State, error: &CollectiveError) {
        if state.broken.is_none() {
            state.set_broken(error.clone());
            self.notify_all(state, &Notice::Broken(error.clone()));
            state.look_after_notices();
        }
    }

    /// Where this rank has broken the group: looks until MPI has sent the notices, for a moment.
    pub fn see_off(&self) {
        let until = self.lock().see_off_until.take();
        if let Some(until) = until {
            self.look_until(until);
        }
    }

    /// Looks until MPI has sent all notices, or it is that time. Between looks others may have the
    /// lock.
    fn look_until(&self, until: Instant) {
        loop {
            let is_sent = {
                let mut state = self.lock();
                state.sweep();
                !state.has_notices()
            };
            if is_sent || Instant::now() >= until {
                return;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Notifies all others.
    pub fn notify_all(&self, state: &mut State, notice: &Notice) {
        self.notify(state, self.peers(), notice);
    }

    /// Notifies some. Failed sends are ignored: an unreachable peer finds out by waiting.
    pub fn notify(&self, state: &mut State, peers: impl Iterator<Item = usize>, notice: &Notice) {
        let bytes: Arc<[u8]> = notice.encode().into();
        for peer in peers {
            if let Ok(sending) = self.comm.send(peer, Tag::Notice.to_mpi(), bytes.clone()) {
                state.outgoing.push(Outgoing { round: None, to: peer, sending });
            }
        }
    }

    /// Sends a message of an exchange; a failure breaks the group.
    pub fn send(&self, state: &mut State, round: u64, to: usize, tag: Tag, bytes: Arc<[u8]>) {
        match self.comm.send(to, tag.to_mpi(), bytes) {
            Ok(sending) => state.outgoing.push(Outgoing { round: Some(round), to, sending }),
            Err(failure) => self.break_with(state, &transport(failure.to_string())),
        }
    }

    /// Takes in arrived messages and returns their number. A failure of MPI breaks the group.
    pub fn progress(&self, state: &mut State) -> usize {
        self.try_progress(state).unwrap_or_else(|failure| {
            self.break_with(state, &transport(failure.to_string()));
            0
        })
    }

    /// Takes in all arrived messages. MPI finds a message only after a first look, so one look is
    /// not enough.
    pub fn catch_up(&self, state: &mut State) {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            quiet = if self.progress(state) == 0 { quiet + 1 } else { 0 };
        }
    }

    /// Takes in arrived messages and counts them. Of several failures the first counts, and none
    /// keeps others from being taken in.
    fn try_progress(&self, state: &mut State) -> Result<usize, Failure> {
        let mut found = 0;
        let mut failed = None;
        loop {
            match self.comm.receive(None) {
                Ok(Some((from, tag, receiving))) => {
                    state.arriving.push((from, Tag::from_mpi(tag), receiving));
                    found += 1;
                }
                Ok(None) => break,
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        let (arrived, not_received) = take_arrived(&mut state.arriving);
        for (from, tag, bytes) in arrived {
            self.take_in(state, from, tag, bytes);
        }
        let not_sent = state.sweep();
        live::sweep();
        failed.or(not_received).or(not_sent).map_or(Ok(found), Err)
    }

    fn take_in(&self, state: &mut State, from: usize, tag: Tag, bytes: Arc<[u8]>) {
        if tag != Tag::Notice {
            state.arrived.insert((from, tag), bytes);
            if let Some(error) = state.different_exchange(from, tag, self.comm.rank) {
                self.break_with(state, &error);
            }
            return;
        }
        match Notice::decode(&bytes) {
            // The rank that broke it has notified all.
            Some(Notice::Broken(error)) => state.set_broken(error),
            Some(Notice::Left { rounds, panicked }) => {
                state.gone.insert(from, (rounds, panicked));
            }
            Some(Notice::RollCall { round }) => {
                state.called = Some((round, awake::now()));
                if state.rounds > round {
                    self.notify(state, [from].into_iter(), &Notice::Here { round });
                }
            }
            Some(Notice::Here { round }) => drop(state.here.insert((round, from))),
            Some(Notice::Ready { key, tag }) => state.meeting.ready(key, from, tag),
            Some(Notice::Sure { key }) => state.meeting.sure(key, from),
            Some(Notice::Unready { key }) => state.meeting.unready(key, from),
            Some(notice) => state.roll.take_in(from, notice),
            None => {}
        }
    }

    /// Begins the next exchange and returns its number, unless the group is broken or a rank has
    /// left.
    pub fn begin(
        &self,
        state: &mut State,
        merged: bool,
        deadline: Duration,
    ) -> Result<u64, CollectiveError> {
        // The others may have given up this exchange. A late rank must see that before it uses
        // their messages. One that comes at once from the last exchange is not late.
        let comes_at_once = |ended: Duration| awake::now().saturating_sub(ended) < AT_ONCE;
        if !state.ended.is_some_and(comes_at_once) {
            self.catch_up(state);
        }
        let round = state.rounds;
        self.check_gone(state, round);
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        state.rounds += 1;
        state.deadline = Some(deadline);
        state.under_way.insert(Tag::round(round), merged);
        let early: Vec<_> = state.arrived.keys().copied().collect();
        if let Some(error) = early
            .into_iter()
            .find_map(|(from, tag)| state.different_exchange(from, tag, self.comm.rank))
        {
            self.break_with(state, &error);
        }
        Ok(round)
    }

    /// Breaks the group where a rank has left before this exchange: it has notified all others
    /// itself.
    pub fn check_gone(&self, state: &mut State, round: u64) {
        let gone = state.gone.iter().find(|(_, (rounds, _))| *rounds <= round);
        if let Some((&rank, &(_, panicked))) = gone {
            state.set_broken(CollectiveError::Left { rank, panicked });
        }
    }

    /// This rank will come to no further exchange. Where the group is broken, that is no reason to
    /// report: who broke it has notified all, and this notice may arrive before that one.
    pub fn leave(&self) {
        let mut state = self.lock();
        let rounds = if state.broken.is_some() { AFTER_ALL_ROUNDS } else { state.rounds };
        let notice = Notice::Left { rounds, panicked: std::thread::panicking() };
        self.notify_all(&mut state, &notice);
        drop(state);
        // Other groups look after messages that MPI has not sent by then.
        self.look_until(Instant::now() + AT_ONCE);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        live::send_on(state.outgoing.drain(..).map(|outgoing| outgoing.sending));
    }
}
