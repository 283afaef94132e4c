//! Making process groups out of a group: all ranks tell what they want, and all judge it alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame::{Payload, Phase};
use super::process_group::ProcessGroup;
use crate::checksum::Checksum;
use crate::error::{Error, GroupError};

/// What the making of groups is called in errors.
const AT: &str = "making of process groups";

impl ProcessGroup {
    /// Cuts the group into process groups, in MindSpore's form: the whole partition, as lists of ranks of this group, the
    /// same on every rank. Returns this rank's group, ranks in ascending order. A rank in no list, or alone in its list,
    /// gets a group of one.
    ///
    /// Every rank must call it; it communicates. Groups made of groups count ranks from 0 again.
    ///
    /// # Errors
    /// The same on every rank: [`GroupError`] for a rank out of range, in two lists or twice in one, or a partition that
    /// differs between ranks; [`ExchangeError`](crate::ExchangeError) when a rank does not take part.
    pub async fn partition(&self, lists: &[Vec<usize>]) -> Result<Self, Error> {
        let wanted = self.gather_wishes(lists).await?;
        for (rank, lists) in wanted.iter().enumerate() {
            if lists != &wanted[0] {
                let (found, expected) = (format!("{lists:?}"), format!("{:?}", wanted[0]));
                return Err(GroupError::Disagree { rank: self.world_rank(rank), found, expected }.into());
            }
        }
        self.check_disjoint(lists)?;
        let own = lists.iter().find(|list| list.contains(&self.rank()));
        self.split_off(own.map_or(&[][..], Vec::as_slice))
    }

    /// This rank's process group, in PyTorch's form: the ranks of this group that it consists of, this one among them.
    /// Each member gives the same ranks; other ranks give those of theirs.
    ///
    /// Every rank must call it; it communicates.
    ///
    /// # Errors
    /// As [`partition`](Self::partition); [`GroupError`] also where a rank is not among its own.
    pub async fn subgroup(&self, ranks: &[usize]) -> Result<Self, Error> {
        let wanted = self.gather_wishes(&[ranks.to_vec()]).await?;
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (rank, lists) in wanted.iter().enumerate() {
            // A rank that called `partition` instead may have sent any number of lists.
            let [list] = lists.as_slice() else {
                let (found, expected) = (format!("{lists:?}"), "one list of ranks".to_owned());
                return Err(GroupError::Disagree { rank: self.world_rank(rank), found, expected }.into());
            };
            if !list.contains(&rank) {
                return Err(GroupError::NotAMember { rank: self.world_rank(rank), list: list.clone() }.into());
            }
            if !groups.contains(list) {
                groups.push(list.clone());
            }
        }
        // Two different lists with a rank in common: its members disagree.
        self.check_disjoint(&groups)?;
        self.split_off(ranks)
    }

    /// What every rank asks for, in rank order.
    async fn gather_wishes(&self, lists: &[Vec<usize>]) -> Result<Vec<Vec<Vec<usize>>>, Error> {
        let wish = lists.iter().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        let bytes = wish.collect::<Vec<_>>().join(";").into_bytes();
        let header = self.header(Phase::Split);
        let frames = self.gather(header.clone(), Payload::Bytes(bytes), AT).await?;
        let mut wishes = Vec::with_capacity(frames.len());
        for (rank, frame) in frames.into_iter().enumerate() {
            let wish = match frame.payload {
                Payload::Bytes(bytes) if frame.header.phase == Phase::Split => read_wish(&bytes),
                _ => None,
            };
            let (found, expected) = (frame.header.phase.to_string(), header.phase.to_string());
            wishes.push(wish.ok_or(GroupError::Disagree { rank: self.world_rank(rank), found, expected })?);
        }
        Ok(wishes)
    }

    fn check_disjoint(&self, lists: &[Vec<usize>]) -> Result<(), GroupError> {
        let world_size = self.world_size();
        let mut seen = BTreeSet::new();
        for &rank in lists.iter().flatten() {
            if rank >= world_size {
                return Err(GroupError::OutOfRange { rank, world_size });
            }
            if !seen.insert(rank) {
                return Err(GroupError::Twice { rank });
            }
        }
        Ok(())
    }

    /// The group of these ranks, of which all have agreed.
    fn split_off(&self, ranks: &[usize]) -> Result<Self, Error> {
        let key = self.shared.splits.fetch_add(1, Ordering::Relaxed);
        let members: Vec<usize> = BTreeSet::from_iter(ranks.iter().copied()).into_iter().collect();
        let world_ranks: Arc<[usize]> = if members.len() < 2 {
            [self.world_rank(self.rank())].into()
        } else {
            members.iter().map(|&member| self.world_rank(member)).collect()
        };
        let mut id = Checksum::new();
        [self.id, key].into_iter().chain(world_ranks.iter().map(|&rank| rank as u64)).for_each(|n| id.add_u64(n));
        if members.len() < 2 {
            let single = Arc::new(super::SingleRank);
            return Ok(Self::of_transport(single, id.finish(), world_ranks, self.deadline()));
        }
        let transport = self.transport.split(key, &members).map_err(|error| self.named(error, AT))?;
        Ok(Self::of_transport(transport, id.finish(), world_ranks, self.deadline()))
    }
}

/// Reads `0,1;2,3`.
fn read_wish(bytes: &[u8]) -> Option<Vec<Vec<usize>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.is_empty() {
        return Some(Vec::new());
    }
    let list = |text: &str| {
        let ranks = text.split(',').filter(|rank| !rank.is_empty());
        ranks.map(|rank| rank.parse().ok()).collect::<Option<Vec<usize>>>()
    };
    text.split(';').map(list).collect()
}
