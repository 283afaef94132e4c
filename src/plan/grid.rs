//! The units in which kernels walk an activation: single values, or quads of four that lie next to
//! each other.

use super::{Activation, DeviceCaps};
use crate::shaders::Elements;
use crate::shape::{Layout, Shape, Strides};

/// An activation in units.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    /// Its shape in units: L/4 positions or C/4 channels where four of them are one.
    pub shape: Shape,
    /// Elements of a unit: 1 or 4.
    pub unit: u64,
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

impl Grid {
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
                unit: 1,
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
            shape,
            unit: 4,
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
            (false, _) => Elements::Single,
            (true, false) => Elements::Quads,
            (true, true) => Elements::FourChannels,
        }
    }

    /// Whether the values of a unit of grad_output are strided.
    pub fn g_is_strided(&self) -> bool {
        self.is_quads() && !self.same_layout
    }

    /// Whether units are quads.
    pub fn is_quads(&self) -> bool {
        self.unit == 4
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
