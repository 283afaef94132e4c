//! A transport whose rank does something wrong at one exchange; otherwise the crate's own.

use std::sync::atomic::{AtomicUsize, Ordering};

use syncbn::{
    collective::LocalRank,
    low_level::{Frame, Payload},
};

use crate::transport::{Tapped, frames, listed};

/// The transport's fault.
#[derive(Clone, Debug)]
pub enum Sabotage {
    Nothing,
    Panic,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends its frame, the only one, with another payload.
    Replace(Payload),
}

/// Does it at the exchange of this number.
pub fn saboteur(
    inner: LocalRank,
    sabotage: Sabotage,
    at: usize,
) -> Tapped<impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync> {
    let exchanges = AtomicUsize::new(0);
    Tapped::new(inner, move |message| match &sabotage {
        _ if exchanges.fetch_add(1, Ordering::Relaxed) != at => message,
        Sabotage::Nothing => message,
        // Unwinds like a panic, without the message on the terminal.
        Sabotage::Panic => std::panic::resume_unwind(Box::new("planted")),
        Sabotage::Send(bytes) => bytes.clone(),
        Sabotage::Replace(payload) => {
            let frame = Frame::decode(frames(&message)[0]).expect("a frame of the crate");
            listed(&[&Frame { payload: payload.clone(), ..frame }.encode()])
        }
    })
}
