//! The suite that every transport must pass, for tests of this crate and of transports elsewhere.
//!
//! A test calls [`run`] on every rank at the same time, on a group made for the check alone,
//! because some checks break it:
//!
//! ```
//! use syncbn::collective::{LocalGroup, conformance};
//!
//! for check in conformance::CHECKS {
//!     let threads = LocalGroup::ranks(3).into_iter().map(|rank| {
//!         std::thread::spawn(move || pollster::block_on(conformance::run(check, Box::new(rank))))
//!     });
//!     for thread in threads.collect::<Vec<_>>() {
//!         thread.join().unwrap()?;
//!     }
//! }
//! # Ok::<(), conformance::Failure>(())
//! ```

use std::sync::Arc;
use std::time::Duration;

use web_time::Instant;

use super::{Collective, CollectiveError, Gathered, Part};

/// A check of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Messages of different lengths, empty ones too, arrive whole and in rank order.
    Messages,
    /// A thousand rounds keep their order while ranks run at different speeds.
    Order,
    /// Messages merge along the canonical tree over ranks, for all the same.
    AllReduce,
    /// A rank that does not come makes all others fail with its name, and breaks the group.
    Late,
    /// A rank that is dropped makes all others fail with its name at once.
    Left,
    /// A future that is dropped before its end counts as leaving.
    Dropped,
    /// An abort reaches all others at once, with its message.
    Abort,
    /// Disjoint groups work at the same time, and break apart from each other.
    Split,
    /// After one rank was dropped, the others go on in a new group. Or all get the error of a
    /// transport that cannot know which ranks live.
    Survivors,
}

/// All checks. Each needs two ranks or more.
pub const CHECKS: [Check; 9] = [
    Check::Messages,
    Check::Order,
    Check::AllReduce,
    Check::Late,
    Check::Left,
    Check::Dropped,
    Check::Abort,
    Check::Split,
    Check::Survivors,
];

/// A failed check of a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check:?} on rank {rank}: found {found}, expected {expected}")]
pub struct Failure {
    /// The check.
    pub check: Check,
    /// The rank that found it.
    pub rank: usize,
    /// The observed result.
    pub found: String,
    /// The required result.
    pub expected: String,
}

/// The deadline of checks in which every message arrives.
const LONG: Duration = Duration::from_secs(20);
/// The deadline of the check in which one message never arrives.
const SHORT: Duration = Duration::from_secs(1);
/// How soon "at once" is: less than [`LONG`], more than a loaded machine delays a thread.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Rounds of [`Check::Order`].
const ROUNDS: usize = 1000;

/// Runs a check on one rank; every rank of the group must run the same one.
///
/// # Errors
/// [`Failure`] says what the transport did wrong.
///
/// # Cancel safety
/// A dropped future drops the rank, which leaves its group.
pub async fn run(check: Check, rank: Box<dyn Collective>) -> Result<(), Failure> {
    let judge = Judge { check, rank: rank.rank() };
    match check {
        Check::Messages => messages(&judge, rank.as_ref()).await,
        Check::Order => order(&judge, rank.as_ref()).await,
        Check::AllReduce => all_reduce(&judge, rank.as_ref()).await,
        Check::Split => split(&judge, rank.as_ref()).await,
        Check::Survivors => survivors(&judge, rank).await,
        Check::Late | Check::Left | Check::Dropped | Check::Abort => absence(&judge, rank).await,
    }
}

struct Judge {
    check: Check,
    rank: usize,
}

impl Judge {
    fn expect<T: PartialEq + std::fmt::Debug>(&self, found: T, expected: T) -> Result<(), Failure> {
        if found == expected {
            return Ok(());
        }
        let found = format!("{found:?}");
        let expected = format!("{expected:?}");
        Err(Failure { check: self.check, rank: self.rank, found, expected })
    }

    fn came<T>(&self, result: Result<T, CollectiveError>) -> Result<T, Failure> {
        let expected = || "the messages of all ranks".to_owned();
        let failure = |error| Failure {
            check: self.check,
            rank: self.rank,
            found: format!("{error:?}"),
            expected: expected(),
        };
        result.map_err(failure)
    }
}

/// The message of a rank in a round.
fn message(rank: usize, round: usize) -> Vec<u8> {
    let length = (rank * 37 + round * 11) % 100;
    [rank as u8, round as u8, (round >> 8) as u8].into_iter().cycle().take(length).collect()
}

async fn round(judge: &Judge, rank: &dyn Collective, round: usize) -> Result<(), Failure> {
    let gathered = judge.came(rank.all_gather(message(rank.rank(), round), LONG).await)?;
    let expected: Gathered =
        (0..rank.world_size()).map(|rank| message(rank, round).into()).collect();
    judge.expect(gathered, expected)
}

async fn messages(judge: &Judge, rank: &dyn Collective) -> Result<(), Failure> {
    for number in 0..20 {
        round(judge, rank, number).await?;
    }
    let large = judge.came(rank.all_gather(vec![rank.rank() as u8; 1 << 20], LONG).await)?;
    judge.expect(
        large.iter().map(|message| message.len()).collect(),
        vec![1 << 20; rank.world_size()],
    )
}

async fn order(judge: &Judge, rank: &dyn Collective) -> Result<(), Failure> {
    for number in 0..ROUNDS {
        if number % 97 == rank.rank() {
            std::thread::yield_now();
        }
        round(judge, rank, number).await?;
    }
    Ok(())
}

/// A reduce operation whose result names both messages that it merged.
fn written(left: Part<'_>, right: Part<'_>) -> Vec<u8> {
    let at = right.rank.to_string();
    [b"(".as_slice(), left.bytes, at.as_bytes(), right.bytes, b")"].concat()
}

/// The result of [`written`] for the ranks `from .. to`. The left part is the largest node of the
/// tree that leaves a rank on the right.
fn tree(from: usize, to: usize, round: usize) -> Vec<u8> {
    if to - from == 1 {
        return message(from, round);
    }
    let middle = from + (to - from).next_power_of_two() / 2;
    let left = tree(from, middle, round);
    let right = tree(middle, to, round);
    written(Part { rank: from, bytes: &left }, Part { rank: middle, bytes: &right })
}

/// Merges and gathers in turn.
async fn all_reduce(judge: &Judge, rank: &dyn Collective) -> Result<(), Failure> {
    for number in 0..20 {
        let merged =
            judge.came(rank.all_reduce(message(rank.rank(), number), written, LONG).await)?;
        judge.expect(&*merged, tree(0, rank.world_size(), number).as_slice())?;
        round(judge, rank, number).await?;
    }
    Ok(())
}

/// After one good round, rank 0 stays away in one way or another.
async fn absence(judge: &Judge, rank: Box<dyn Collective>) -> Result<(), Failure> {
    round(judge, rank.as_ref(), 0).await?;
    let reason = b"out of memory".to_vec();
    let (deadline, expected) = match judge.check {
        Check::Late => (SHORT, CollectiveError::Late { ranks: vec![0], deadline: SHORT }),
        Check::Abort => (LONG, CollectiveError::Aborted { rank: 0, message: reason.clone() }),
        _ => (LONG, CollectiveError::Left { rank: 0, panicked: false }),
    };
    if rank.rank() == 0 {
        match judge.check {
            Check::Left => drop(rank),
            Check::Dropped => {
                drop(rank.all_gather(Vec::new(), LONG));
                // Stays, so that nothing else notifies the others.
                return judge.expect(rank.all_gather(Vec::new(), LONG).await, Err(expected));
            }
            Check::Abort => rank.abort(reason),
            // Comes after the others have given up, and gets their error.
            _ => {
                crate::timer::Timer::new(SHORT * 3).await;
                let late = rank.all_gather(Vec::new(), LONG).await;
                return judge.expect(late, Err(expected));
            }
        }
        return Ok(());
    }
    let began = Instant::now();
    let mut first = rank.all_gather(Vec::new(), deadline).await;
    if judge.check == Check::Dropped && first.is_ok() {
        // Rank 0 came last, so that its message completed the round before its future was dropped.
        first = rank.all_gather(Vec::new(), deadline).await;
    }
    judge.expect(first, Err(expected.clone()))?;
    judge.expect(began.elapsed() < AT_ONCE, true)?;
    // The group stays broken, and says so without waiting.
    judge.expect(rank.all_gather(Vec::new(), LONG).await, Err(expected))
}

/// The even ranks and the odd ones.
async fn split(judge: &Judge, rank: &dyn Collective) -> Result<(), Failure> {
    let members: Vec<usize> =
        (0..rank.world_size()).filter(|member| member % 2 == rank.rank() % 2).collect();
    let failure = |error: CollectiveError| Failure {
        check: judge.check,
        rank: judge.rank,
        found: error.to_string(),
        expected: "a group of its own".to_owned(),
    };
    let part: Arc<dyn Collective> = rank.split(7, &members).map_err(failure)?;
    judge.expect(part.world_size(), members.len())?;
    judge.expect(members[part.rank()], rank.rank())?;
    // The odd ranks take more rounds than the even ones, and then break their group.
    for number in 0..10 + 10 * (rank.rank() % 2) {
        round(judge, part.as_ref(), number).await?;
    }
    if rank.rank() == 1 {
        part.abort(Vec::new());
    }
    // The group that they were made of still works, for all.
    round(judge, rank, 3).await
}

/// Rank 0 leaves after one good round. All others survive.
async fn survivors(judge: &Judge, rank: Box<dyn Collective>) -> Result<(), Failure> {
    round(judge, rank.as_ref(), 0).await?;
    if rank.rank() == 0 {
        return Ok(());
    }
    judge.expect(rank.all_gather(Vec::new(), LONG).await.is_err(), true)?;
    match rank.survivors(LONG).await {
        Ok(found) => {
            let ranks: Vec<usize> = (1..rank.world_size()).collect();
            judge.expect(found.transport.rank(), rank.rank() - 1)?;
            judge.expect(found.transport.world_size(), ranks.len())?;
            judge.expect(found.ranks, ranks)?;
            round(judge, found.transport.as_ref(), 1).await
        }
        Err(CollectiveError::Transport { .. }) => Ok(()),
        Err(error) => judge.expect(format!("{error:?}"), "a group of the others".to_owned()),
    }
}
