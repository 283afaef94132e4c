//! Kernels of every instruction set that the processor has, against plain arithmetic and against
//! the definition: sums and ranges are equal to the bit.

use pulp::{Scalar, Simd, WithSimd};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::columns::{ColumnExtremes, ColumnGrids, ColumnSums};
use super::extremes::Extremes;
use super::lanes::{DEPTH, Sums};
use super::terms::{MOMENTS, PRODUCTS, RESTS, scale_and_offset};
use crate::host::traversal::Columns;
use crate::stats::{GridParams, ValueRange};

/// Runs work with every instruction set, by its name, that of no vectors first.
fn on_all<W: WithSimd + Copy>(work: W) -> Vec<(&'static str, W::Output)> {
    let mut found = vec![("none", Simd::vectorize(Scalar::new(), work))];
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        found.extend(V3::try_new().map(|simd| ("AVX2", Simd::vectorize(simd, work))));
        found.extend(V4::try_new().map(|simd| ("AVX-512", Simd::vectorize(simd, work))));
    }
    #[cfg(target_arch = "aarch64")]
    {
        use pulp::aarch64::{Neon, NeonFcma};
        found.extend(Neon::try_new().map(|simd| ("NEON", Simd::vectorize(simd, work))));
        found.extend(
            NeonFcma::try_new().map(|simd| ("NEON with FCMA", Simd::vectorize(simd, work))),
        );
    }
    found
}

/// The same results of all of them.
fn alike<W: WithSimd + Copy>(work: W, what: &str) -> W::Output
where
    W::Output: PartialEq + std::fmt::Debug,
{
    let mut found = on_all(work).into_iter();
    let (_, expected) = found.next().expect("no vectors");
    for (name, found) in found {
        assert_eq!(found, expected, "{what}: {name}");
    }
    expected
}

/// Random numbers, the same in every run.
struct Uniform(ChaCha8Rng);

impl Uniform {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From −1 to 1.
    fn next(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        (((self.next() + 1.0) / 2.0) * n as f64) as usize
    }
}

/// Kinds of values.
const KINDS: [&str; 10] = [
    "uniform",
    "constant",
    "far mean",
    "outliers",
    "both ends",
    "largest",
    "tiny",
    "subnormal",
    "integers",
    "half steps",
];

fn values(kind: &str, len: usize, random: &mut Uniform) -> Vec<f32> {
    let mut value = |at: usize| {
        let of = random.next();
        let sign = of.signum();
        match kind {
            "uniform" => of,
            "constant" => 10_000.1,
            "far mean" => 1e6 + of,
            "outliers" if at.is_multiple_of(977) => 1370.0 * sign,
            "outliers" => 1.247 * sign,
            "both ends" => sign,
            "largest" => 3.4e38 * sign,
            "tiny" => 1e-33 * of,
            "subnormal" => f64::from(f32::MIN_POSITIVE) * of,
            "integers" => (of * 100.0).round(),
            _ => (of * 1e6).round() + 0.5,
        }
    };
    (0..len).map(|at| value(at) as f32).collect()
}

fn range(values: &[f32]) -> ValueRange {
    values.iter().fold(ValueRange::EMPTY, |range, &x| {
        range.merge(if x.is_finite() {
            ValueRange { count: 1, low: x, high: x }
        } else {
            ValueRange::not_finite(1)
        })
    })
}

/// The grid of values, and that of gradients.
fn grids(x: &[f32], g: &[f32]) -> [GridParams; 2] {
    let largest = g.iter().fold(0f32, |most, g| most.max(g.abs()));
    let of_g = ValueRange { count: g.len() as u64, low: -largest, high: largest };
    [range(x).grid().params(), of_g.grid().params()]
}

/// Both sums of x and g by the definition, of every kind.
fn defined(x: &[f32], g: &[f32], [of_x, of_g]: [GridParams; 2]) -> [[i128; 2]; 3] {
    let mut sums = [[0; 2]; 3];
    for (x, g) in x.iter().zip(g) {
        let [q, r] = of_x.integers(*x).map(i128::from);
        let [w, _] = of_g.integers(*g).map(i128::from);
        for (sums, of) in sums.iter_mut().zip([[q, q * q], [r, (q << 25) * r + r * r], [w, q * w]])
        {
            sums[0] += of[0];
            sums[1] += of[1];
        }
    }
    sums
}

/// In units of its grid, as the walk has them.
fn in_units(values: &[f32], grid: &GridParams) -> Vec<f32> {
    values.iter().map(|value| value * grid.unit).collect()
}

/// The sums of runs one after the other, which end at `cuts`.
#[derive(Clone, Copy)]
struct Runs<'a> {
    x: &'a [f32],
    g: &'a [f32],
    cuts: &'a [usize],
    grids: [[f32; 2]; 2],
}

impl WithSimd for Runs<'_> {
    type Output = ([[i128; 2]; 3], [[u32; 2]; 2]);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let mut sums = [const { Sums::ZERO }; 3];
        let mut extremes = [const { Extremes::NONE }; 2];
        let mut start = 0;
        for &end in self.cuts {
            // With what follows, and without.
            let last = if end % 2 == 0 { end } else { self.x.len() };
            let [x, g] = [&self.x[start..last], &self.g[start..last]];
            let n = end - start;
            sums[0].add::<S, MOMENTS>(simd, [x, g], n, self.grids);
            sums[1].add::<S, RESTS>(simd, [x, g], n, self.grids);
            sums[2].add::<S, PRODUCTS>(simd, [x, g], n, self.grids);
            extremes[0].add::<S, false>(simd, x, n);
            extremes[1].add::<S, true>(simd, g, n);
            start = end;
        }
        let [a, b, c] = sums;
        let sums = [a.totals::<MOMENTS>(), b.totals::<RESTS>(), c.totals::<PRODUCTS>()];
        // A zero has either sign until ranges merge.
        let bits = |ends: [f32; 2]| ends.map(|end| (end + 0.0).to_bits());
        (sums, [bits(extremes[0].ends::<false>()), bits(extremes[1].ends::<true>())])
    }
}

/// Where runs of about `longest` values end.
fn cuts(len: usize, longest: usize, random: &mut Uniform) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut end = 0;
    while end < len {
        end = len.min(end + 1 + random.below(longest));
        cuts.push(end);
    }
    cuts
}

fn check_runs(x: &[f32], g: &[f32], cuts: &[usize], what: &str) {
    let [of_x, of_g] = grids(x, g);
    let expected = defined(x, g, [of_x, of_g]);
    let scaled = [in_units(x, &of_x), in_units(g, &of_g)];
    let grids = [&of_x, &of_g].map(scale_and_offset);
    let (sums, _) = alike(Runs { x: &scaled[0], g: &scaled[1], cuts, grids }, what);
    assert_eq!(sums, expected, "{what}");
    let (_, [ends, largest]) = alike(Runs { x, g, cuts, grids: [[0.0; 2]; 2] }, what);
    let range = range(x);
    assert_eq!(ends.map(f32::from_bits), [range.low, range.high], "{what}");
    let most = g.iter().fold(0f32, |most, g| most.max(g.abs()));
    assert_eq!(largest.map(f32::from_bits), [0.0 - most, most], "{what}");
}

#[test]
fn runs_of_any_length_have_the_sums_of_the_definition_on_every_instruction_set() {
    let mut random = Uniform::new(3);
    let lengths = (1..=70).chain([127, 128, 129, 255, 256, 257, 784, 1023, 1024, 1025, 5000]);
    for (number, len) in lengths.enumerate() {
        // Every kind of values in turn, each beside every kind of gradients in time.
        for kind in 0..KINDS.len() {
            let [of_x, of_g] = [kind, kind * 3 + number].map(|kind| KINDS[kind % KINDS.len()]);
            let [x, g] = [of_x, of_g].map(|kind| values(kind, len, &mut random));
            check_runs(&x, &g, &[len], &format!("{len} values, {of_x} and {of_g}"));
        }
    }
}

#[test]
fn runs_of_a_tile_have_the_sums_of_the_definition_however_they_are_cut() {
    let mut random = Uniform::new(4);
    let len = 64 << 10;
    for (kind, longest) in [("both ends", 1), ("uniform", 60), ("largest", 100), ("outliers", 3000)]
    {
        let [x, g] = [kind, "both ends"].map(|kind| values(kind, len, &mut random));
        let cuts = cuts(len, longest, &mut random);
        check_runs(&x, &g, &cuts, &format!("{kind} in runs of up to {longest}"));
    }
}

#[test]
fn every_lane_tells_a_value_that_is_not_finite() {
    for poison in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in 0..150 {
            let mut x = vec![1.0f32; 150];
            x[at] = poison;
            let grids = [[0.0; 2]; 2];
            let work = Runs { x: &x, g: &x, cuts: &[150], grids };
            for (name, (_, ends)) in on_all(work) {
                let all = ends.iter().flatten().map(|bits| f32::from_bits(*bits));
                assert!(all.clone().all(f32::is_nan), "{name}: {poison} at {at}: {ends:?}");
            }
        }
    }
}

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
            let (all, of_all) = (&columns, &of);
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
