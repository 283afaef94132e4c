//! How the values of an activation lie in memory, and how they are cut into tiles to be summed.
//!
//! The cut depends on the shape alone: sums have the same bits whichever threads take which tile.

mod columns;
mod planes;

pub(super) use columns::{ColumnTile, Columns, PATCH_COLUMNS};
pub(super) use planes::{PlaneTile, Planes};

use crate::shape::Shape;

/// Positions below which a row of one channel is too short to be summed by itself: one vector
/// register is half filled.
const SHORTEST_PLANE: usize = 32;

/// The two layouts that the kernels distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traversal {
    Planes(Planes),
    Columns(Columns),
}

impl Traversal {
    pub fn of(shape: &Shape) -> Self {
        let samples = shape.batch();
        let channels = shape.channels();
        let len = shape.spatial_len();
        if channels == 1 {
            return Self::Planes(Planes { samples: 1, channels, len: samples * len });
        }
        if len == 1 || shape.strides().inner != 1 {
            return Self::Columns(Columns { rows: samples * len, width: channels, repeat: 1 });
        }
        if len < SHORTEST_PLANE {
            return Self::Columns(Columns { rows: samples, width: channels * len, repeat: len });
        }
        Self::Planes(Planes { samples, channels, len })
    }
}
