//! Messages under way to this rank.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::notice::Tag;
use crate::raw::{Failure, Receiving};

/// A message under way: its sender, its tag, and the rest.
pub(crate) type Under<T> = (usize, Tag, T);
/// A message that is there.
pub(crate) type Arrived = Under<Arc<[u8]>>;

/// A message that is received step by step.
pub(crate) trait Arrives {
    /// The message, once, when it is there.
    fn take(&mut self) -> Result<Option<Arc<[u8]>>, Failure>;
}

impl Arrives for Receiving {
    fn take(&mut self) -> Result<Option<Arc<[u8]>>, Failure> {
        Self::take(self)
    }
}

/// Removes the messages that are there, in order, and those that failed: they hold up no other.
/// Returns the first failure too. A rank's notices come in the order in which it sent them, even if
/// a long one takes longer.
pub(crate) fn take_arrived<T: Arrives>(
    arriving: &mut Vec<Under<T>>,
) -> (Vec<Arrived>, Option<Failure>) {
    let mut arrived = Vec::new();
    let mut failed = None;
    let mut behind = BTreeSet::new();
    arriving.retain_mut(|(from, tag, receiving)| {
        if *tag == Tag::Notice && behind.contains(from) {
            return true;
        }
        match receiving.take() {
            Ok(Some(bytes)) => {
                arrived.push((*from, *tag, bytes));
                false
            }
            Ok(None) => {
                if *tag == Tag::Notice {
                    behind.insert(*from);
                }
                true
            }
            Err(failure) => {
                failed.get_or_insert(failure);
                false
            }
        }
    });
    (arrived, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There after so many looks, or failed.
    struct After(Result<u32, ()>, u8);

    impl Arrives for After {
        fn take(&mut self) -> Result<Option<Arc<[u8]>>, Failure> {
            let Self(looks, byte) = self;
            let failure = Failure { call: "MPI_Test", message: format!("of {byte}") };
            let looks = looks.as_mut().map_err(|()| failure)?;
            *looks = looks.saturating_sub(1);
            Ok((*looks == 0).then(|| [*byte].into()))
        }
    }

    /// Takes once: the bytes that are there, the failure, and how many are still under way.
    fn look(arriving: &mut Vec<Under<After>>) -> (Vec<u8>, Option<String>, usize) {
        let (arrived, failed) = take_arrived(arriving);
        let bytes = arrived.iter().map(|(_, _, bytes)| bytes[0]).collect();
        (bytes, failed.map(|failure| failure.message), arriving.len())
    }

    #[test]
    fn a_message_that_fails_holds_up_no_other() {
        let mut arriving = vec![
            (1, Tag::Notice, After(Ok(1), 1)),
            (1, Tag::Notice, After(Err(()), 2)),
            (2, Tag::Flat(0), After(Err(()), 3)),
            (1, Tag::Notice, After(Ok(1), 4)),
            (2, Tag::Flat(1), After(Ok(2), 5)),
        ];
        assert_eq!(look(&mut arriving), (vec![1, 4], Some("of 2".to_owned()), 1));
        assert_eq!(look(&mut arriving), (vec![5], None, 0));
    }

    #[test]
    fn a_short_notice_does_not_overtake_a_long_one_of_its_rank() {
        let mut arriving = vec![
            (1, Tag::Notice, After(Ok(2), 1)),
            (1, Tag::Notice, After(Ok(1), 2)),
            (2, Tag::Notice, After(Ok(1), 3)),
            (1, Tag::Flat(0), After(Ok(1), 4)),
        ];
        assert_eq!(look(&mut arriving), (vec![3, 4], None, 2));
        assert_eq!(look(&mut arriving), (vec![1, 2], None, 0));
    }
}
