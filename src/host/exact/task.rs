//! The results of a walk through an activation: sums of integers, or ranges.

use pulp::Simd;

use super::columns::{ColumnExtremes, ColumnGrids, ColumnSums};
use super::extremes::Extremes;
use super::join_ends;
use super::lanes::Sums;
use crate::host::traversal::Columns;

/// The results of values: two sums, or both ends of a range.
pub(super) trait Task: Copy + Sync {
    /// Of one channel.
    type Of: Copy + Send;
    /// While a channel's runs are gone through.
    type Lanes: Clone;
    /// While rows are gone through.
    type ByColumn;

    const NONE: Self::Of;
    fn merge(to: &mut Self::Of, other: Self::Of);
    fn lanes() -> Self::Lanes;
    /// Adds the first `n` of both values.
    fn add<S: Simd>(
        simd: S,
        lanes: &mut Self::Lanes,
        values: [&[f32]; 2],
        n: usize,
        grids: [[f32; 2]; 2],
    );
    fn of_lanes(lanes: Self::Lanes) -> Self::Of;
    fn by_column(columns: usize) -> Self::ByColumn;
    fn add_rows<S: Simd>(
        simd: S,
        to: &mut Self::ByColumn,
        column: usize,
        len: usize,
        grids: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    );
    fn of_columns(columns: &Self::ByColumn, of: Columns, channels: usize) -> Vec<Self::Of>;
}

/// Two sums of integers, of the kind of [`terms`](super::terms).
#[derive(Clone, Copy)]
pub(super) struct Summed<const OP: u8>;

impl<const OP: u8> Task for Summed<OP> {
    type Of = [i128; 2];
    type Lanes = Sums;
    type ByColumn = ColumnSums;

    const NONE: [i128; 2] = [0; 2];

    fn merge(to: &mut [i128; 2], other: [i128; 2]) {
        to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
    }

    fn lanes() -> Sums {
        Sums::ZERO
    }

    #[inline(always)]
    fn add<S: Simd>(
        simd: S,
        lanes: &mut Sums,
        values: [&[f32]; 2],
        n: usize,
        grids: [[f32; 2]; 2],
    ) {
        lanes.add::<S, OP>(simd, values, n, grids);
    }

    #[inline(always)]
    fn of_lanes(lanes: Sums) -> [i128; 2] {
        lanes.totals::<OP>()
    }

    fn by_column(columns: usize) -> ColumnSums {
        ColumnSums::new(columns)
    }

    #[inline(always)]
    fn add_rows<S: Simd>(
        simd: S,
        to: &mut ColumnSums,
        column: usize,
        len: usize,
        grids: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    ) {
        to.add::<S, OP>(simd, column, len, grids, rows);
    }

    fn of_columns(columns: &ColumnSums, of: Columns, channels: usize) -> Vec<[i128; 2]> {
        columns.totals::<OP>(of, channels)
    }
}

/// Both ends of the second of each two values.
#[derive(Clone, Copy)]
pub(super) struct Ends<const SYMMETRIC: bool>;

impl<const SYMMETRIC: bool> Task for Ends<SYMMETRIC> {
    type Of = [f32; 2];
    type Lanes = Extremes;
    type ByColumn = ColumnExtremes;

    const NONE: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

    fn merge(to: &mut [f32; 2], other: [f32; 2]) {
        *to = join_ends(*to, other);
    }

    fn lanes() -> Extremes {
        Extremes::NONE
    }

    #[inline(always)]
    fn add<S: Simd>(
        simd: S,
        lanes: &mut Extremes,
        [_, g]: [&[f32]; 2],
        n: usize,
        _: [[f32; 2]; 2],
    ) {
        lanes.add::<S, SYMMETRIC>(simd, g, n);
    }

    #[inline(always)]
    fn of_lanes(lanes: Extremes) -> [f32; 2] {
        lanes.ends::<SYMMETRIC>()
    }

    fn by_column(columns: usize) -> ColumnExtremes {
        ColumnExtremes::new(columns)
    }

    #[inline(always)]
    fn add_rows<S: Simd>(
        simd: S,
        to: &mut ColumnExtremes,
        column: usize,
        len: usize,
        _: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    ) {
        to.add::<S, SYMMETRIC>(simd, column, len, rows);
    }

    fn of_columns(columns: &ColumnExtremes, of: Columns, channels: usize) -> Vec<[f32; 2]> {
        columns.ends::<SYMMETRIC>(of, channels)
    }
}
