//! Sums and ranges of runs of one channel.

use pulp::{Simd, WithSimd};

use super::values::{KINDS, Uniform, defined, grids, in_units, range, values};
use super::{alike, on_all};
use crate::host::exact::extremes::Extremes;
use crate::host::exact::lanes::Sums;
use crate::host::exact::terms::{MOMENTS, PRODUCTS, RESTS, scale_and_offset};

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
