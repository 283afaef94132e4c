//! Sums and ranges of columns.

use pulp::{Simd, WithSimd};

use super::alike;
use super::values::{KINDS, Uniform, defined, grids, in_units, range, values};
use crate::host::exact::columns::{ColumnExtremes, ColumnGrids, ColumnSums};
use crate::host::exact::lanes::DEPTH;
use crate::host::exact::terms::{MOMENTS, PRODUCTS, RESTS, scale_and_offset};
use crate::host::traversal::Columns;
use crate::stats::GridParams;

/// Rows of columns, each of its own grid.
#[derive(Clone, Copy)]
struct Patches<'a> {
    x: &'a [f32],
    g: &'a [f32],
    width: usize,
    grids: &'a ColumnGrids,
}

impl WithSimd for Patches<'_> {
    type Output = ([Vec<[i128; 2]>; 3], [Vec<[u32; 2]>; 2]);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, g, width, grids } = self;
        let mut sums = [(); 3].map(|()| ColumnSums::new(width));
        let mut extremes = [(); 2].map(|()| ColumnExtremes::new(width));
        let rows: Vec<[&[f32]; 2]> =
            x.chunks(width).zip(g.chunks(width)).map(|(x, g)| [x, g]).collect();
        for rows in rows.chunks(DEPTH) {
            sums[0].add::<S, MOMENTS>(simd, 0, width, grids, rows);
            sums[1].add::<S, RESTS>(simd, 0, width, grids, rows);
            sums[2].add::<S, PRODUCTS>(simd, 0, width, grids, rows);
            // The range is of the second of each two values.
            let of_x: Vec<[&[f32]; 2]> = rows.iter().map(|[x, g]| [*g, *x]).collect();
            extremes[0].add::<S, false>(simd, 0, width, &of_x);
            extremes[1].add::<S, true>(simd, 0, width, rows);
        }
        let of = Columns { rows: rows.len(), width, repeat: 1, blocks: None };
        let [a, b, c] = &sums;
        let sums = [
            a.totals::<MOMENTS>(of, width),
            b.totals::<RESTS>(of, width),
            c.totals::<PRODUCTS>(of, width),
        ];
        let bits = |ends: Vec<[f32; 2]>| {
            let bits = |ends: [f32; 2]| ends.map(|end| (end + 0.0).to_bits());
            ends.into_iter().map(bits).collect::<Vec<_>>()
        };
        let ends =
            [extremes[0].ends::<false>(of, width), extremes[1].ends::<true>(of, width)].map(bits);
        (sums, ends)
    }
}

#[test]
fn columns_have_the_sums_of_the_definition_on_every_instruction_set() {
    let mut random = Uniform::new(5);
    for width in [1, 3, 8, 15, 16, 17, 31, 32, 33, 100, 300] {
        for rows in [1, 2, 3, 4, 5, 15, 16, 17, 40] {
            let columns: Vec<[Vec<f32>; 2]> = (0..width)
                .map(|column| {
                    let kinds = [column, column / 7 + rows];
                    kinds.map(|kind| values(KINDS[kind % KINDS.len()], rows, &mut random))
                })
                .collect();
            let of: Vec<[GridParams; 2]> = columns.iter().map(|[x, g]| grids(x, g)).collect();
            let spread = |which: usize, part: usize| -> Vec<f32> {
                of.iter().map(|of| scale_and_offset(&of[which])[part]).collect()
            };
            let grids =
                ColumnGrids { x: [spread(0, 0), spread(0, 1)], g: [spread(1, 0), spread(1, 1)] };
            let all = &columns;
            let of_all = &of;
            let in_rows = |which: usize| -> Vec<f32> {
                let row = |row: usize| {
                    let of_column =
                        move |column: usize| all[column][which][row] * of_all[column][which].unit;
                    (0..width).map(of_column)
                };
                (0..rows).flat_map(row).collect()
            };
            let [x, g] = [0, 1].map(in_rows);
            let what = format!("{rows} rows of {width}");
            let (sums, ends) = alike(Patches { x: &x, g: &g, width, grids: &grids }, &what);
            for (column, [x, g]) in columns.iter().enumerate() {
                let expected = defined(x, g, of[column]);
                let found = [0, 1, 2].map(|kind| sums[kind][column]);
                assert_eq!(found, expected, "{what}, column {column}");
                let range = range(&in_units(x, &of[column][0]));
                let found = ends[0][column].map(f32::from_bits);
                assert_eq!(found, [range.low, range.high], "{what}, column {column}");
            }
        }
    }
}
