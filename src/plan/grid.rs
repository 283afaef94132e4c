//! The units in which kernels walk an activation: single values, or quads of four that lie next to
//! each other.
//!
//! Where quads straddle two channels, kernels that sum may walk those that cover a plane: from the
//! one that its first value is in to that of its last. Values of the neighbours do not count.

use super::finalize::MOST_FUSED_BYTES;
use super::partition::is_beyond_a_tile;
use super::{Activation, DeviceCaps, MaskOrder};
use crate::dtype::DType;
use crate::shaders::Elements;
use crate::shape::{Layout, Shape, Strides};

/// An activation in units.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    /// Its shape in units: L/4 positions or C/4 channels where four of them are one; as many
    /// positions as quads may cover a plane.
    pub shape: Shape,
    /// Strides of x, by which a walk finds a unit. Of quads that cover planes those of the planes,
    /// in elements; their quads follow each other.
    pub x: Strides,
    /// Elements in which memory is counted: 1, or 4 where units are quads of a channel or of four.
    pub unit: u64,
    /// L where units are the quads that cover planes, 0 otherwise.
    pub plane: u64,
    /// Whether the elements of a unit are of four channels; of one channel otherwise.
    pub four_channels: bool,
    /// Whether grad_output lies as x does.
    pub same_layout: bool,
    /// Strides of grad_output: in units where it lies as x does, in elements from unit to unit
    /// otherwise.
    pub g: Strides,
    /// Elements of grad_output from one value of a unit to the next, where it does not lie as x
    /// does.
    pub g_value_stride: u32,
    /// Whether samples are padded: then each has tiles of its own.
    pub is_padded: bool,
}

/// L from which on planes are covered by quads: of fewer values, too many would not count.
const LEAST_COVERED: u64 = 13;

impl Grid {
    /// The units of kernels that sum: quads that cover planes where they straddle channels, no
    /// sample is padded, grad_output lies as x does, a mask does not lie as lanes walk, and the last
    /// quad is whole. Depends on these, the shape, the layout and the storage type of x alone.
    pub fn of_sums(
        x: Activation<'_>,
        g: &Shape,
        mask: Option<MaskOrder>,
        caps: &DeviceCaps,
    ) -> Self {
        let single = Self::new(x, g, caps);
        let strides = x.shape.strides();
        let [channels, inner] = [x.shape.channels(), x.shape.spatial_len()];
        let elements = x.shape.elements();
        // One kernel writes value by value as it sums; words of 16 bits are never written so.
        let may_be_fused = x.dtype == DType::F32 && x.bytes() <= MOST_FUSED_BYTES / 2;
        let is_covered = caps.quads
            && !single.is_quads()
            && strides.inner == 1
            && single.same_layout
            && !single.is_padded
            && mask != Some(MaskOrder::ByInvocation)
            && inner as u64 >= LEAST_COVERED
            && elements.is_multiple_of(4)
            && !may_be_fused;
        // A plane begins at a multiple of the greatest common divisor of L and a quad's values.
        let last_start = match inner % 4 {
            0 => 0,
            2 => 2,
            _ => 3,
        };
        let quads = inner.saturating_add(last_start).saturating_sub(1) / 4 + 1;
        let covering = Shape::new(&[x.shape.batch(), channels, quads], Layout::ChannelsFirst);
        match covering {
            Ok(shape) if is_covered && !is_beyond_a_tile(&shape) => {
                let x = Strides { inner: 0, ..strides };
                Self { shape, x, plane: inner as u64, ..single }
            }
            _ => single,
        }
    }

    /// Quads where the device reads them and they do not straddle two channels or samples, single
    /// values otherwise.
    pub fn new(x: Activation<'_>, g: &Shape, caps: &DeviceCaps) -> Self {
        let quads = if caps.quads { quads(x.shape) } else { None };
        let x = x.shape;
        let is_padded = x.padding().is_some();
        let g_strides = g.strides();
        let same_layout = x.strides() == g_strides;
        let Some((shape, four_channels)) = quads else {
            return Self {
                // Padded or not, it is walked with all of its memory.
                shape: x.clone().with_padding(None),
                x: x.strides(),
                unit: 1,
                plane: 0,
                four_channels: false,
                same_layout,
                g: g_strides,
                g_value_stride: 0,
                is_padded,
            };
        };
        let (g, g_value_stride) = match (same_layout, four_channels) {
            (true, _) => (shape.strides(), 0),
            (false, false) => {
                (Strides { inner: 4 * g_strides.inner, ..g_strides }, g_strides.inner)
            }
            (false, true) => {
                (Strides { channel: 4 * g_strides.channel, ..g_strides }, g_strides.channel)
            }
        };
        Self {
            x: shape.strides(),
            shape,
            unit: 4,
            plane: 0,
            four_channels,
            same_layout,
            g,
            g_value_stride: g_value_stride as u32,
            is_padded,
        }
    }

    /// What an invocation loads at once.
    pub fn elements(&self) -> Elements {
        match (self.is_quads(), self.four_channels) {
            _ if self.covers() => Elements::Covering,
            (false, _) => Elements::Single,
            (true, false) => Elements::Quads,
            (true, true) => Elements::FourChannels,
        }
    }

    /// Whether the values of a unit of grad_output are strided.
    pub fn g_is_strided(&self) -> bool {
        self.is_quads() && !self.same_layout
    }

    /// Whether units are the quads that cover planes.
    pub fn covers(&self) -> bool {
        self.plane > 0
    }

    /// Whether units are quads.
    pub fn is_quads(&self) -> bool {
        self.unit == 4 || self.covers()
    }

    /// Elements that an invocation loads at once.
    pub fn load(&self) -> u64 {
        if self.is_quads() { 4 } else { 1 }
    }

    /// Whether tiles have counts of their own.
    pub fn keeps_counts(&self) -> bool {
        self.is_padded || self.covers()
    }

    /// Values of one channel that a unit has.
    pub fn values_per_unit(&self) -> u32 {
        if self.is_quads() && !self.four_channels { 4 } else { 1 }
    }

    /// Where the walk's addresses in grad_output begin, from where those in x do.
    pub fn g_origin(&self, x_origin: u32) -> u32 {
        if self.g_is_strided() { x_origin.wrapping_mul(4) } else { x_origin }
    }
}

/// The shape in quads and whether they are of four channels; `None` where four neighbours straddle
/// two channels or samples.
fn quads(x: &Shape) -> Option<(Shape, bool)> {
    let batch = x.batch();
    let channels = x.channels();
    let inner = x.spatial_len();
    let of_four_channels = x.strides().channel == 1;
    let shape = if of_four_channels && channels.is_multiple_of(4) {
        Shape::new(&[batch, inner, channels / 4], Layout::ChannelsLast)
    } else if !of_four_channels && inner.is_multiple_of(4) {
        Shape::new(&[batch, channels, inner / 4], Layout::ChannelsFirst)
    } else {
        return None;
    };
    Some((shape.ok()?, of_four_channels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SumsPlan;
    use crate::shaders::TileParams;

    /// How many values count of each of the 16 quads of a lane that begins at a quad of a plane, of
    /// a channel whose planes begin at some value of a quad.
    fn counts(params: &TileParams, first_quad: u32, first_value: u32) -> Vec<u32> {
        let [mut plane, mut quad] = [first_value, first_quad];
        let step = 1 << params.lanes_per_run_log2;
        let of_quad = |plane: u32, quad: u32| {
            let values = (4 * quad..4 * quad + 4).map(|value| value.wrapping_sub(plane % 4));
            values.filter(|&value| value < params.run).count() as u32
        };
        let mut counts = Vec::new();
        for _ in 0..16 {
            counts.push(of_quad(plane, quad));
            plane += (quad + step) / params.inner * params.x_sample;
            quad = (quad + step) % params.inner;
        }
        counts
    }

    #[test]
    fn f32_is_covered_where_no_kernel_writes_value_by_value() {
        let elements = |batch: usize| {
            let shape = Shape::new(&[batch, 3, 13], Layout::ChannelsFirst).expect("a shape");
            let x = Activation { shape: &shape, dtype: DType::F32 };
            Grid::of_sums(x, &shape, None, &DeviceCaps::PORTABLE).elements()
        };
        // 4 MiB are 1,048,576 values: 26,888 samples are the first whole quads beyond.
        let found = [26_884, 26_888].map(elements);
        assert_eq!(found, [Elements::Single, Elements::Covering]);
    }

    #[test]
    fn eight_quads_that_cover_planes_have_two_fifths_of_the_values_of_a_lane() {
        let mut worst: f64 = 0.0;
        let mut steps = Vec::new();
        let batches = [1, 2, 4, 8, 64];
        let each = (13..140).flat_map(|inner| (1..5).map(move |channels| [channels, inner]));
        let each = each.flat_map(|[channels, inner]| batches.map(|batch| [batch, channels, inner]));
        for dims in each.filter(|dims| dims.iter().product::<usize>().is_multiple_of(4)) {
            let shape = Shape::new(&dims, Layout::ChannelsFirst).expect("a shape");
            let x = Activation { shape: &shape, dtype: DType::BF16 };
            let plan = SumsPlan::statistics(x, &DeviceCaps::PORTABLE).expect("limits");
            let plan = plan.expect("values");
            let params = &plan.partials[0].params;
            let is_covered = plan.partials[0].variant.kernel.elements() == Elements::Covering;
            assert_eq!(is_covered, !dims[2].is_multiple_of(4), "{dims:?}");
            if !is_covered {
                continue;
            }
            steps.push(params.lanes_per_run_log2);
            for (quad, value) in (0..params.inner).flat_map(|quad| (0..4).map(move |v| (quad, v))) {
                let counts = counts(params, quad, value);
                for elements in 1..=16 {
                    let all: u32 = counts[..elements].iter().sum();
                    let of_pivot: u32 = counts[..elements.min(8)].iter().sum();
                    let of_first: u32 = counts[..elements.min(4)].iter().sum();
                    // The first value of a lane is among the first four quads.
                    assert_eq!(all == 0, of_first == 0, "{dims:?} {quad} {value} {elements}");
                    worst = worst.max(f64::from(all) / f64::from(of_pivot.max(1)));
                }
            }
        }
        assert!((0..4).all(|log2| steps.contains(&log2)), "not all steps");
        assert!(worst > 1.9 && worst <= 2.5, "{worst}");
    }
}
