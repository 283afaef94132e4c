//! A transport with a planted fault, around the crate's own.

use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalRank, Part, ReduceOp};

/// What a transport does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    SwapsTwoMessages,
    CutsLongMessages,
    RepeatsARound,
    IgnoresDeadlines,
    NamesAnotherRank,
    ForgetsThatItBroke,
    HidesLeavers,
    KeepsDroppedFutures,
    SwallowsAborts,
    CutsAbortMessages,
    SplitsIntoItself,
    MergesBackwards,
}

/// The longest wait of a fault that would make the suite wait in vain for its own long deadline.
const SOON: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Broken {
    // Of a rank that hides that it leaves, one more reference stays behind.
    inner: Arc<LocalRank>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    rounds: AtomicUsize,
    broke: AtomicBool,
    last: Mutex<Gathered>,
}

impl Broken {
    pub fn new(rank: LocalRank, fault: Fault) -> Self {
        let inner = Arc::new(rank);
        if fault == Fault::HidesLeavers {
            let _ = ManuallyDrop::new(inner.clone());
        }
        let (rounds, broke, last) = Default::default();
        Self { inner, state: Arc::new(State { fault, rounds, broke, last }) }
    }
}

impl State {
    /// What comes of a round.
    fn result(
        &self,
        result: Result<Gathered, CollectiveError>,
    ) -> Result<Gathered, CollectiveError> {
        let mut gathered = match result {
            Ok(gathered) => gathered,
            Err(CollectiveError::Late { mut ranks, deadline })
                if self.fault == Fault::NamesAnotherRank =>
            {
                ranks[0] += 1;
                return Err(CollectiveError::Late { ranks, deadline });
            }
            Err(CollectiveError::Aborted { rank, mut message })
                if self.fault == Fault::CutsAbortMessages =>
            {
                message.pop();
                return Err(CollectiveError::Aborted { rank, message });
            }
            Err(error) => {
                self.broke.store(true, Ordering::Relaxed);
                return Err(error);
            }
        };
        let last = mem::replace(&mut *self.last.lock().unwrap(), gathered.clone());
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::SwapsTwoMessages => gathered.swap(0, 1),
            Fault::CutsLongMessages => {
                gathered
                    .iter_mut()
                    .for_each(|message| *message = message[..message.len().min(65_535)].into());
            }
            Fault::RepeatsARound if round == 500 => gathered = last,
            _ => {}
        }
        Ok(gathered)
    }
}

impl Collective for Broken {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        let state = self.state.clone();
        if state.fault == Fault::ForgetsThatItBroke && state.broke.load(Ordering::Relaxed) {
            return ready(Ok(Vec::new())).boxed();
        }
        let deadline = match state.fault {
            Fault::IgnoresDeadlines => deadline * 10,
            Fault::HidesLeavers | Fault::KeepsDroppedFutures => deadline.min(SOON),
            _ => deadline,
        };
        let inner = self.inner.all_gather(message, deadline);
        let kept = Kept { inner: Some(inner), keep: state.fault == Fault::KeepsDroppedFutures };
        async move { state.result(kept.await) }.boxed()
    }

    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        if self.state.fault != Fault::MergesBackwards {
            return self.inner.all_reduce(message, op, deadline);
        }
        let gathered = self.inner.all_gather(message, deadline);
        async move {
            let backwards = gathered.await?.into_iter().enumerate().rev();
            let merged = backwards.reduce(|(rank, bytes), (next, others)| {
                (rank, op(Part { rank, bytes: &bytes }, Part { rank: next, bytes: &others }).into())
            });
            Ok(merged.map(|(_, bytes)| bytes).unwrap_or_default())
        }
        .boxed()
    }

    fn abort(&self, message: Vec<u8>) {
        if self.state.fault != Fault::SwallowsAborts {
            self.inner.abort(message);
        }
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        match self.state.fault {
            Fault::SplitsIntoItself => Ok(Arc::new(self.clone())),
            _ => self.inner.split(key, members),
        }
    }
}

/// A future that goes on to wait after it was dropped, where `keep` is set.
struct Kept {
    inner: Option<BoxFuture<'static, Result<Gathered, CollectiveError>>>,
    keep: bool,
}

impl Future for Kept {
    type Output = Result<Gathered, CollectiveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().expect("a future until it is dropped").poll_unpin(context)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.keep {
            mem::forget(self.inner.take());
        }
    }
}
