//! Forward in training of several independent layers at once: per device one submission with one readback before the
//! exchange and one submission after it, and one message to the peers for all.

use std::time::Instant;

use futures::future::try_join_all;

use super::{DeviceGroup, ForwardReport, Inputs, PhaseTimes, SavedCall, SavedForward};
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::coordinator::{Call, Contribution};
use crate::engine::{self, Apply, View};
use crate::error::{ArgumentError, BatchError, Error, ExchangeError};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, Normalization};
use crate::tensor::Tensor;

/// One layer of [`DeviceGroup::forward_train_many`]: what it reads and where it writes.
#[derive(Debug)]
pub struct ForwardRequest<'a> {
    group: &'a mut DeviceGroup,
    inputs: Inputs<'a>,
    outputs: &'a mut [Tensor],
}

impl<'a> ForwardRequest<'a> {
    /// As [`DeviceGroup::forward_train_into`] takes them.
    pub fn new(group: &'a mut DeviceGroup, inputs: impl Into<Inputs<'a>>, outputs: &'a mut [Tensor]) -> Self {
        Self { group, inputs: inputs.into(), outputs }
    }
}

impl DeviceGroup {
    /// [`forward_train_into`](Self::forward_train_into) of several layers that do not depend on each other, on the same
    /// devices and of one process group: they share one exchange, so that a message and a wait are paid for once. Each
    /// gets the bits that it would get by itself. All ranks make the same requests, in the same order.
    ///
    /// ```
    /// use syncbn::{Device, DeviceGroup, ForwardRequest, SyncBatchNormConfig};
    ///
    /// # pollster::block_on(async {
    /// let host = Device::host();
    /// let mut layers = Vec::new();
    /// for channels in [1, 2] {
    ///     layers.push(DeviceGroup::new(SyncBatchNormConfig::torch(channels), vec![host.clone()])?);
    /// }
    /// let [a, b] = &mut layers[..] else { unreachable!() };
    /// let inputs = [[host.upload(&[2, 1], &[0.0f32, 2.0])?], [host.upload(&[2, 2], &[1.0f32, 2.0, 3.0, 6.0])?]];
    /// let mut outputs = [[host.zeros(&[2, 1])?], [host.zeros(&[2, 2])?]];
    /// let [y, z] = &mut outputs;
    /// let requests = [ForwardRequest::new(a, &inputs[0], y), ForwardRequest::new(b, &inputs[1], z)];
    /// let results = DeviceGroup::forward_train_many(requests).await?;
    /// assert_eq!(results[1].1.global.channels()[1].mean, 4.0);
    /// # Ok::<(), syncbn::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Joint`] with the number of a request and its error, as [`forward_train_into`](Self::forward_train_into)
    /// gives it; [`ArgumentError::NotTogether`] for one on other devices or of another process group than the first. All
    /// layers are unchanged then. When a device fails, outputs may be partly written.
    pub async fn forward_train_many<'a>(
        requests: impl IntoIterator<Item = ForwardRequest<'a>>,
    ) -> Result<Vec<(SavedForward, ForwardReport)>, Error> {
        let mut requests: Vec<ForwardRequest<'a>> = requests.into_iter().collect();
        let results = {
            let mut parts = Vec::with_capacity(requests.len());
            for ForwardRequest { group, inputs, outputs } in &mut requests {
                let statistics = group.config.statistics(Mode::Train);
                parts.push(Part { group, inputs: *inputs, outputs, statistics });
            }
            forward(&mut parts).await?
        };
        for (request, (_, report)) in requests.iter_mut().zip(&results) {
            request.group.track(Mode::Train, report);
        }
        Ok(results)
    }
}

/// Names the request that an error is of.
fn of(index: usize) -> impl Fn(Error) -> Error {
    move |source| Error::Joint { index, source: Box::new(source) }
}

/// A request during its call, which leaves its layer as it is.
struct Part<'p> {
    group: &'p DeviceGroup,
    inputs: Inputs<'p>,
    outputs: &'p mut [Tensor],
    statistics: Statistics,
}

/// All but the running statistics.
async fn forward(parts: &mut [Part<'_>]) -> Result<Vec<(SavedForward, ForwardReport)>, Error> {
    let mut calls = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        calls.push(part.group.begin(Phase::Forward, 0, part.statistics).map_err(of(index))?);
    }
    let result = phases(parts, &calls).await;
    // One call tells the peers of a failure for all: that of the layer which failed, where it communicates.
    let (failed, error) = match &result {
        Ok(_) => (None, None),
        Err(Error::Joint { index, source }) => (calls[*index].as_ref().map(|_| *index), Some((**source).clone())),
        Err(error) => (None, Some(error.clone())),
    };
    let teller = failed.or_else(|| calls.iter().position(Option::is_some));
    for (index, call) in calls.into_iter().enumerate() {
        let Some(call) = call else { continue };
        call.end(&error.clone().filter(|_| teller == Some(index)).map_or(Ok(()), Err));
    }
    result
}

/// What a request is known to be before anything is submitted.
struct Checked {
    shapes: Vec<Shape>,
    saved: SavedCall,
}

async fn phases(parts: &mut [Part<'_>], calls: &[Option<Call>]) -> Result<Vec<(SavedForward, ForwardReport)>, Error> {
    let Some(group) = parts.first().map(|part| part.group) else { return Ok(Vec::new()) };
    let mut checked = check(parts)?;
    let started = Instant::now();
    let locals = local_stats(group, parts, &checked).await?;
    let gathered = Instant::now();
    let globals = merge(parts, calls, &locals).await?;
    let normalize = |((part, local), global): ((&Part<'_>, &Vec<_>), &GlobalStats)| {
        part.group.normalizations(part.statistics, local, global)
    };
    let normalizations: Vec<Vec<Normalization>> = parts.iter().zip(&locals).zip(&globals).map(normalize).collect();
    let merged = Instant::now();
    apply(group, parts, &mut checked, &normalizations).await?;
    let timing = PhaseTimes { statistics: gathered - started, merge: merged - gathered, apply: merged.elapsed() };
    let exchanges = calls.iter().map(|call| call.as_ref().map_or(0, Call::step));
    let results = checked.into_iter().zip(normalizations).zip(locals.into_iter().zip(globals)).zip(exchanges);
    let results = results.map(|(((checked, normalizations), (local, global)), exchange)| {
        let saved = SavedForward { call: checked.saved, exchange, normalizations };
        (saved, ForwardReport { local, global, timing })
    });
    Ok(results.collect())
}

/// Checks every request, and each against all others.
fn check(parts: &[Part<'_>]) -> Result<Vec<Checked>, Error> {
    let mut checked = Vec::with_capacity(parts.len());
    let first = parts[0].group;
    for (index, part) in parts.iter().enumerate() {
        let (devices, expected) = (&part.group.devices, &first.devices);
        let together = |reason| Err(of(index)(ArgumentError::NotTogether { reason }.into()));
        if devices.len() != expected.len() || devices.iter().zip(expected).any(|(a, b)| !a.is_same(b)) {
            return together("it is on other devices");
        }
        if !part.group.exchange.group().is_same(first.exchange.group()) {
            return together("it is of another process group");
        }
        let one = || -> Result<Checked, Error> {
            let shapes = part.group.check_forward(part.inputs, part.outputs)?;
            let masks = part.group.masks(part.inputs.x, &shapes, part.outputs)?;
            let saved = SavedCall::new(part.group, part.inputs, part.statistics, masks);
            Ok(Checked { shapes, saved })
        };
        checked.push(one().map_err(of(index))?);
    }
    for (index, part) in parts.iter().enumerate() {
        for other in parts.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, part)| part) {
            let residuals = other.inputs.residuals.unwrap_or(&[]);
            let others = [("inputs", other.inputs.x), ("residuals", residuals), ("outputs", &*other.outputs)];
            other.group.check_targets("outputs", part.outputs, &others).map_err(of(index))?;
        }
    }
    Ok(checked)
}

/// Local statistics, `[request][rank][channel]`; no rank where running statistics normalize.
async fn local_stats(
    group: &DeviceGroup,
    parts: &[Part<'_>],
    checked: &[Checked],
) -> Result<Vec<Vec<Vec<ChannelStats>>>, Error> {
    let takes_batch = |part: &Part<'_>| part.statistics != Statistics::Running;
    let eps: Vec<f64> = parts.iter().filter(|part| takes_batch(part)).map(|part| part.group.config.eps).collect();
    let mut pending: Vec<_> = group.devices.iter().map(|_| None).collect();
    for rank in group.gpus_first() {
        let mut views = Vec::with_capacity(parts.len());
        for (part, checked) in parts.iter().zip(checked).filter(|(part, _)| takes_batch(part)) {
            views.push(View { tensor: &part.inputs.x[rank], shape: &checked.shapes[rank] });
        }
        pending[rank] = Some(engine::local_stats_many(&group.devices[rank], &views, &eps)?);
    }
    let ranks = try_join_all(pending.into_iter().flatten()).await?;
    let mut ranks: Vec<_> = ranks.into_iter().map(Vec::into_iter).collect();
    let of_part = |part| match takes_batch(part) {
        true => ranks.iter_mut().filter_map(Iterator::next).collect(),
        false => Vec::new(),
    };
    Ok(parts.iter().map(of_part).collect())
}

/// Statistics of the group for every request that exchanges them; without channels for the others.
async fn merge(
    parts: &[Part<'_>],
    calls: &[Option<Call>],
    locals: &[Vec<Vec<ChannelStats>>],
) -> Result<Vec<GlobalStats>, Error> {
    let (mut indices, mut told) = (Vec::new(), Vec::new());
    for (index, (part, call)) in parts.iter().zip(calls).enumerate() {
        if let Some(call) = call {
            let state = part.group.state_to_tell().await.map_err(of(index))?;
            indices.push(index);
            told.push(Contribution { call, local: &locals[index], state });
        }
    }
    let named = |(call, error): (Option<usize>, ExchangeError)| match call {
        Some(call) => of(indices[call])(error.into()),
        None => error.into(),
    };
    let merged = loop {
        if let Some(merged) = Call::merge(&told).await.map_err(named)? {
            break merged;
        }
        // Some ranks tell a state that others do not: once more, with those of all.
        for (told, &index) in told.iter_mut().zip(&indices).filter(|(told, _)| told.state.is_none()) {
            told.state = Some(parts[index].group.state_checksum().await.map_err(of(index))?);
        }
    };
    told.iter().for_each(|told| told.call.pass());
    let mut globals: Vec<_> =
        parts.iter().map(|part| GlobalStats::finalize(Vec::new(), part.group.config.eps)).collect();
    for (index, channels) in indices.iter().copied().zip(merged) {
        globals[index] = GlobalStats::finalize(channels, parts[index].group.config.eps);
        if globals[index].count() == 1 {
            return Err(of(index)(BatchError::OneValue.into()));
        }
    }
    Ok(globals)
}

/// Normalizes every rank of every request.
async fn apply(
    group: &DeviceGroup,
    parts: &mut [Part<'_>],
    checked: &mut [Checked],
    normalizations: &[Vec<Normalization>],
) -> Result<(), Error> {
    let centering = |normalizations: &Vec<Normalization>| normalizations.iter().map(Normalization::centering).collect();
    let centering: Vec<Vec<_>> = normalizations.iter().map(centering).collect();
    let mut pending = Vec::with_capacity(group.devices.len());
    for rank in group.gpus_first() {
        let mut applies = Vec::with_capacity(parts.len());
        for ((part, checked), centering) in parts.iter_mut().zip(checked.iter_mut()).zip(&centering) {
            let x = View { tensor: &part.inputs.x[rank], shape: &checked.shapes[rank] };
            // One for all ranks, or one for each.
            let centering = &centering[rank % centering.len()];
            let (residual, layer) = (part.inputs.residual(rank), part.group.engine_layer(rank));
            let (y, mask) = (&mut part.outputs[rank], checked.saved.masks_mut().get_mut(rank));
            applies.push(Apply { x, residual, centering, layer, y, mask });
        }
        pending.push(engine::apply_many(&group.devices[rank], applies)?);
    }
    try_join_all(pending).await?;
    Ok(())
}
