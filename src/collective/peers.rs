//! Whether all ranks are at the same place: the check of every frame's header against the others.

use super::frame::{Frame, Header};
use crate::error::ExchangeError;

/// A field that must agree, and how it is written in an error.
type Field = (&'static str, fn(&Header) -> String);

/// In the order of what explains most: a rank in another layer is also at another exchange.
const FIELDS: [Field; 9] = [
    ("process group", |header| format!("{:#018x}", header.group)),
    ("layer", |header| format!("{}", header.layer)),
    ("layer name", |header| format!("{:?}", header.name)),
    ("phase", |header| header.phase.to_string()),
    ("exchange", |header| header.step.to_string()),
    ("subject (the forward exchange that is differentiated, or the rank that is broadcast)", |header| {
        header.subject.to_string()
    }),
    ("channels", |header| header.channels.to_string()),
    ("checksum of the configuration (eps, momentum, mode…)", |header| format!("{:#018x}", header.config)),
    ("checksum of parameters and running statistics", |header| format!("{:#018x}", header.state)),
];

/// Compares all frames. What most ranks say is expected, of two equally frequent ones what the lowest rank says; so
/// every rank finds the same error.
pub(super) fn check_headers(
    frames: &[Frame],
    at: &str,
    world_rank: impl Fn(usize) -> usize,
) -> Result<(), ExchangeError> {
    for (what, show) in FIELDS {
        let said: Vec<String> = frames.iter().map(|frame| show(&frame.header)).collect();
        let votes = |value: &String| said.iter().filter(|other| *other == value).count();
        let most = said.iter().map(votes).max().unwrap_or(0);
        let Some(expected) = said.iter().find(|value| votes(value) == most) else { continue };
        if let Some(rank) = said.iter().position(|value| value != expected) {
            let (expected, found) = (expected.clone(), said[rank].clone());
            return Err(ExchangeError::Mismatch { at: at.to_owned(), rank: world_rank(rank), what, expected, found });
        }
    }
    Ok(())
}
