//! Notices between ranks beside their messages, and the tags that distinguish the two.
//!
//! A notice is a byte for its kind and little-endian numbers. A receiver ignores invalid bytes.
//! Only a rank of another version sends them, and its messages show that.

use std::time::Duration;

use syncbn::collective::CollectiveError;

use crate::survive::{Id, Proposal};

/// A notice from one rank to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    /// The group is broken, with the reason.
    Broken(CollectiveError),
    /// The sender has left after `rounds` exchanges.
    Left { rounds: u64, panicked: bool },
    /// Asks every rank whether it has come to this exchange.
    RollCall { round: u64 },
    /// The sender has come to this exchange.
    Here { round: u64 },
    /// The sender is about to make the group of this key. If it is the lowest member, MPI makes it
    /// with this tag.
    Ready { key: u64, tag: u64 },
    /// The sender has heard that all members of it are ready, and comes.
    Sure { key: u64 },
    /// The sender has given up waiting for the other members, and does not come.
    Unready { key: u64 },
    /// The sender asks for the survivors of a failure.
    Present,
    /// It asks no more.
    Withdrawn,
    /// The sender proposes that these go on.
    Proposed(Proposal),
    /// Whether the sender goes with a proposal.
    Answered { id: Id, yes: bool },
    /// All members of a proposal have said yes to it.
    Decided(Proposal),
    /// The sender is about to make the group of a proposal, as by `Ready`.
    Joins { id: Id, tag: u64 },
}

const LATE: u8 = 0;
const GONE: u8 = 1;
const ABORTED: u8 = 2;
const TRANSPORT: u8 = 3;
const LEFT: u8 = 4;
const ROLL_CALL: u8 = 5;
const HERE: u8 = 6;
const READY: u8 = 7;
const PRESENT: u8 = 8;
const WITHDRAWN: u8 = 9;
const PROPOSED: u8 = 10;
const ANSWERED: u8 = 11;
const DECIDED: u8 = 12;
const JOINS: u8 = 13;
const SURE: u8 = 14;
const UNREADY: u8 = 15;

impl Notice {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, numbers, text): (u8, Vec<u64>, &[u8]) = match self {
            Self::Broken(CollectiveError::Late { ranks, deadline }) => {
                let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
                (
                    LATE,
                    [nanos].into_iter().chain(ranks.iter().map(|&rank| rank as u64)).collect(),
                    &[],
                )
            }
            Self::Broken(CollectiveError::Left { rank, panicked }) => {
                (GONE, vec![*rank as u64, u64::from(*panicked)], &[])
            }
            Self::Broken(CollectiveError::Aborted { rank, message }) => {
                (ABORTED, vec![*rank as u64], message)
            }
            Self::Broken(CollectiveError::Transport { message }) => {
                (TRANSPORT, Vec::new(), message.as_bytes())
            }
            // A kind that this version does not know: its text is what can be reported.
            Self::Broken(other) => return Self::Broken(transport(other.to_string())).encode(),
            Self::Left { rounds, panicked } => (LEFT, vec![*rounds, u64::from(*panicked)], &[]),
            Self::RollCall { round } => (ROLL_CALL, vec![*round], &[]),
            Self::Here { round } => (HERE, vec![*round], &[]),
            Self::Ready { key, tag } => (READY, vec![*key, *tag], &[]),
            Self::Sure { key } => (SURE, vec![*key], &[]),
            Self::Unready { key } => (UNREADY, vec![*key], &[]),
            Self::Present => (PRESENT, Vec::new(), &[]),
            Self::Withdrawn => (WITHDRAWN, Vec::new(), &[]),
            Self::Proposed(proposal) => (PROPOSED, proposal_numbers(proposal), &[]),
            Self::Answered { id, yes } => (ANSWERED, vec![id.0 as u64, id.1, u64::from(*yes)], &[]),
            Self::Decided(proposal) => (DECIDED, proposal_numbers(proposal), &[]),
            Self::Joins { id, tag } => (JOINS, vec![id.0 as u64, id.1, *tag], &[]),
        };
        let numbers = numbers.into_iter().flat_map(u64::to_le_bytes);
        [kind].into_iter().chain(numbers).chain(text.iter().copied()).collect()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (words, tail) = rest.as_chunks::<8>();
        let number = |index: usize| words.get(index).copied().map(u64::from_le_bytes);
        // A length that no field accounts for.
        let exact = |count: usize| (words.len() == count && tail.is_empty()).then_some(());
        Some(match *kind {
            LATE => {
                let (deadline, ranks) = words.split_first().filter(|_| tail.is_empty())?;
                let deadline = Duration::from_nanos(u64::from_le_bytes(*deadline));
                let ranks = ranks.iter().map(|rank| u64::from_le_bytes(*rank) as usize).collect();
                Self::Broken(CollectiveError::Late { ranks, deadline })
            }
            GONE => {
                exact(2)?;
                let rank = number(0)? as usize;
                let panicked = number(1)? != 0;
                Self::Broken(CollectiveError::Left { rank, panicked })
            }
            ABORTED => {
                let (rank, message) = rest.split_first_chunk::<8>()?;
                let rank = u64::from_le_bytes(*rank) as usize;
                Self::Broken(CollectiveError::Aborted { rank, message: message.to_vec() })
            }
            TRANSPORT => Self::Broken(transport(String::from_utf8_lossy(rest).into_owned())),
            LEFT => {
                exact(2)?;
                Self::Left { rounds: number(0)?, panicked: number(1)? != 0 }
            }
            ROLL_CALL | HERE => {
                exact(1)?;
                let round = number(0)?;
                if *kind == ROLL_CALL { Self::RollCall { round } } else { Self::Here { round } }
            }
            READY => {
                exact(2)?;
                Self::Ready { key: number(0)?, tag: number(1)? }
            }
            SURE | UNREADY => {
                exact(1)?;
                let key = number(0)?;
                if *kind == SURE { Self::Sure { key } } else { Self::Unready { key } }
            }
            PRESENT | WITHDRAWN => {
                exact(0)?;
                if *kind == PRESENT { Self::Present } else { Self::Withdrawn }
            }
            ANSWERED => {
                exact(3)?;
                Self::Answered { id: (number(0)? as usize, number(1)?), yes: number(2)? != 0 }
            }
            JOINS => {
                exact(3)?;
                Self::Joins { id: (number(0)? as usize, number(1)?), tag: number(2)? }
            }
            PROPOSED | DECIDED => {
                exact(words.len())?;
                let id = (number(0)? as usize, number(1)?);
                let members = words.iter().skip(2);
                let members = members.map(|word| u64::from_le_bytes(*word) as usize).collect();
                let proposal = Proposal { id, members };
                if *kind == PROPOSED { Self::Proposed(proposal) } else { Self::Decided(proposal) }
            }
            _ => return None,
        })
    }
}

fn proposal_numbers(Proposal { id, members }: &Proposal) -> Vec<u64> {
    let id = [id.0 as u64, id.1];
    id.into_iter().chain(members.iter().map(|&rank| rank as u64)).collect()
}

/// A failure of the transport itself.
pub(crate) fn transport(message: String) -> CollectiveError {
    CollectiveError::Transport { message }
}

/// The kind of a message, by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tag {
    /// A rank's message of an exchange in which all get all.
    Flat(u16),
    /// Messages of an all-reduce that go up the tree.
    Up(u16),
    /// Its result, which comes down.
    Down(u16),
    /// A [`Notice`].
    Notice,
}

/// Exchanges are numbered modulo this: far more than one rank can be ahead of another, which
/// waits for it, and few enough for the 32,768 tags that every MPI has.
const ROUNDS: u64 = 4096;

impl Tag {
    /// The number of an exchange as it stands in a tag.
    pub fn round(round: u64) -> u16 {
        (round % ROUNDS) as u16
    }

    pub fn to_mpi(self) -> i32 {
        match self {
            Self::Flat(round) => i32::from(round) * 4,
            Self::Up(round) => i32::from(round) * 4 + 1,
            Self::Down(round) => i32::from(round) * 4 + 2,
            Self::Notice => 3,
        }
    }

    pub fn from_mpi(tag: i32) -> Self {
        let round = Self::round((tag / 4).unsigned_abs().into());
        match tag % 4 {
            0 => Self::Flat(round),
            1 => Self::Up(round),
            2 => Self::Down(round),
            _ => Self::Notice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notice_survives_its_way_and_a_cut_one_is_none() {
        let deadline = Duration::from_millis(1500);
        let notices = [
            Notice::Broken(CollectiveError::Late { ranks: vec![3, 70_000], deadline }),
            Notice::Broken(CollectiveError::Left { rank: 2, panicked: true }),
            Notice::Broken(CollectiveError::Aborted {
                rank: 9,
                message: b"out of memory".to_vec(),
            }),
            Notice::Broken(transport("no route".to_owned())),
            Notice::Left { rounds: 12, panicked: false },
            Notice::RollCall { round: u64::MAX },
            Notice::Here { round: 5 },
            Notice::Ready { key: 7, tag: 32_767 },
            Notice::Sure { key: 7 },
            Notice::Unready { key: 1 << 60 },
            Notice::Present,
            Notice::Withdrawn,
            Notice::Proposed(Proposal { id: (2, 1 << 40), members: vec![0, 2, 70_000] }),
            Notice::Answered { id: (70_000, 3), yes: true },
            Notice::Decided(Proposal { id: (1, 0), members: vec![1, 3] }),
            Notice::Joins { id: (1, 5), tag: 9 },
        ];
        for notice in notices {
            let bytes = notice.encode();
            assert_eq!(Notice::decode(&bytes).as_ref(), Some(&notice));
            for len in 0..bytes.len() {
                assert_ne!(
                    Notice::decode(&bytes[..len]).as_ref(),
                    Some(&notice),
                    "{len} of {} bytes",
                    bytes.len()
                );
            }
        }
        assert_eq!(Notice::decode(&[200]), None);
    }

    #[test]
    fn tags_fit_every_mpi_and_survive_their_way() {
        for round in [0, 1, 4095, 4096, u64::MAX] {
            let round = Tag::round(round);
            for tag in [Tag::Flat(round), Tag::Up(round), Tag::Down(round), Tag::Notice] {
                assert!((0..32_768).contains(&tag.to_mpi()), "{tag:?}");
                assert_eq!(Tag::from_mpi(tag.to_mpi()), tag);
            }
        }
    }
}
