//! Events for all groups of the process at once: the failure of one, and the loss of this rank.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use syncbn::collective::CollectiveError;

use crate::group::Group;
use crate::notice::Notice;
use crate::raw::Sending;

static GROUPS: Mutex<Vec<Weak<Group>>> = Mutex::new(Vec::new());
/// Last messages of groups that are no more.
static SENDING: Mutex<Vec<Sending>> = Mutex::new(Vec::new());
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// Remembers a group that was made.
pub(crate) fn keep(group: Arc<Group>) -> Arc<Group> {
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.retain(|group| group.strong_count() > 0);
    groups.push(Arc::downgrade(&group));
    group
}

/// A group is broken. The first failure of the process is kept.
pub(crate) fn fail(error: &CollectiveError) {
    first_failure().get_or_insert_with(|| error.to_string());
}

/// The first failure of any group of the process.
pub(crate) fn failure() -> Option<String> {
    first_failure().clone()
}

/// Another MPI of the process begins without it.
pub(crate) fn forget_failure() {
    *first_failure() = None;
}

fn first_failure() -> MutexGuard<'static, Option<String>> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in the messages of all groups, except those that a thread works at.
pub(crate) fn look() {
    let groups: Vec<Arc<Group>> = match GROUPS.try_lock() {
        Ok(groups) => groups.iter().filter_map(Weak::upgrade).collect(),
        Err(_) => return,
    };
    for group in groups {
        if let Some(mut state) = group.try_lock() {
            group.progress(&mut state);
        }
    }
}

/// Messages on their way out of a group that is dropped.
pub(crate) fn send_on(messages: impl Iterator<Item = Sending>) {
    SENDING.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
}

/// Forgets those of them that MPI has sent.
pub(crate) fn sweep() {
    if let Ok(mut sending) = SENDING.try_lock() {
        sending.retain_mut(|message| matches!(message.is_done(), Ok(false)));
    }
}

/// Notifies the peers in every group that this rank is lost, which looks after all these notices
/// together. A lock that is held may be held by the thread that panics: such a group learns it by
/// the end of the job only.
pub(crate) fn notify_lost(panicked: bool) {
    let Ok(groups) = GROUPS.try_lock() else { return };
    for group in groups.iter().filter_map(Weak::upgrade) {
        if let Some(mut state) = group.try_lock() {
            group
                .break_with(&mut state, &CollectiveError::Left { rank: group.comm.rank, panicked });
            // Ranks that ask for the survivors do not wait for this one.
            group.notify_all(&mut state, &Notice::Left { rounds: u64::MAX, panicked });
        }
    }
}

/// Notifies the peers in every group that is still held that this rank comes to no further
/// exchange. That is no failure: they may have none to come either.
pub(crate) fn leave_all() {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    for group in groups.iter().filter_map(Weak::upgrade) {
        group.leave();
    }
}
