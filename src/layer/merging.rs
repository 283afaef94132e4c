//! Merges the values of several layers' ranks with those of all other ranks.

use super::Failure;
use super::member::Member;
use crate::checksum::Manifest;
use crate::collective::ListError;
use crate::error::{BatchError, Error};
use crate::exchange::{Call, Contribution, merge_ranks};
use crate::stats::{Global, Mergeable};

/// One layer of an exchange.
pub(super) struct Exchanging<'a, T> {
    /// Its number among the layers of the call.
    pub index: usize,
    pub member: &'a Member,
    /// `None` without peers.
    pub call: Option<&'a Call>,
    pub local: &'a [Vec<T>],
    /// Whether running statistics are updated.
    pub tracks: bool,
}

impl<T> Exchanging<'_, T> {
    /// The state as ranks compare it.
    async fn state(&self) -> Result<Manifest, Failure> {
        let state = self.member.state().await;
        Ok(state.map_err(Failure::of(self.index))?.manifest())
    }
}

/// Merges the values of several layers' ranks with those of all others. Then it updates running
/// statistics, before the next exchange of this rank.
pub(super) async fn exchange<T: Mergeable>(
    layers: &[Exchanging<'_, T>],
) -> Result<Vec<Global<T>>, Failure> {
    let mut globals: Vec<Global<T>> = merge(layers).await?.into_iter().map(Global::new).collect();
    settle(layers, &mut globals)?;
    Ok(globals)
}

/// Merged values of all ranks, for several layers. Their turns do not pass.
pub(super) async fn merge<T: Mergeable>(
    layers: &[Exchanging<'_, T>],
) -> Result<Vec<Vec<T>>, Failure> {
    match layers.iter().map(|layer| layer.call).collect::<Option<Vec<&Call>>>() {
        Some(calls) => merge_with_peers(layers, &calls).await,
        None => Ok(layers.iter().map(|layer| merge_ranks(layer.local)).collect()),
    }
}

/// Ends the exchanges of several layers with the merged values. It refuses statistics of one value,
/// updates running statistics, and lets later exchanges of this rank begin.
pub(super) fn settle<L, T: Mergeable>(
    layers: &[Exchanging<'_, L>],
    globals: &mut [Global<T>],
) -> Result<(), Failure> {
    for (layer, global) in layers.iter().zip(&mut *globals) {
        if let Some(global) = T::as_statistics(global)
            && global.count() == 1
        {
            return Err(Failure::of(layer.index)(BatchError::OneValue));
        }
    }
    for (layer, global) in layers.iter().zip(globals) {
        if let Some(global) = T::as_statistics(global) {
            layer.member.note_running(global);
            if layer.tracks {
                layer.member.update_running(global);
            }
        }
        layer.call.into_iter().for_each(Call::pass);
    }
    Ok(())
}

/// Merges several calls of one process group in one message. If only some ranks announce the
/// checksum of a layer's state, all repeat the exchange with theirs. So equal states agree,
/// whichever rank announced first.
async fn merge_with_peers<T: Mergeable>(
    layers: &[Exchanging<'_, T>],
    calls: &[&Call],
) -> Result<Vec<Vec<T>>, Failure> {
    let Some(first) = calls.first() else { return Ok(Vec::new()) };
    // Earlier calls change the state, so it is read after them.
    first.come().await.map_err(Error::from)?;
    let mut parts = Vec::with_capacity(layers.len());
    for (layer, call) in layers.iter().zip(calls) {
        let state_version = layer.member.state_version;
        let announces = T::IS_STATISTICS && layer.member.exchange.must_announce(state_version);
        let state = if announces { Some(layer.state().await?) } else { None };
        parts.push(Contribution { call, local: layer.local, state, state_version });
    }
    let named = |ListError { index, error }| Failure {
        index: index.map(|call: usize| layers[call].index),
        error: Error::from(error),
    };
    loop {
        if let Some(merged) = Call::merge(&parts).await.map_err(named)? {
            return Ok(merged);
        }
        // Gradient sums announce no state. A rank that announces one is refused in the repeated
        // exchange.
        for (part, layer) in parts
            .iter_mut()
            .zip(layers)
            .filter(|(part, _)| T::IS_STATISTICS && part.state.is_none())
        {
            part.state = Some(layer.state().await?);
        }
    }
}
