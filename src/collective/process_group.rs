//! Process groups: a transport with an identity, a deadline, and the memory of having failed.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::frame::{Frame, Header, Payload, Phase};
use super::turns::Turns;
use super::{Collective, CollectiveError, Place, SingleRank};
use crate::error::ExchangeError;

/// Time for which a rank waits for its peers, unless [`ProcessGroup::with_deadline`] sets another.
/// It is longer than any step of a training loop, and short enough to notice that a peer is gone.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The place of a rank that failed outside of its layers' calls. It is a part of the message to its
/// peers.
const OWN_WORK: &str = "it called abort";

/// The ranks among which layers exchange their statistics, seen from one of them. Clones are the
/// same rank.
///
/// All ranks must make their layers in the same order and call them in the same order. When an
/// exchange fails, every rank gets an error that names the layer and the ranks, and the group
/// refuses further work.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    pub(super) transport: Arc<dyn Collective>,
    pub(super) id: u64,
    /// Rank in the outermost group of every rank of this one. Errors name those.
    pub(super) world_ranks: Arc<[usize]>,
    deadline: Duration,
    pub(super) shared: Arc<Shared>,
}

/// State that the clones of a rank share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    layers: AtomicU64,
    /// Exchanges of the group itself.
    pub operations: AtomicU64,
    pub splits: AtomicU64,
    pub turns: Arc<Turns>,
    broken: Mutex<Broken>,
}

/// Whether the group has failed.
#[derive(Debug, Default)]
struct Broken {
    /// The first failure.
    cause: Option<ExchangeError>,
    /// Whether this rank has notified the others.
    is_announced: bool,
}

impl Shared {
    fn broken(&self) -> MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessGroup {
    /// The group of all ranks of a transport.
    pub fn new(transport: impl Collective + 'static) -> Self {
        let world_ranks = (0..transport.world_size()).collect();
        Self::of_transport(Arc::new(transport), 0, world_ranks, DEFAULT_DEADLINE)
    }

    /// A group of one rank: layers in it normalize locally and never communicate.
    pub fn single() -> Self {
        Self::new(SingleRank)
    }

    pub(super) fn of_transport(
        transport: Arc<dyn Collective>,
        id: u64,
        world_ranks: Arc<[usize]>,
        deadline: Duration,
    ) -> Self {
        Self { transport, id, world_ranks, deadline, shared: Arc::default() }
    }

    /// The same rank with another limit for the wait for its peers (30 s by default).
    ///
    /// With a longer deadline, ranks can wait for a rank that is known to be slow:
    ///
    /// ```
    /// use std::time::Duration;
    /// use syncbn::{Error, ProcessGroup};
    ///
    /// async fn epoch(group: &ProcessGroup) -> Result<(), Error> {
    ///     if group.rank() == 0 {
    ///         std::thread::sleep(Duration::from_millis(200)); // validation
    ///     }
    ///     group.clone().with_deadline(Duration::from_secs(60)).barrier().await?;
    ///     group.barrier().await // the next steps, with the deadline of the group
    /// }
    /// # let threads = syncbn::collective::LocalGroup::ranks(2).into_iter().map(|rank| {
    /// #     let group = ProcessGroup::new(rank).with_deadline(Duration::from_millis(50));
    /// #     std::thread::spawn(move || pollster::block_on(epoch(&group)))
    /// # });
    /// # for thread in threads.collect::<Vec<_>>() {
    /// #     thread.join().unwrap()?;
    /// # }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Time for which a rank waits for its peers.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// This rank, 0 .. `world_size`.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// Ranks of the group.
    pub fn world_size(&self) -> usize {
        self.transport.world_size()
    }

    /// The ranks of the outermost group that this one consists of, in order.
    pub fn world_ranks(&self) -> &[usize] {
        &self.world_ranks
    }

    /// The failure for which the group refuses work, if it does.
    pub fn failure(&self) -> Option<ExchangeError> {
        self.shared.broken().cause.clone()
    }

    /// Whether exchanges of one are exchanges of the other. They are for clones of one rank, and if
    /// neither has peers.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
            || (self.world_size() == 1 && other.world_size() == 1)
    }

    /// Notifies the other ranks that this one will not come. Each rank that waits for it, or comes
    /// to wait, gets [`ExchangeError::Aborted`] with the reason at once, before its deadline. The
    /// group refuses further work, here too. Use it for failures that no layer can see, such as a
    /// batch that could not be read. Layers notify the others of their own failures. In a group of
    /// one rank, or after a failure of the group other than one of its transport, it does nothing.
    ///
    /// ```
    /// use syncbn::collective::LocalGroup;
    /// use syncbn::error::{Error, ExchangeError};
    /// use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
    ///
    /// let groups: Vec<_> = LocalGroup::ranks(2).into_iter().map(ProcessGroup::new).collect();
    /// groups[1].abort("batch 7 could not be read");
    /// let host = Device::host();
    /// let config = BatchNormConfig::torch(1);
    /// let layer = SyncBatchNorm::new(config, [host.clone()])?.in_group(&groups[0])?;
    /// let x = host.upload(&[2, 1], &[0.0f32, 2.0])?;
    /// let error = pollster::block_on(layer.forward_train(&x)).unwrap_err();
    /// assert!(matches!(error, Error::Exchange(ExchangeError::Aborted { rank: 1, .. })));
    /// assert!(error.to_string().ends_with("batch 7 could not be read"));
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    pub fn abort(&self, reason: &str) {
        self.fail(self.header(Phase::Forward), &OWN_WORK, reason);
    }

    /// Number of the next layer that is made in the group.
    pub(crate) fn next_layer(&self) -> u64 {
        self.shared.layers.fetch_add(1, Ordering::Relaxed)
    }

    /// The fields of a header that belong to the group.
    pub(crate) fn header(&self, phase: Phase) -> Header {
        let group = self.id;
        let rank = self.rank() as u64;
        Header {
            group,
            rank,
            phase,
            layer: 0,
            name: String::new(),
            step: 0,
            subject: 0,
            channels: 0,
            config: 0,
            state: 0,
            ranks: 0,
            listed: 1,
        }
    }

    /// Refuses work if an exchange has failed before. `at` names the refused work.
    pub(crate) fn check(&self, at: &Place) -> Result<(), ExchangeError> {
        match &self.shared.broken().cause {
            Some(cause) => {
                Err(ExchangeError::Poisoned { at: at.to_string(), cause: cause.to_string() })
            }
            None => Ok(()),
        }
    }

    /// Notifies the peers that this rank has failed. Without peers, or after a failure of the group
    /// other than one of its transport, it does nothing. It does so once.
    pub(crate) fn fail(&self, header: Header, at: &dyn Display, reason: &str) {
        let rank = self.world_rank(self.rank());
        let own = ExchangeError::Aborted { at: at.to_string(), rank, reason: reason.to_owned() };
        self.fail_with(own, header, at, reason);
    }

    /// The same where the error of this rank is another one.
    pub(super) fn fail_with(
        &self,
        own: ExchangeError,
        header: Header,
        at: &dyn Display,
        reason: &str,
    ) {
        if self.world_size() == 1 {
            return;
        }
        // The other ranks find the first failure by themselves, or have been notified of it. A
        // second notice could overtake the messages in which they find it. Only an error of the
        // transport may be this rank's alone.
        let mut broken = self.shared.broken();
        let is_of_all = |cause: &ExchangeError| !matches!(cause, ExchangeError::Transport { .. });
        if broken.is_announced || broken.cause.as_ref().is_some_and(is_of_all) {
            return;
        }
        broken.is_announced = true;
        broken.cause.get_or_insert(own);
        drop(broken);
        self.shared.turns.close();
        self.transport
            .abort(Frame { header, payload: Payload::Abort(format!("{at}: {reason}")) }.encode());
    }

    /// Stores the first failure for good, and returns the given one.
    pub(crate) fn poison(&self, error: ExchangeError) -> ExchangeError {
        self.shared.broken().cause.get_or_insert_with(|| error.clone());
        self.shared.turns.close();
        error
    }

    /// A rank of this group as one of the outermost.
    pub(crate) fn world_rank(&self, rank: usize) -> usize {
        self.world_ranks.get(rank).copied().unwrap_or(rank)
    }

    /// A transport's error with the place and the ranks of the outermost group.
    pub(super) fn named(&self, error: CollectiveError, at: &dyn Display) -> ExchangeError {
        let at = at.to_string();
        match error {
            CollectiveError::Late { ranks, deadline } => {
                let own = ranks.contains(&self.rank());
                let ranks = ranks.into_iter().map(|rank| self.world_rank(rank)).collect();
                ExchangeError::Late { at, ranks, deadline, own }
            }
            CollectiveError::Left { rank, panicked } => {
                ExchangeError::Left { at, rank: self.world_rank(rank), panicked }
            }
            CollectiveError::Aborted { rank, message } => {
                let reason = match Frame::decode(&message).map(|frame| frame.payload) {
                    Ok(Payload::Abort(reason)) => reason,
                    _ => "it gave no reason".to_owned(),
                };
                ExchangeError::Aborted { at, rank: self.world_rank(rank), reason }
            }
            CollectiveError::TooFew { present, missing } => {
                let of_world = |ranks: Vec<usize>| {
                    ranks.into_iter().map(|rank| self.world_rank(rank)).collect()
                };
                ExchangeError::TooFew { at, present: of_world(present), missing: of_world(missing) }
            }
            CollectiveError::LeftBehind { survivors } => {
                let survivors = survivors.into_iter().map(|rank| self.world_rank(rank)).collect();
                ExchangeError::LeftBehind { at, survivors }
            }
            CollectiveError::Transport { message } => ExchangeError::Transport { at, message },
        }
    }
}
