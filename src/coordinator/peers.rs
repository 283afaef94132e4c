//! Whether all ranks are at the same place: the check of every frame against the others.

use crate::collective::{Frame, Header, NodePayload};
use crate::error::ExchangeError;

/// A field that must agree, and how it is written in an error.
type Field = (&'static str, fn(&Header) -> String);

/// In the order of what explains most: a rank in another layer is also at another step.
const FIELDS: [Field; 8] = [
    ("process group", |header| format!("{:#018x}", header.group)),
    ("layer", |header| format!("{}", header.layer)),
    ("layer name", |header| format!("{:?}", header.name)),
    ("phase", |header| header.phase.to_string()),
    ("exchange", |header| header.step.to_string()),
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

/// Checks that the nodes cover the ranks 0 .. `total_ranks` once each, with numbers for every channel.
pub(super) fn check_nodes(nodes: &[NodePayload], total_ranks: u64, channels: usize) -> Result<(), String> {
    let mut next = 0u64;
    for node in nodes {
        let size = 1u64.checked_shl(node.level).unwrap_or(u64::MAX);
        if node.index.checked_mul(size) != Some(next) || node.values.len() != channels {
            return Err(format!("a node covers ranks from {}·{size}, expected from {next}", node.index));
        }
        next = next.saturating_add(size);
    }
    if next == total_ranks { Ok(()) } else { Err(format!("the nodes cover {next} ranks, expected {total_ranks}")) }
}
