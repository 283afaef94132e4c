//! Makes process groups out of a group. All ranks send their lists, and all judge them alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::comparison::Settings;
use super::frame::{Payload, Phase};
use super::operation::Operation;
use super::peers::{Dissent, Voice, dissent};
use super::process_group::ProcessGroup;
use crate::checksum::Checksum;
use crate::error::{Error, ExchangeError, GroupError};

impl ProcessGroup {
    /// Cuts the group into process groups, in MindSpore's form: the whole partition, as lists of
    /// ranks of this group, the same on every rank. Returns this rank's group, ranks in ascending
    /// order. A rank in no list, or alone in its list, gets a group of one.
    ///
    /// Every rank must call it; it communicates. Groups made of groups count ranks from 0 again.
    ///
    /// # Errors
    /// The same on every rank: [`GroupError`] for a rank out of range, in two lists or twice in
    /// one, or a partition that differs between ranks;
    /// [`ExchangeError`](crate::error::ExchangeError) when a rank does not take part, or cannot
    /// take its place in its group.
    ///
    /// # Cancel safety
    /// A future that is dropped before its end notifies the other ranks, and the group refuses
    /// further work: give the group a [deadline](Self::with_deadline) instead of a timeout.
    pub async fn partition(&self, lists: &[Vec<usize>]) -> Result<Self, Error> {
        let choose = |wanted: Vec<Vec<Vec<usize>>>| {
            let voices = wanted.iter().enumerate().map(|(rank, wish)| Voice {
                value: format!("{wish:?}"),
                rank: rank as u64,
                ranks: 1,
            });
            if let Some(dissent) = dissent(&voices.collect::<Vec<_>>()) {
                let Dissent { rank, found, expected, other, agreeing } = dissent;
                return Err(GroupError::Disagree { rank, found, expected, other, agreeing });
            }
            self.check_disjoint("partition", lists.iter().enumerate())
        };
        let own = lists.iter().find(|list| list.contains(&self.rank()));
        self.make(Phase::Partition, lists, own.map_or(&[][..], Vec::as_slice), choose).await
    }

    /// This rank's process group, in PyTorch's form: the ranks of this group that it consists of,
    /// this one among them. Each member gives the same ranks; other ranks give those of theirs.
    ///
    /// Every rank must call it; it communicates.
    ///
    /// # Errors
    /// As [`partition`](Self::partition); [`GroupError`] also where a rank is not among its own.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition).
    pub async fn subgroup(&self, ranks: &[usize]) -> Result<Self, Error> {
        let mut own = ranks.to_vec();
        own.sort_unstable();
        let choose = |wanted: Vec<Vec<Vec<usize>>>| {
            let mut groups: Vec<Vec<usize>> = Vec::new();
            // The lowest rank that asks for each.
            let mut lowest = Vec::new();
            for (rank, list) in wanted.into_iter().map(|lists| lists.concat()).enumerate() {
                if !list.contains(&rank) {
                    return Err(GroupError::NotAMember { rank, list });
                }
                if !groups.contains(&list) {
                    groups.push(list);
                    lowest.push(rank);
                }
            }
            // Two different lists with a rank in common: its members disagree.
            self.check_disjoint("subgroup", lowest.into_iter().zip(&groups))
        };
        self.make(Phase::Subgroup, &[own], ranks, choose).await
    }

    /// Asks for groups, and makes the one of `own`, unless `check` refuses what all ranks ask for.
    async fn make(
        &self,
        phase: Phase,
        lists: &[Vec<usize>],
        own: &[usize],
        check: impl FnOnce(Vec<Vec<Vec<usize>>>) -> Result<(), GroupError>,
    ) -> Result<Self, Error> {
        let operation = self.begin(self.header(phase), Settings::None)?;
        let made = async {
            check(gather_wishes(&operation, lists).await?)?;
            let group = self.split_off(own, &operation)?;
            // No rank goes on before all have their places: in the new groups nobody would learn
            // of a rank that has none.
            operation.gather(Payload::Bytes(Vec::new())).await?;
            Ok::<_, Error>(group)
        };
        let made = made.await;
        operation.end(&made);
        made
    }

    /// Refuses lists with a rank that does not exist, or with a rank twice. Each comes with the
    /// number that errors give it.
    fn check_disjoint<'a>(
        &self,
        call: &'static str,
        lists: impl Iterator<Item = (usize, &'a Vec<usize>)>,
    ) -> Result<(), GroupError> {
        let world_size = self.world_size();
        let mut seen = BTreeMap::new();
        for (number, ranks) in lists {
            for &rank in ranks {
                if rank >= world_size {
                    let list = Some(number);
                    return Err(GroupError::OutOfRange { call, list, rank, world_size });
                }
                if let Some(list) = seen.insert(rank, number) {
                    return Err(GroupError::Twice { call, rank, list, other: number });
                }
            }
        }
        Ok(())
    }

    /// The group of these ranks, after all have agreed on it.
    fn split_off(&self, ranks: &[usize], operation: &Operation) -> Result<Self, ExchangeError> {
        let key = self.shared.splits.fetch_add(1, Ordering::Relaxed);
        let members: Vec<usize> = BTreeSet::from_iter(ranks.iter().copied()).into_iter().collect();
        let world_ranks: Arc<[usize]> = if members.len() < 2 {
            [self.world_rank(self.rank())].into()
        } else {
            members.iter().map(|&member| self.world_rank(member)).collect()
        };
        let mut id = Checksum::new();
        [self.id, key]
            .into_iter()
            .chain(world_ranks.iter().map(|&rank| rank as u64))
            .for_each(|n| id.add_u64(n));
        if members.len() < 2 {
            let single = Arc::new(super::SingleRank);
            return Ok(Self::of_transport(single, id.finish(), world_ranks, self.deadline()));
        }
        let split = self.transport.split(key, &members);
        let transport = split.map_err(|error| operation.fails_alone(error))?;
        Ok(Self::of_transport(transport, id.finish(), world_ranks, self.deadline()))
    }
}

/// The lists that every rank asks for, in rank order.
async fn gather_wishes(
    operation: &Operation,
    lists: &[Vec<usize>],
) -> Result<Vec<Vec<Vec<usize>>>, ExchangeError> {
    let wish =
        lists.iter().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let bytes = wish.collect::<Vec<_>>().join(";").into_bytes();
    let wishes = operation.gather(Payload::Bytes(bytes)).await?.into_iter().enumerate();
    let read = |(rank, payload)| {
        let wish = if let Payload::Bytes(bytes) = &payload { read_wish(bytes) } else { None };
        wish.ok_or_else(|| operation.refuse(rank, "it does not hold lists of ranks".to_owned()))
    };
    wishes.map(read).collect()
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
