//! How the values of an activation lie in memory, and how they are cut into tiles to be summed.
//!
//! The cut depends on the shape alone: sums have the same bits whichever threads take which tile.

mod columns;
mod padding;
mod planes;

pub(super) use columns::{Blocks, ColumnTile, Columns, PATCH_COLUMNS};
pub(super) use padding::Spans;
pub(super) use planes::{PlaneTile, Planes};

use crate::shape::Shape;

/// Positions below which a row of one channel is too short to be summed by itself: one vector
/// register is half filled.
const SHORTEST_PLANE: usize = 32;

/// The two layouts that the kernels distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traversal<'a> {
    Planes(Planes<'a>),
    Columns(Columns<'a>),
}

impl<'a> Traversal<'a> {
    pub fn of(shape: &'a Shape) -> Self {
        let samples = shape.batch();
        let channels = shape.channels();
        let len = shape.spatial_len();
        let valid = shape.padding().map(|padding| padding.positions());
        if channels == 1 && valid.is_none() {
            return Self::Planes(Planes { samples: 1, channels, len: samples * len, valid });
        }
        if len == 1 || shape.strides().inner != 1 {
            let blocks = valid.map(|valid| Blocks { valid, len });
            let rows = samples * len;
            return Self::Columns(Columns { rows, width: channels, repeat: 1, blocks });
        }
        // Of padded samples the short rows of a channel end at places of their own.
        if len < SHORTEST_PLANE && valid.is_none() {
            let width = channels * len;
            return Self::Columns(Columns { rows: samples, width, repeat: len, blocks: None });
        }
        Self::Planes(Planes { samples, channels, len, valid })
    }
}
