//! A layer during its call, and the steps that forward and backward share: sums of every rank, the
//! exchange, outputs of every rank.

use futures::future::try_join_all;

use super::member::{Calls, Communicating};
use super::merging::{Exchanging, exchange};
use super::{Failure, SyncBatchNorm};
use crate::device::Device;
use crate::engine::Ahead;
use crate::error::{ArgumentError, Error};
use crate::gpu::Pending;
use crate::request::{Encode, ForwardParts};
use crate::stats::{Global, Mergeable, PerRank};

/// A layer during its call. R is a rank, S the type that merges over ranks, H the part that differs
/// between the calls of one direction.
pub(super) struct Part<'r, R, S, H> {
    pub layer: &'r SyncBatchNorm,
    pub ranks: Vec<R>,
    pub how: H,
    /// Whether sums are needed.
    pub sums: bool,
    /// Whether running statistics are updated.
    pub tracks: bool,
    /// `[rank][channel]`, once computed.
    pub local: Vec<Vec<S>>,
    /// Values of all ranks, if the layer exchanges them.
    pub global: Option<Global<S>>,
    /// Whether the outputs came with the local sums.
    pub is_done: bool,
    /// Whether sums are of integers.
    pub is_exact: bool,
}

impl<'r, R, S, H> Part<'r, R, S, H> {
    pub fn new(layer: &'r SyncBatchNorm, ranks: Vec<R>, how: H) -> Self {
        Self {
            layer,
            ranks,
            how,
            sums: true,
            tracks: false,
            local: Vec::new(),
            global: None,
            is_done: false,
            is_exact: false,
        }
    }

    fn wants_sums(&self) -> bool {
        self.sums && !self.is_done && !self.is_exact
    }

    /// Whether its sums are of integers.
    pub fn has_integers(&self) -> bool {
        self.sums && self.is_exact
    }

    /// Whether sums of integers are still to be found.
    pub fn wants_exact(&self) -> bool {
        self.has_integers() && !self.is_done
    }

    /// Whether every rank is in the host's memory of this process.
    pub fn is_on_this_host(&self) -> bool {
        !self.layer.has_peers() && self.layer.devices().iter().all(Device::is_host)
    }
}

/// The recorded commands of the outputs of every rank, before their coefficients are known.
pub(super) type Recorded = Vec<Option<Ahead>>;

/// Local sums of every layer. `submit` takes the layers that want theirs. While devices work,
/// `record` records the outputs of the layers that have none yet, device by device.
pub(super) async fn gather<'r, R, S, H>(
    parts: &mut [Part<'r, R, S, H>],
    submit: impl FnMut(
        &Device,
        usize,
        Vec<&mut Part<'r, R, S, H>>,
    ) -> Result<Pending<Vec<Vec<S>>>, Error>,
    record: impl Fn(&Device, usize, &[Part<'r, R, S, H>]) -> Result<Option<Ahead>, Error>,
) -> Result<Recorded, Error> {
    let pending = submit_of(parts, Part::wants_sums, submit)?;
    let mut recorded = Recorded::new();
    if !pending.is_empty() {
        let devices = parts.first().map_or(&[][..], |part| part.layer.devices());
        for (rank, device) in devices.iter().enumerate() {
            recorded.push(record(device, rank, parts)?);
        }
    }
    for of_rank in try_join_all(pending).await? {
        let wanting = parts.iter_mut().filter(|part| part.wants_sums());
        wanting.zip(of_rank).for_each(|(part, local)| part.local.push(local));
    }
    Ok(recorded)
}

/// Values of every rank for the layers that request them, `[rank][layer][channel]`. All GPUs get
/// their work, in one submission each, before the host begins its own and before any wait.
pub(super) async fn gather_of<'r, R, S, H, T>(
    parts: &mut [Part<'r, R, S, H>],
    wants: impl Fn(&Part<'r, R, S, H>) -> bool,
    submit: impl FnMut(
        &Device,
        usize,
        Vec<&mut Part<'r, R, S, H>>,
    ) -> Result<Pending<Vec<Vec<T>>>, Error>,
) -> Result<Vec<Vec<Vec<T>>>, Error> {
    try_join_all(submit_of(parts, wants, submit)?).await
}

/// The results that devices are working on, by rank.
fn submit_of<'r, R, S, H, T>(
    parts: &mut [Part<'r, R, S, H>],
    wants: impl Fn(&Part<'r, R, S, H>) -> bool,
    mut submit: impl FnMut(
        &Device,
        usize,
        Vec<&mut Part<'r, R, S, H>>,
    ) -> Result<Pending<Vec<Vec<T>>>, Error>,
) -> Result<Vec<Pending<Vec<Vec<T>>>>, Error> {
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(Vec::new()) };
    if !parts.iter().any(&wants) {
        return Ok(Vec::new());
    }
    let mut pending: Vec<_> = layer.devices().iter().map(|_| None).collect();
    for rank in layer.gpus_first() {
        let wanting = parts.iter_mut().filter(|part| wants(part)).collect();
        pending[rank] = Some(submit(&layer.devices()[rank], rank, wanting)?);
    }
    Ok(pending.into_iter().flatten().collect())
}

/// Exchanges the values of every layer that communicates.
pub(super) async fn synchronize<R, S: Mergeable, H>(
    parts: &mut [Part<'_, R, S, H>],
    calls: &Calls,
) -> Result<(), Failure> {
    if parts.iter().any(Part::has_integers) {
        return Ok(());
    }
    let layers = parts.iter().zip(calls).enumerate().filter_map(|(index, (part, call))| {
        let Communicating { member, call } = call.as_deref()?;
        let call = call.as_ref();
        let local = part.local.as_slice();
        let tracks = part.tracks;
        Some(Exchanging { index, member, call, local, tracks })
    });
    let merged = exchange(&layers.collect::<Vec<_>>()).await?;
    let exchanged = parts.iter_mut().zip(calls).filter(|(_, call)| call.is_some());
    exchanged.zip(merged).for_each(|((part, _), global)| part.global = Some(global));
    Ok(())
}

/// Writes the outputs of every rank of every layer, in one submission per GPU: the one that is
/// recorded, if there is one. It skips ranks
/// without outputs, and outputs that came with the sums.
pub(super) async fn apply<R, S, H, C>(
    parts: &mut [Part<'_, R, S, H>],
    centering: &[PerRank<Vec<C>>],
    mut recorded: Recorded,
    has_outputs: impl Fn(&R) -> bool,
    submit: impl Fn(&Device, Vec<(&mut R, &[C])>, Option<Ahead>) -> Result<Pending<()>, Error>,
) -> Result<(), Error> {
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(()) };
    let mut pending = Vec::with_capacity(layer.devices().len());
    for rank in layer.outputs_order() {
        let undone = parts.iter_mut().zip(centering).filter(|(part, _)| !part.is_done);
        let ranks: Vec<_> = undone
            .map(|(part, centering)| (&mut part.ranks[rank], centering.of(rank).as_slice()))
            .filter(|(rank, _)| has_outputs(rank))
            .collect();
        if !ranks.is_empty() {
            let recorded = recorded.get_mut(rank).and_then(Option::take);
            pending.push(submit(&layer.devices()[rank], ranks, recorded)?);
        }
    }
    try_join_all(pending).await?;
    Ok(())
}

/// Refuses requests that only a layer on one GPU can do.
pub(super) fn check_forward_parts(parts: &ForwardParts<'_>) -> Result<(), ArgumentError> {
    let reason = "a SyncBatchNorm keeps its running statistics on the host; a BatchNorm takes them";
    if parts.running.now.is_some() || parts.running.next.is_some() {
        return Err(ArgumentError::NotWanted { argument: "running_stats", reason });
    }
    check_encode(&parts.encode)
}

/// Refuses an encoder.
pub(super) fn check_encode(encode: &Encode<'_>) -> Result<(), ArgumentError> {
    let reason = "a SyncBatchNorm reads back what it sums; a BatchNorm records its passes";
    match encode {
        Some(_) => Err(ArgumentError::NotWanted { argument: "encode", reason }),
        None => Ok(()),
    }
}
