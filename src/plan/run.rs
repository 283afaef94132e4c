//! Runs: the parts of large activations that kernels write address by address, which own whole
//! words of 16-bit outputs, or quads.

use super::mask::place_by_address;
use super::window::Span;
use super::{MOST_SAMPLES, MaskOrder};
use crate::shaders::{FLAT_GROUP, LENGTHS, TileParams};
use crate::shape::Shape;

/// Elements at whose multiples runs begin: whole words, and whole steps of a window's alignment. With
/// a mask also whole groups of its words.
const GRAIN: u64 = 512;

/// A range of addresses, and where channels begin in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where x lies, what is written in its layout, and grad_output.
    pub span: Span,
    /// Address within the span of the first element that is written.
    pub first_element: u32,
    /// The address after the last.
    pub end_element: u32,
    /// Channel of the element at address 0.
    pub run_channel: u32,
    /// Address where the next channel begins.
    pub run_end: u32,
    /// What makes an address one from the start of the span's first sample, modulo 2³².
    pub run_start: u32,
}

impl Run {
    /// Parameters of a kernel that writes this run of `x`, with `g` beside it. Flags are 0.
    pub(super) fn params(&self, x: &Shape, g: &Shape) -> TileParams {
        let x_strides = x.strides();
        let g_strides = g.strides();
        let [mask_origin, mask_offset] = place_by_address(self.span.elements.start, 1);
        TileParams {
            channels: x.channels() as u32,
            unit: 1.0,
            mask_origin,
            mask_offset,
            padded: x.padding().is_some().into(),
            first_length: self.span.first_length(),
            run_start: self.run_start,
            first_element: self.first_element,
            end_element: self.end_element,
            run: to_u32(channel_run(x)),
            run_channel: self.run_channel,
            run_end: self.run_end,
            same_layout: (x_strides == g_strides).into(),
            x_sample: x_strides.sample as u32,
            x_channel: x_strides.channel as u32,
            x_inner: x_strides.inner as u32,
            g_origin: self.span.origin,
            g_sample: g_strides.sample as u32,
            g_channel: g_strides.channel as u32,
            g_inner: g_strides.inner as u32,
            ..TileParams::default()
        }
    }
}

/// Neighbours in memory that are of one channel, as kernels count them.
pub(super) fn channel_run(shape: &Shape) -> u64 {
    if shape.strides().inner == 1 { shape.spatial_len() as u64 } else { 1 }
}

fn to_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Runs of up to `capacity` elements, for tensors of one layout; `None` where nothing fits.
pub(super) fn runs(shape: &Shape, capacity: u64, mask: Option<MaskOrder>) -> Option<Vec<Run>> {
    let grain = if mask.is_some() { FLAT_GROUP } else { GRAIN };
    let elements = shape.elements();
    let run = channel_run(shape);
    let channels = shape.channels() as u64;
    let sample = shape.strides().sample as u64;
    // Of padded samples as many as a dispatch has lengths for; a kernel counts from their start.
    // Those of one value begin where lengths may be bound.
    let is_padded = shape.padding().is_some();
    let most = match sample {
        _ if !is_padded => u64::MAX,
        1 => LENGTHS,
        _ => (MOST_SAMPLES - 1).saturating_mul(sample),
    };
    let capacity = capacity.min(most);
    if is_padded && sample + capacity > u64::from(u32::MAX) {
        return None;
    }
    let step = if elements <= capacity { elements } else { capacity / grain * grain };
    let run_from = |first: u64| {
        let end = elements.min(first + step);
        let span = Span::new(first..end, first).at_sample(first / sample.max(1));
        Run {
            span,
            first_element: 0,
            end_element: (end - first) as u32,
            run_channel: (first / run % channels) as u32,
            run_end: to_u32(run - first % run),
            run_start: (first % sample.max(1)) as u32,
        }
    };
    (step > 0).then(|| (0..elements).step_by(step as usize).map(run_from).collect())
}

/// Runs of whole samples, for tensors of different layouts; `None` where a sample exceeds
/// `capacity`, or one of an odd number of elements half of it: words may not be shared by two runs.
pub(super) fn sample_runs(shape: &Shape, capacity: u64) -> Option<Vec<Run>> {
    let samples = shape.batch() as u64;
    let sample = shape.strides().sample as u64;
    let run = channel_run(shape);
    let fitting = capacity / sample;
    let fitting = if shape.padding().is_some() { fitting.min(MOST_SAMPLES) } else { fitting };
    let step =
        if fitting >= samples || sample.is_multiple_of(2) { fitting } else { fitting / 2 * 2 };
    let run_from = |first: u64| {
        let range = first * sample..samples.min(first + step) * sample;
        let elements = range.end - range.start;
        let zero = range.start;
        let span = Span::new(range, zero).at_sample(first);
        let first_element = span.origin;
        Run {
            span,
            first_element,
            end_element: first_element + elements as u32,
            run_channel: 0,
            run_end: first_element + to_u32(run),
            run_start: first_element.wrapping_neg(),
        }
    };
    (step > 0).then(|| (0..samples).step_by(step as usize).map(run_from).collect())
}
