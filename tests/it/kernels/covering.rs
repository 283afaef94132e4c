//! Sums by quads that cover planes, whose first and last quads have values of neighbouring channels:
//! they are those of the channel, whatever its neighbours hold.

use syncbn::DType;
use syncbn::Layout::{ChannelsFirst, ChannelsLast};
use syncbn::low_level::plan::{
    Activation, DeviceCaps, Dispatch, LayerFlags, MaskOrder, Role, SumsPlan,
};
use syncbn::low_level::shaders::{Elements, TileParams, Variant};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::dispatch::run;
use super::mask_words::mask_of;
use super::{ONE_SHAPE_IN, sources};

const PORTABLE: DeviceCaps = DeviceCaps::PORTABLE;
/// Bindings of so few bytes that a tensor is several windows, which end within quads.
const SMALL: DeviceCaps = DeviceCaps { max_binding_bytes: 100_000, ..PORTABLE };

/// L of every remainder of 4, of which 4, 5, 8 and more quads cover a plane, some of them with
/// quads that are empty; samples that begin at every value of a quad; one tile and several.
fn shapes() -> Vec<[usize; 3]> {
    let mut shapes: Vec<[usize; 3]> = [13, 14, 15, 18, 25, 27, 30, 49, 51, 62, 81, 1_001]
        .into_iter()
        .flat_map(|length| [[4, 3, length], [8, 5, length], [2, 4, length], [12, 1, length]])
        .filter(|dims| dims.iter().product::<usize>() % 4 == 0)
        .collect();
    // The last tile of the last shape is a quad that has no value of some channels.
    shapes.extend([
        [64, 3, 49],
        [1_200, 2, 27],
        [600, 3, 51],
        [36, 1, 4_099],
        [4, 700, 49],
        [3_277, 4, 15],
    ]);
    shapes
}

/// bf16 of these values, two to a word.
fn stored(values: &[f32]) -> Vec<u32> {
    values.chunks(2).map(|two| (two[1].to_bits() & 0xffff_0000) | two[0].to_bits() >> 16).collect()
}

/// A tensor whose channels lie far from each other, every third of which is constant, and with a
/// channel of infinities and NaN.
struct Problem {
    shape: Shape,
    values: Vec<f32>,
    gradients: Vec<f32>,
}

impl Problem {
    fn new(dims: [usize; 3], seed: u64) -> Self {
        let [_, channels, length] = dims;
        let mut random = Random::new(seed);
        let mut value = |index: usize| {
            let channel = index / length % channels;
            let noise = random.next() as f32;
            let value = match channel % 4 {
                0 => 1e-3 * noise,
                1 => 3.0,
                2 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][index % 3],
                _ => 1e6 * (2.0 + noise),
            };
            f32::from_bits(value.to_bits() & 0xffff_0000)
        };
        let elements = dims.iter().product();
        let values = (0..elements).map(&mut value).collect();
        let gradients: Vec<f32> = Random::new(seed + 1).values(elements);
        let gradients = gradients.iter().map(|g| f32::from_bits(g.to_bits() & 0xffff_0000));
        Self {
            shape: Shape::new(&dims, ChannelsFirst).expect("a shape"),
            values,
            gradients: gradients.collect(),
        }
    }

    fn channels(&self) -> usize {
        self.shape.channels()
    }

    /// Values and gradients of a channel, with their addresses.
    fn of_channel(&self, channel: usize) -> Vec<(usize, [f64; 2])> {
        let length = self.shape.spatial_len();
        let both = self.values.iter().zip(&self.gradients).enumerate();
        let own = both.filter(|(index, _)| index / length % self.channels() == channel);
        own.map(|(index, (&x, &g))| (index, [x.into(), g.into()])).collect()
    }

    fn activation(&self) -> Activation<'_> {
        Activation { shape: &self.shape, dtype: DType::BF16 }
    }

    /// What all dispatches of a plan leave: sums of the rank, four words to a channel. Kernels are
    /// compiled from one of their sources.
    fn sums(
        &self,
        plan: &SumsPlan,
        number: usize,
        contents: impl Fn(Role) -> Vec<u32>,
    ) -> Vec<[f32; 4]> {
        let mut tiles = vec![0; (4 * self.channels()).max(plan.tiles_bytes as usize / 4)];
        for dispatch in &plan.partials {
            assert_eq!(dispatch.variant.kernel.elements(), Elements::Covering);
            let found = run(dispatch, &source_of(&dispatch.variant, number), |role| match role {
                Role::Tiles => tiles.clone(),
                _ => self.part(dispatch, role, contents(role)),
            });
            tiles = found[&Role::Tiles].clone();
        }
        let sums = match &plan.combine {
            None => tiles,
            Some(combine) => {
                run(combine, &source_of(&combine.variant, number), |role| match role {
                    Role::Tiles => tiles.clone(),
                    _ => vec![0; 4 * self.channels()],
                })[&Role::Local]
                    .clone()
            }
        };
        let of_channel = |words: &[u32]| [0, 1, 2, 3].map(|word| f32::from_bits(words[word]));
        sums.chunks(4).take(self.channels()).map(of_channel).collect()
    }

    fn part(&self, dispatch: &Dispatch<TileParams>, role: Role, words: Vec<u32>) -> Vec<u32> {
        match dispatch.parts.of_role(role) {
            Some(part) => words[part.start as usize / 4..part.end as usize / 4].to_vec(),
            None => words,
        }
    }
}

/// One of the sources that a kernel is compiled from.
fn source_of(variant: &Variant, number: usize) -> String {
    let mut sources = sources(&variant.source());
    sources.swap_remove(number % sources.len())
}

fn is_finite(channel: usize) -> bool {
    channel % 4 != 2
}

#[test]
fn statistics_are_those_of_the_channel_whatever_its_neighbours_hold() {
    let mut windows = 0;
    for (seed, dims) in (0..).zip(shapes()).step_by(ONE_SHAPE_IN) {
        let problem = Problem::new(dims, seed);
        let mut of_caps = Vec::new();
        for caps in [PORTABLE, SMALL] {
            let plan = SumsPlan::statistics(problem.activation(), &caps);
            let Ok(Some(plan)) = plan else {
                assert_eq!(caps, SMALL, "{dims:?}: {plan:?}");
                continue;
            };
            windows += usize::from(plan.partials.len() > 1);
            of_caps.push(problem.sums(&plan, seed as usize, |_| stored(&problem.values)));
        }
        if dims[1] == 1 {
            // One channel lies alike in both layouts.
            let shape = Shape::new(&[dims[0], dims[2], 1], ChannelsLast).expect("a shape");
            let x = Activation { shape: &shape, dtype: DType::BF16 };
            let plan = SumsPlan::statistics(x, &PORTABLE).expect("limits").expect("values");
            of_caps.push(problem.sums(&plan, seed as usize, |_| stored(&problem.values)));
        }
        let found = &of_caps[0];
        for (channel, sums) in found.iter().enumerate() {
            let what = format!("{dims:?}, channel {channel}: {sums:?}");
            assert_eq!(sums[3] != 0.0, !is_finite(channel), "{what}");
            if !is_finite(channel) {
                continue;
            }
            let values: Vec<f64> =
                problem.of_channel(channel).iter().map(|(_, [x, _])| *x).collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let m2: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
            let [pivot, sum, squares] = [0, 1, 2].map(|word| f64::from(sums[word]));
            let found_mean = pivot + sum / count;
            // The bounds of docs/numerics.md: 16 roundings of the sum of squares about a pivot, and
            // of a mean as many of the deviation.
            let unit = f64::from(f32::EPSILON) / 2.0;
            let deviation = (m2 / count).sqrt();
            assert!((found_mean - mean).abs() <= 16.0 * unit * deviation, "{what}: {mean}");
            let found_m2 = squares - sum * sum / count;
            assert!((found_m2 - m2).abs() <= 16.0 * unit * m2, "{what}: {m2} {found_m2}");
        }
        for other in &of_caps[1..] {
            let bits = |sums: &[[f32; 4]]| -> Vec<u32> {
                sums.iter().flatten().map(|value| value.to_bits()).collect()
            };
            let finite = |sums: &[[f32; 4]]| -> Vec<[f32; 4]> {
                let own = sums.iter().enumerate().filter(|(channel, _)| is_finite(*channel));
                own.map(|(_, sums)| *sums).collect()
            };
            assert!(
                bits(&finite(other)) == bits(&finite(found)),
                "{dims:?}: windows or a layout change bits"
            );
        }
    }
    assert!(windows >= 3 || ONE_SHAPE_IN > 1, "only {windows} shapes have several windows");
}

#[test]
fn gradient_sums_are_those_of_the_channel_whatever_its_neighbours_hold() {
    let pivot = |channel: usize| [0.0, 3.0, 0.0, 2e6][channel % 4];
    let mut windows = 0;
    for (seed, dims) in (0..).zip(shapes()).step_by(ONE_SHAPE_IN) {
        let problem = Problem::new(dims, seed);
        let channels = problem.channels();
        // In turn no activation, v formed again from x or from x and the residual, and a mask.
        let kind = seed % 4;
        let epilogue =
            [Epilogue::NONE, Epilogue::RELU, Epilogue::ADD_RELU, Epilogue::ADD_RELU][kind as usize];
        let mask = (kind == 3).then_some(MaskOrder::ByAddress);
        let layer = LayerFlags { weight: false, bias: false, epilogue, mask };
        let mut random = Random::new(seed + 2);
        let bits: Vec<bool> = problem.values.iter().map(|_| random.next() > 0.0).collect();
        let residuals = Random::new(seed + 3).values(problem.values.len());
        let residuals: Vec<f32> =
            residuals.iter().map(|r| f32::from_bits(r.to_bits() & 0xffff_0000)).collect();
        let of_role = |role| match role {
            Role::Input => stored(&problem.values),
            Role::Residual => stored(&residuals),
            Role::GradOutput => stored(&problem.gradients),
            Role::Mask => mask_of(&bits),
            Role::Centering => (0..channels)
                .flat_map(|channel| [pivot(channel), 0.0, 1.0, 1.0].map(f32::to_bits))
                .collect(),
            _ => vec![0; 4 * channels],
        };
        let is_active = |index: usize, deviation: f64| match kind {
            0 => true,
            1 => deviation > 0.0,
            2 => deviation + f64::from(residuals[index]) > 0.0,
            _ => bits[index],
        };
        for caps in [PORTABLE, SMALL] {
            let x = problem.activation();
            let plan = SumsPlan::gradient(x, x, &caps, layer);
            let Ok(Some(plan)) = plan else {
                assert_eq!(caps, SMALL, "{dims:?}: {plan:?}");
                continue;
            };
            windows += usize::from(plan.partials.len() > 1);
            for sums in problem.sums(&plan, seed as usize, of_role).iter().enumerate() {
                problem.check_gradients(dims, sums, pivot(sums.0), is_active);
            }
        }
    }
    assert!(windows >= 3 || ONE_SHAPE_IN > 1, "only {windows} shapes have several windows");
}

impl Problem {
    /// Checks the sums of a channel's gradients, of which those count that are active.
    fn check_gradients(
        &self,
        dims: [usize; 3],
        (channel, sums): (usize, &[f32; 4]),
        pivot: f32,
        is_active: impl Fn(usize, f64) -> bool,
    ) {
        let what = format!("{dims:?}, channel {channel}: {sums:?}");
        let flags = [sums[2], sums[3]].map(|flag| flag != 0.0);
        assert_eq!(flags, [false, !is_finite(channel)], "{what}");
        if !is_finite(channel) {
            return;
        }
        let terms: Vec<[f64; 2]> = self
            .of_channel(channel)
            .into_iter()
            .map(|(index, [x, g])| {
                let deviation = x - f64::from(pivot);
                let g = if is_active(index, deviation) { g } else { 0.0 };
                [g, g * deviation]
            })
            .collect();
        for (word, name) in ["g", "g·(x − pivot)"].into_iter().enumerate() {
            let exact: f64 = terms.iter().map(|term| term[word]).sum();
            let magnitude: f64 = terms.iter().map(|term| term[word].abs()).sum();
            // A value passes 4 sums in its four, 16 of a lane, 8 of lanes and one of tiles at most,
            // and a product has two roundings.
            let bound = 32.0 * f64::from(f32::EPSILON) / 2.0 * magnitude;
            let off = (f64::from(sums[word]) - exact).abs();
            assert!(off <= bound, "{what}: {name} is off by {off}, allowed {bound}");
        }
    }
}
