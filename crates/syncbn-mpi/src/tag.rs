//! The tags by which MPI makes communicators. It sends messages for all of them by one
//! communicator, that of the job, so two that are made at the same time need two tags.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::raw::Comm;

/// Tags that every MPI has, without the last one.
const TAGS: u64 = 32_767;
/// Tag of the message to ranks that were left behind. It goes by the communicator of the end, which
/// may be that of the job.
pub(crate) const LEFT_BEHIND: i32 = 32_767;

/// The next tag of this rank of the job. The lowest member of a group chooses its tag.
pub(crate) fn next(job: &Comm) -> u64 {
    static CHOSEN: AtomicU64 = AtomicU64::new(0);
    of_rank(CHOSEN.fetch_add(1, Ordering::Relaxed), job.rank as u64, job.size as u64)
}

/// No two ranks of a job have a tag in common, and each has as many as there are for it.
fn of_rank(chosen: u64, rank: u64, size: u64) -> u64 {
    (chosen % (TAGS / size).max(1) * size + rank) % TAGS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranks_choose_different_tags_and_each_chooses_many() {
        for size in [1, 3, 4, 1000, TAGS] {
            let each = TAGS / size;
            let tags: BTreeSet<u64> = (0..size)
                .flat_map(|rank| (7..7 + each).map(move |chosen| of_rank(chosen, rank, size)))
                .collect();
            assert_eq!(tags.len() as u64, each * size, "{size} ranks");
            assert!(tags.iter().all(|&tag| tag < TAGS), "{size} ranks");
        }
        // More ranks than tags.
        assert!(of_rank(u64::MAX, 70_000, 70_001) < TAGS);
    }
}
