//! Whether all members of a new group come to make it.
//!
//! MPI cannot give up making a group, so nobody may begin before all are sure to come:
//!
//! ```text
//! ready     the sender has come, and waits for the others until its deadline
//! sure      it has heard that all are ready and that none has given up, and waits on
//! unready   it has given up: nobody makes the group
//! ```
//!
//! The group is made if all are sure and none has given up. A rank that is sure gives up only if
//! another one has given up, has left, or sends nothing for
//! [`SPLIT_DEADLINE`](crate::rank::SPLIT_DEADLINE), although all ready ranks look for messages. So
//! either all make the group, or nobody does, unless a rank is killed or stopped after it was sure.
//! The others have a time limit for that.

use std::collections::{BTreeMap, BTreeSet};

/// The notices of the other ranks of a group, by the key of a new group and by rank.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    /// With their tags.
    ready: BTreeMap<(u64, usize), u64>,
    sure: BTreeSet<(u64, usize)>,
    unready: BTreeSet<(u64, usize)>,
}

impl Meeting {
    pub fn ready(&mut self, key: u64, rank: usize, tag: u64) {
        self.ready.insert((key, rank), tag);
    }

    pub fn sure(&mut self, key: u64, rank: usize) {
        self.sure.insert((key, rank));
    }

    pub fn unready(&mut self, key: u64, rank: usize) {
        self.unready.insert((key, rank));
    }

    /// The tag of a rank that is ready.
    pub fn tag(&self, key: u64, rank: usize) -> Option<u64> {
        self.ready.get(&(key, rank)).copied()
    }

    /// Those of some ranks that are not ready, or not sure.
    pub fn missing(&self, key: u64, ranks: &[usize], sure: bool) -> Vec<usize> {
        let has_come = |rank: &usize| {
            let at = (key, *rank);
            if sure { self.sure.contains(&at) } else { self.ready.contains_key(&at) }
        };
        ranks.iter().copied().filter(|rank| !has_come(rank)).collect()
    }

    /// Whether a rank has given up.
    pub fn is_off(&self, key: u64) -> bool {
        self.unready.range((key, 0)..=(key, usize::MAX)).next().is_some()
    }

    /// The group of `key` is made, or never will be.
    pub fn forget(&mut self, key: u64) {
        self.ready.retain(|(of, _), _| *of != key);
        self.sure.retain(|(of, _)| *of != key);
        self.unready.retain(|(of, _)| *of != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_made_when_all_are_sure_and_is_off_when_one_gives_up() {
        let mut meeting = Meeting::default();
        let missing = |meeting: &Meeting, sure| meeting.missing(7, &[1, 2], sure);
        meeting.ready(7, 1, 40);
        meeting.ready(8, 2, 41);
        assert_eq!((missing(&meeting, false), meeting.tag(7, 1)), (vec![2], Some(40)));
        meeting.ready(7, 2, 42);
        assert_eq!((missing(&meeting, false), missing(&meeting, true)), (vec![], vec![1, 2]));
        meeting.sure(7, 2);
        assert_eq!(missing(&meeting, true), [1]);
        meeting.unready(8, 1);
        assert_eq!([7, 8, 9].map(|key| meeting.is_off(key)), [false, true, false]);
        meeting.forget(8);
        assert!(!meeting.is_off(8));
        assert_eq!((meeting.tag(8, 2), meeting.tag(7, 2)), (None, Some(42)));
    }
}
