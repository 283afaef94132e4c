//! Reports the crate's work by `tracing`: its passes, their cost, and findings about devices. The
//! documentation of the crate lists targets, levels and fields.
//!
//! All use of `tracing` lies here. `trace/absent.rs` takes its place without that feature.

use std::fmt::{self, Debug, Display};

use tracing::Instrument;
use tracing::field::Empty;
use web_time::Instant;

/// The time of a pass or of an exchange.
pub(crate) struct Span(tracing::Span);

/// A pass over `ranks` ranks of these layers, each by its name and number. Bytes are computed only
/// if the span is enabled.
pub(crate) fn pass<'l>(
    phase: impl Display,
    layers: impl Iterator<Item = (&'l str, u64)> + Clone,
    rank: usize,
    ranks: usize,
    bytes: impl FnOnce() -> u64,
) -> Span {
    Span(tracing::debug_span!(
        target: "syncbn::pass",
        "pass",
        %phase,
        layer = %Names(layers),
        rank,
        ranks,
        bytes = bytes(),
        micros = Empty,
    ))
}

/// A message of a rank for these layers, and those of all others.
pub(crate) fn exchange<'l>(
    phase: impl Display,
    layers: impl Iterator<Item = (&'l str, u64)> + Clone,
    rank: usize,
) -> Span {
    Span(tracing::debug_span!(
        target: "syncbn::exchange",
        "exchange",
        %phase,
        layer = %Names(layers),
        rank,
        bytes = Empty,
        micros = Empty,
    ))
}

impl Span {
    /// Records the number of bytes of the message.
    pub fn sends(&self, bytes: usize) {
        self.0.record("bytes", bytes);
    }

    /// Does the work within the span.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = self.started();
        let done = self.0.in_scope(work);
        self.end(started);
        done
    }

    /// The work of a future within the span.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        let started = self.started();
        let done = work.instrument(self.0.clone()).await;
        self.end(started);
        done
    }

    /// Now, if the span is enabled.
    fn started(&self) -> Option<Instant> {
        (!self.0.is_disabled()).then(Instant::now)
    }

    fn end(&self, started: Option<Instant>) {
        if let Some(started) = started {
            self.0.record("micros", started.elapsed().as_micros() as u64);
        }
    }
}

/// Names of layers, or the number of a layer without a name.
struct Names<I>(I);

impl<'l, I: Iterator<Item = (&'l str, u64)> + Clone> Display for Names<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, number)) in self.0.clone().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            match name {
                "" => write!(f, "{between}#{number}")?,
                name => write!(f, "{between}{name}")?,
            }
        }
        Ok(())
    }
}

/// These devices were opened.
pub(crate) fn opened(devices: &[impl Debug]) {
    tracing::info!(target: "syncbn::device", ?devices, "devices");
}

/// The driver of a device has a defect.
pub(crate) fn defect(device: &str, defect: &impl Display) {
    tracing::warn!(target: "syncbn::probe", device, "{defect}");
}

/// Memory is allocated on a device.
pub(crate) fn allocation(size_bytes: u64) {
    tracing::trace!(target: "syncbn::memory", size_bytes, "allocating");
}

/// Commands are given to a queue.
pub(crate) fn submission() {
    cost("submission");
}

/// A bind group is made.
pub(crate) fn bind_group() {
    cost("bind group");
}

/// A pipeline is built.
pub(crate) fn pipeline() {
    cost("pipeline");
}

/// A lock of a device is taken.
pub(crate) fn lock() {
    cost("lock");
}

/// A layer's pass has taken its sums and outputs channel by channel, on the host.
pub(crate) fn fused() {
    cost("fused");
}

fn cost(what: &'static str) {
    tracing::trace!(target: "syncbn::cost", what);
}
