//! Two groups that are made at once: ranks meet in the order in which they asked for them.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use futures::future::{BoxFuture, join};
use pollster::block_on;
use syncbn::{Error, ProcessGroup};

use crate::common::process_groups;
use crate::process_groups::LONG;

type Made = BoxFuture<'static, Result<ProcessGroup, Error>>;

/// Both ranks, as a group made of the group.
fn both(group: &ProcessGroup) -> Made {
    let group = group.clone();
    async move { group.subgroup(&[0, 1]).await }.boxed()
}

/// A future that goes on at once when it is woken, as another thread may do.
struct Eager(Mutex<(Made, Option<Result<ProcessGroup, Error>>)>);

impl Eager {
    fn advance(self: &Arc<Self>) {
        let mut state = self.0.lock().unwrap();
        let (future, made) = &mut *state;
        let waker = Waker::from(self.clone());
        if let Poll::Ready(found) = future.poll_unpin(&mut Context::from_waker(&waker)) {
            *made = Some(found);
        }
    }
}

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        self.advance();
    }
}

#[test]
fn groups_that_are_made_at_once_are_those_that_the_other_ranks_made_in_that_order() {
    let groups = process_groups(2, LONG);
    let mut other_first = both(&groups[1]);
    assert!((&mut other_first).now_or_never().is_none(), "rank 0 has not come");
    let mut first = both(&groups[0]);
    assert!((&mut first).now_or_never().is_none(), "rank 1 does not have its place");
    // It takes its place within the end of the first, as soon as that has passed its turn.
    let second = Arc::new(Eager(Mutex::new((both(&groups[0]), None))));
    second.advance();
    let other_first = other_first.now_or_never().expect("both have their places").unwrap();
    let mut other_second = both(&groups[1]);
    assert!((&mut other_second).now_or_never().is_none(), "rank 0 has not come");
    let first = block_on(first).unwrap();
    let other_second = other_second.now_or_never().expect("woken with its turn").unwrap();
    let second = second.0.lock().unwrap().1.take().expect("both have their places").unwrap();
    for (group, other) in [(first, other_first), (second, other_second)] {
        let (met, other_met) = block_on(join(group.barrier(), other.barrier()));
        assert_eq!((met, other_met), (Ok(()), Ok(())));
    }
}
