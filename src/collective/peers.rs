//! Whether all ranks are at the same place: the check of every header against the others.

use super::frame::{ANY_SUBJECT, Frame, Header, UNANNOUNCED};
use super::merged::Head;
use crate::error::ExchangeError;

/// A field that must agree, and how it is written in an error; `None` agrees with everything.
type Field = (&'static str, fn(&Header) -> Option<String>);

/// In the order of what explains most: a rank in another layer is also at another exchange.
const PLACE: [Field; 11] = [
    ("process group", |header| Some(format!("{:#018x}", header.group))),
    ("layer", |header| Some(header.layer.to_string())),
    ("layer name", |header| Some(format!("{:?}", header.name))),
    ("phase", |header| Some(header.phase.to_string())),
    ("exchange", |header| Some(header.step.to_string())),
    (
        "subject (the forward exchange that is differentiated, or the rank that is broadcast)",
        |header| (header.subject != ANY_SUBJECT).then(|| header.subject.to_string()),
    ),
    ("channels", |header| (!header.phase.is_of_values()).then(|| header.channels.to_string())),
    ("number of values", |header| Some(header.channels.to_string())),
    ("checksum of the configuration (eps, momentum, mode…)", |header| {
        (!header.phase.is_of_values()).then(|| format!("{:#018x}", header.config))
    }),
    ("checksum of the lengths of the slices", |header| Some(format!("{:#018x}", header.config))),
    ("number of exchanges in a message", |header| Some(header.listed.to_string())),
];
const STATE: Field = ("checksum of parameters and running statistics", |header| {
    Some(format!("{:#018x}", header.state))
});
const RANKS: Field = ("number of devices", |header| Some(header.ranks.to_string()));

/// What ranks that are at the same place have to announce once more, since only then they can be
/// compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// Checksums of the state: only some ranks announce theirs.
    pub states: bool,
    /// How many devices each holds: they are not equally many.
    pub ranks: bool,
}

/// Compares all headers, in the order of the first rank of each. What most ranks say is expected,
/// of two equally frequent ones what the lowest rank says; so every rank finds the same error. What
/// may be announced once more is no error.
pub(super) fn judge(
    heads: &[Head],
    may: Again,
    at: &str,
    world_rank: impl Fn(usize) -> usize,
) -> Result<Again, ExchangeError> {
    // The rule, so that nothing is written down for it.
    if let [] | [_] = heads {
        return Ok(Again::default());
    }
    let announced = heads.iter().filter(|head| head.header.state != UNANNOUNCED).count();
    let again = Again {
        states: may.states && (1..heads.len()).contains(&announced),
        ranks: may.ranks && heads.iter().any(|head| head.header.ranks != heads[0].header.ranks),
    };
    let fields = PLACE
        .into_iter()
        .chain((!again.states).then_some(STATE))
        .chain((!again.ranks).then_some(RANKS));
    for (what, show) in fields {
        let said: Vec<_> =
            heads.iter().filter_map(|head| Some((show(&head.header)?, head))).collect();
        let votes = |value: &String| {
            let same = said.iter().filter(|(said, _)| said == value);
            same.fold(0u64, |votes, (_, head)| votes.saturating_add(head.ranks))
        };
        let most = said.iter().map(|(value, _)| votes(value)).max().unwrap_or(0);
        let Some((expected, _)) = said.iter().find(|(value, _)| votes(value) == most) else {
            continue;
        };
        if let Some((found, head)) = said.iter().find(|(value, _)| value != expected) {
            let (expected, found, at) = (expected.clone(), found.clone(), at.to_owned());
            let rank = world_rank(head.header.rank as usize);
            return Err(ExchangeError::Mismatch { at, rank, what, expected, found });
        }
    }
    Ok(again)
}

/// Whether headers say nothing different.
pub(super) fn agree(heads: &[Head]) -> bool {
    judge(heads, Again::default(), "", |rank| rank).is_ok()
}

/// The different headers of frames that are in rank order.
pub(super) fn heads(frames: &[Frame]) -> Vec<Head> {
    let mut heads: Vec<Head> = Vec::new();
    for Frame { header, .. } in frames {
        match heads.iter_mut().find(|head| head.is_of(header)) {
            Some(head) => head.ranks += 1,
            None => heads.push(Head { header: header.clone(), ranks: 1 }),
        }
    }
    heads
}
