//! Finds the setting that differs between ranks, or the part of their states.
//!
//! Headers carry checksums. Where these differ, one more exchange gathers their sources: lists of
//! lines `name = value`. The error names the first line that differs.

use std::borrow::Cow;
use std::sync::Arc;

use super::frame::{Frame, Header, Payload, Phase, UNANNOUNCED};
use super::gather::ListError;
use super::operation::Operation;
use super::peers::{Again, Dissent, Kind, Voice, dissent};
use crate::checksum::{lines, value};
use crate::error::ExchangeError;

/// Source of the checksum in the field `config` of a header.
#[derive(Clone, Debug)]
pub(crate) enum Settings {
    /// No settings to compare.
    None,
    /// The manifest of a layer's settings.
    Layer(Arc<str>),
    /// The lengths of a program's slices.
    Slices(Vec<u64>),
}

impl Settings {
    /// The lines that ranks compare.
    pub(super) fn list(&self) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(""),
            Self::Layer(manifest) => Cow::Borrowed(manifest),
            Self::Slices(lengths) => {
                let mut list = format!("number of slices = {}\n", lengths.len());
                for (index, length) in lengths.iter().enumerate() {
                    list += &format!("length of slice {index} = {length}\n");
                }
                Cow::Owned(list)
            }
        }
    }
}

impl Operation {
    /// Gathers the lists of these operations, one of each, and finds a line that differs. Returns
    /// an error, unless the lists are the same although their checksums differ.
    pub(super) async fn compare(
        operations: &[&Self],
        index: usize,
        kind: Kind,
        lists: Vec<Cow<'_, str>>,
    ) -> Result<(), ListError> {
        let first = operations[0];
        let own = operations[index];
        let listed = operations.len() as u64;
        first.goes_on();
        let frames = operations.iter().zip(lists).map(|(operation, list)| {
            let phase = Phase::Comparison;
            let header = operation.header.clone();
            let header = Header { phase, state: UNANNOUNCED, ranks: 0, listed, ..header };
            Frame { header, payload: Payload::Bytes(list.into_owned().into_bytes()) }
        });
        let span = Self::span(operations, Phase::Comparison);
        let gathered = span.around(Self::gather_frames(operations, frames, &span)).await;
        let answers = gathered.map_err(|failure| failure.poison(&first.group))?;
        let named = ListError::of(index);
        let answer = &answers[index];
        own.judge(answer, Again::default()).map_err(&named)?;
        let mut lists = Vec::with_capacity(answer.payloads.len());
        for (rank, payload) in answer.payloads.iter().enumerate() {
            let list = match payload {
                Payload::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
                _ => None,
            };
            let unreadable = || own.refuse(rank, "it holds no list to be compared".to_owned());
            lists.push(list.ok_or_else(unreadable).map_err(&named)?);
        }
        match first_difference(&lists) {
            Some((name, dissent)) => Err(named(own.differs(kind, name, dissent))),
            None => Ok(()),
        }
    }

    /// The error of a setting, or of a part of the state.
    pub(super) fn differs(&self, kind: Kind, name: &str, dissent: Dissent) -> ExchangeError {
        let Dissent { rank, found, expected, other, agreeing } = dissent.of_world(&self.group);
        let at = self.at.to_string();
        let name = name.into();
        let found = found.into();
        let expected = expected.into();
        self.group.poison(if kind == Kind::State {
            ExchangeError::State { at, name, rank, found, expected, other, agreeing }
        } else {
            ExchangeError::Setting { at, name, rank, found, expected, other, agreeing }
        })
    }
}

/// The first name that the lists of ranks give different values, in the order of the lists.
fn first_difference<'a>(lists: &[&'a str]) -> Option<(&'a str, Dissent)> {
    let mut different: Vec<Voice<&str>> = Vec::new();
    for (rank, list) in lists.iter().enumerate() {
        match different.iter_mut().find(|voice| voice.value == *list) {
            Some(voice) => voice.ranks += 1,
            None => different.push(Voice { value: list, rank: rank as u64, ranks: 1 }),
        }
    }
    let names = different.iter().flat_map(|voice| lines(voice.value)).map(|(name, _)| name);
    names
        .map(|name| (name, value_dissent(name, &different)))
        .find_map(|(name, dissent)| Some((name, dissent?)))
}

/// The first rank whose value of a name is not that of most ranks.
fn value_dissent(name: &str, lists: &[Voice<&str>]) -> Option<Dissent> {
    let voices: Vec<_> =
        lists.iter().map(|voice| Voice { value: value(voice.value, name), ..*voice }).collect();
    dissent(&voices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lists: &[&str]) -> Option<String> {
        let (name, dissent) = first_difference(lists)?;
        let Dissent { rank, found, expected, other, agreeing } = dissent;
        Some(format!(
            "{name}: {found} on rank {rank}, {expected} on {agreeing} rank(s), first {other}"
        ))
    }

    fn assert_found(lists: &[&str], expected: &str) {
        assert_eq!(found(lists).as_deref(), Some(expected));
    }

    #[test]
    fn the_first_line_that_differs_is_named_with_the_first_rank_that_differs_from_most() {
        let [a, b] = ["eps = 1\nmomentum = 2\n", "eps = 3\nmomentum = 4\n"];
        assert_found(&[a, b], "eps: 3 on rank 1, 1 on 1 rank(s), first 0");
        assert_found(&[b, a, a], "eps: 3 on rank 0, 1 on 2 rank(s), first 1");
        assert_found(&[a, b, a, b, b], "eps: 1 on rank 0, 3 on 3 rank(s), first 1");
        // One line of each of two ranks: the first of the list.
        let [c, d] = ["eps = 1\nmomentum = 4\n", "eps = 3\nmomentum = 2\n"];
        assert_found(&[a, c, d], "eps: 3 on rank 2, 1 on 2 rank(s), first 0");
        assert_found(&[a, a, c], "momentum: 4 on rank 2, 2 on 2 rank(s), first 0");
        assert_eq!(found(&[a, a, a]), None);
    }

    #[test]
    fn a_name_that_a_list_does_not_have_is_absent_there() {
        let [a, b] = ["eps = 1\n", "eps = 1\nseed = 0\n"];
        assert_found(&[a, b], "seed: 0 on rank 1, absent on 1 rank(s), first 0");
        assert_found(&[b, a, b], "seed: absent on rank 1, 0 on 2 rank(s), first 0");
        assert_found(&[a, "junk"], "eps: absent on rank 1, 1 on 1 rank(s), first 0");
        assert_eq!(found(&["", ""]), None);
        // Other bytes of the same lines are no difference of any.
        assert_eq!(found(&["eps = 1\nseed = 0\n", "seed = 0\neps = 1"]), None);
    }
}
