//! Which addresses of a padded activation count.
//!
//! Owns the cut of a run of memory into spans: those that a kernel computes, and those that get
//! zeros.

use std::ops::Range;

use crate::shape::Shape;

/// Addresses of a padded activation: runs of `period` values, of which the first ones count.
#[derive(Clone, Copy, Debug)]
pub(in crate::host) struct Spans<'a> {
    /// Positions that count, by sample.
    valid: &'a [usize],
    /// Values of a sample.
    sample: usize,
    /// Values from one run to the next.
    period: usize,
    /// Values of a run for each position.
    per_position: usize,
}

impl<'a> Spans<'a> {
    /// `None` where every address counts.
    pub fn of(shape: &'a Shape) -> Option<Self> {
        let valid = shape.padding()?.positions();
        let strides = shape.strides();
        // Channels first, each channel of a sample is a run; channels last, a sample is one.
        let (period, per_position) = if strides.inner == 1 {
            (shape.spatial_len(), 1)
        } else {
            (strides.sample, strides.inner)
        };
        Some(Self { valid, sample: strides.sample, period, per_position })
    }

    /// The addresses of a range in spans, from left to right, each with whether it counts.
    pub fn each(self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> + use<'a> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let start = at;
            let run = start / self.period * self.period;
            let border = run + self.valid[start / self.sample] * self.per_position;
            let counts = start < border;
            at = range.end.min(if counts { border } else { run + self.period });
            Some((start..at, counts))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Layout;

    #[test]
    fn spans_cover_a_range_once_and_tell_what_counts() {
        for (dims, layout) in
            [(&[3, 2, 5][..], Layout::ChannelsFirst), (&[3, 5, 2], Layout::ChannelsLast)]
        {
            let lengths = [4, 0, 5];
            let shape = Shape::new(dims, layout).expect("a valid shape").with_lengths(&lengths);
            let strides = shape.strides();
            for range in [0..30, 3..29, 7..8, 11..12, 12..12] {
                let spans = Spans::of(&shape).expect("padded");
                let found = spans.each(range.clone());
                let found = found.flat_map(|(span, counts)| span.map(move |at| (at, counts)));
                let expected = range.map(|at| {
                    let position = at % strides.sample / strides.inner % 5;
                    let position = if strides.inner == 1 { at % 5 } else { position };
                    (at, position < lengths[at / strides.sample] as usize)
                });
                assert!(found.eq(expected), "{dims:?} {layout:?}");
            }
        }
    }
}
