//! The local transport wakes nobody while it holds a lock: a waker may run anything, such as an
//! executor that polls the woken future there and then, which uses the group.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use pollster::block_on;
use syncbn::collective::{Collective, CollectiveError, LocalGroup, LocalRank};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(20);

/// A waker that uses its rank when it is woken.
struct Inline {
    rank: Arc<dyn Collective>,
    wakes: AtomicUsize,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        // This rank has no place among no members. To find that out takes the lock.
        assert!(self.rank.split(u64::MAX, &[]).is_err());
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets a future wait, and something happen: it must be woken by that, and be over then.
fn is_woken<T>(rank: Arc<dyn Collective>, future: BoxFuture<'_, T>, event: impl FnOnce()) -> T {
    is_woken_by(rank, future, |_| event())
}

/// The same of a future that waits for its own deadline, however late a machine with other work
/// looks at its clock.
fn is_woken_in_time<T>(rank: Arc<dyn Collective>, future: BoxFuture<'_, T>) -> T {
    let started = Instant::now();
    is_woken_by(rank, future, |wakes| {
        while wakes.load(Ordering::Relaxed) == 0 && started.elapsed() < LONG / 2 {
            thread::sleep(SHORT / 4);
        }
    })
}

fn is_woken_by<T>(
    rank: Arc<dyn Collective>,
    mut future: BoxFuture<'_, T>,
    event: impl FnOnce(&AtomicUsize),
) -> T {
    let inline = Arc::new(Inline { rank, wakes: AtomicUsize::new(0) });
    let waker = Waker::from(inline.clone());
    let mut context = Context::from_waker(&waker);
    assert!(future.poll_unpin(&mut context).is_pending());
    event(&inline.wakes);
    let Poll::Ready(result) = future.poll_unpin(&mut context) else { panic!("it still waits") };
    assert!(inline.wakes.load(Ordering::Relaxed) > 0);
    result
}

/// Runs a body that waits for nothing, in a thread that is left behind if it does.
fn at_once(what: &'static str, body: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    assert!(ended.recv_timeout(LONG).is_ok(), "{what}: it waits for a lock, or has panicked");
}

fn ranks() -> Vec<Arc<LocalRank>> {
    LocalGroup::ranks(3).into_iter().map(Arc::new).collect()
}

#[test]
fn whatever_ends_an_exchange_wakes_its_ranks_without_a_lock() {
    type Event = fn(&mut Vec<Arc<LocalRank>>);
    let events: [(&str, Event); 6] = [
        ("the last message", |ranks| {
            let others = [1, 2].map(|rank| ranks[rank].all_gather(Vec::new(), LONG));
            others.into_iter().for_each(|of_rank| drop(block_on(of_rank)));
        }),
        ("an abort", |ranks| ranks[1].abort(Vec::new())),
        ("a rank that leaves", |ranks| drop(ranks.pop())),
        ("a call that is dropped", |ranks| drop(ranks[1].all_gather(Vec::new(), LONG))),
        ("a deadline", |ranks| {
            assert!(block_on(ranks[1].all_gather(Vec::new(), SHORT)).is_err());
        }),
        ("a rank that asks who goes on", |ranks| drop(ranks[1].survivors(LONG))),
    ];
    for (what, event) in events {
        at_once(what, move || {
            let mut ranks = ranks();
            let rank = ranks[0].clone();
            let waits = ranks[0].all_gather(Vec::new(), LONG);
            let result = is_woken(rank, waits, || event(&mut ranks));
            assert_eq!(result.is_ok(), what == "the last message", "{what}: {result:?}");
        });
    }
    at_once("its own deadline", || {
        let ranks = ranks();
        let waits = ranks[0].all_gather(Vec::new(), SHORT);
        let result = is_woken_in_time(ranks[0].clone(), waits);
        assert_eq!(result, Err(CollectiveError::Late { ranks: vec![1, 2], deadline: SHORT }));
    });
}

#[test]
fn a_decision_on_who_goes_on_wakes_the_ranks_without_a_lock() {
    at_once("the last one to ask", || {
        let ranks = ranks();
        let waits = ranks[0].survivors(LONG);
        let mut second = None;
        let mut third = None;
        let survivors = is_woken(ranks[0].clone(), waits, || {
            second = Some(ranks[1].survivors(LONG));
            third = Some(ranks[2].survivors(LONG));
        });
        assert_eq!(survivors.expect("a group").ranks, [0, 1, 2]);
    });
    at_once("the others are gone", || {
        let mut ranks = ranks();
        let rank = ranks[0].clone();
        let waits = ranks[0].survivors(LONG);
        let survivors = is_woken(rank, waits, || ranks.truncate(1));
        assert_eq!(survivors.expect("a group").ranks, [0]);
    });
    at_once("its own deadline", || {
        let ranks = ranks();
        let waits = ranks[1].survivors(SHORT);
        let result = is_woken_in_time(ranks[1].clone(), waits);
        assert!(matches!(result, Err(CollectiveError::TooFew { .. })), "{result:?}");
    });
}

#[test]
fn a_place_that_nobody_takes_wakes_its_group_without_a_lock() {
    at_once("a rank that leaves", || {
        let mut ranks = ranks();
        let part = ranks[0].split(0, &[0, 2]).expect("a place");
        let waits = part.all_gather(Vec::new(), LONG);
        let result = is_woken(part.clone(), waits, || drop(ranks.pop()));
        assert_eq!(result, Err(CollectiveError::Left { rank: 1, panicked: false }));
    });
}
