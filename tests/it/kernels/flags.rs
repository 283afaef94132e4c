//! The kernels that sum flag a channel with a value that is not finite, wherever a lane has it, and
//! no other: not one whose sums leave the range of f32.

use syncbn::DType;
use syncbn::Layout::{ChannelsFirst, ChannelsLast};
use syncbn::low_level::Shape;
use syncbn::low_level::plan::{Activation, DeviceCaps, Dispatch, LayerFlags, Role, SumsPlan};
use syncbn::low_level::shaders::TileParams;

use super::dispatch::run;

const SINGLE: DeviceCaps = DeviceCaps { quads: false, ..DeviceCaps::PORTABLE };
const STEPS: usize = 16;

/// A tensor of one tile whose lanes have 16 elements each, and the addresses of those of a lane.
struct Case {
    shape: Shape,
    caps: DeviceCaps,
    /// Of each value of each element of the first lane: its address and its channel.
    places: Vec<[usize; 2]>,
}

fn cases() -> [Case; 3] {
    let shape = |dims: [usize; 3], layout| Shape::new(&dims, layout).expect("a shape");
    let quads = 256 * STEPS * 4;
    let each = |of: fn(usize, usize) -> [usize; 2]| {
        (0..STEPS).flat_map(|step| (0..4).map(move |value| of(step, value))).collect()
    };
    [
        // Eight lanes interleave quads.
        Case {
            shape: shape([1, 2, quads], ChannelsFirst),
            caps: DeviceCaps::PORTABLE,
            places: each(|step, value| [4 * 8 * step + value, 0]),
        },
        // Sixteen interleave single values.
        Case {
            shape: shape([1, 2, 256 * STEPS - 1], ChannelsFirst),
            caps: SINGLE,
            places: (0..STEPS).map(|step| [16 * step, 0]).collect(),
        },
        // A lane has neighbouring positions of four channels.
        Case {
            shape: shape([1, 8 * STEPS, 4], ChannelsLast),
            caps: DeviceCaps::PORTABLE,
            places: each(|step, value| [4 * step + value, value]),
        },
    ]
}

/// Finite values whose sums, and sums of two of which, leave the range of f32.
fn large(elements: usize) -> Vec<u32> {
    (0..elements).map(|index| [f32::MAX, 3e38, -1.0][index % 3].to_bits()).collect()
}

/// Values whose sums are finite.
fn small(elements: usize) -> Vec<u32> {
    (0..elements).map(|index| [1.5f32, -2.0, 0.25][index % 3].to_bits()).collect()
}

type Values = fn(usize) -> Vec<u32>;

fn one(partials: Vec<Dispatch<TileParams>>) -> Dispatch<TileParams> {
    assert_eq!(partials.len(), 1);
    let params = &partials[0].params;
    assert_eq!((params.tiles, params.values_per_lane), (1, 16), "{params:?}");
    partials[0].clone()
}

/// Which channels a kernel flags in one of its words of a channel.
fn flagged(words: &[u32], channels: usize, word: usize) -> Vec<bool> {
    (0..channels).map(|channel| f32::from_bits(words[4 * channel + word]) != 0.0).collect()
}

/// Poisons every place of a lane in turn; gives back those whose flags are not as they should be.
fn missed(
    case: &Case,
    dispatch: &Dispatch<TileParams>,
    source: &str,
    values: Values,
    poisoned: Role,
    word: usize,
) -> Vec<[usize; 2]> {
    let elements = case.shape.elements() as usize;
    let channels = case.shape.channels();
    let flags = |place: Option<usize>, poison: f32| {
        let found = run(dispatch, source, |role| match role {
            Role::Input | Role::GradOutput | Role::Residual => {
                let mut words = values(elements);
                match place {
                    Some(place) if role == poisoned => words[place] = poison.to_bits(),
                    _ => {}
                }
                words
            }
            Role::Centering => [0.5f32, 0.0, 1.25, 1.0].map(f32::to_bits).repeat(channels),
            _ => vec![0; 4 * channels],
        });
        flagged(&found[&Role::Tiles], channels, word)
    };
    assert_eq!(flags(None, 0.0), vec![false; channels], "what is finite: {poisoned:?}");
    let poisons = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle();
    let is_missed = |&([address, channel], poison): &([usize; 2], f32)| {
        let mut expected = vec![false; channels];
        expected[channel] = true;
        flags(Some(address), poison) != expected
    };
    case.places.iter().copied().zip(poisons).filter(is_missed).map(|(place, _)| place).collect()
}

fn statistics(case: &Case) -> Dispatch<TileParams> {
    let x = Activation { shape: &case.shape, dtype: DType::F32 };
    one(SumsPlan::statistics(x, &case.caps).expect("limits").expect("values").partials)
}

fn gradients(case: &Case) -> Dispatch<TileParams> {
    let x = Activation { shape: &case.shape, dtype: DType::F32 };
    let plan = SumsPlan::gradient(x, x, &case.caps, LayerFlags::default());
    one(plan.expect("limits").expect("values").partials)
}

#[test]
fn statistics_flag_every_value_of_a_lane() {
    for case in cases() {
        let dispatch = statistics(&case);
        for values in [large, small] {
            let source = dispatch.variant.source();
            let missed = missed(&case, &dispatch, &source, values, Role::Input, 3);
            assert_eq!(missed, Vec::<[usize; 2]>::new(), "{:?}", case.shape);
        }
    }
}

#[test]
fn gradient_sums_flag_every_value_of_a_lane() {
    for case in cases() {
        let dispatch = gradients(&case);
        for values in [large, small] {
            for (role, word) in [(Role::GradOutput, 2), (Role::Input, 3)] {
                let source = dispatch.variant.source();
                let missed = missed(&case, &dispatch, &source, values, role, word);
                assert_eq!(missed, Vec::<[usize; 2]>::new(), "{role:?}, {:?}", case.shape);
            }
        }
    }
}

#[test]
fn a_term_that_is_left_out_is_missed() {
    let case = &cases()[0];
    let [of_stats, of_grads] = [statistics(case), gradients(case)];
    let (g, x) = (Role::GradOutput, Role::Input);
    // A value that is not looked at, and a sum.
    let plants: [(_, _, _, Values, _, _); 6] = [
        (
            &of_stats,
            " | (is_not_finite_element(settled(load_x(walk.x))) & counted_at(walk))",
            "",
            small,
            x,
            3,
        ),
        (&of_stats, "found | (is_not_finite_element", "(is_not_finite_element", small, x, 3),
        (&of_stats, "is_not_finite_element(squares)", "B(false)", small, x, 3),
        (&of_grads, " | (is_not_finite_element(settled(g)) & counted_at(walk))", "", small, g, 2),
        (&of_grads, " | (is_not_finite_element(settled(x)) & counted_at(walk))", "", large, x, 3),
        (&of_grads, "any(is_not_finite_element(dy_deviation))", "false", small, g, 2),
    ];
    for (dispatch, term, planted, values, role, word) in plants {
        let source = dispatch.variant.source();
        assert!(source.contains(term), "{term} is not in the source");
        let planted = source.replacen(term, planted, 1);
        assert!(!missed(case, dispatch, &planted, values, role, word).is_empty(), "{term}");
    }
}

/// Lanes without an element read the first address of the tensor, which is of another channel.
#[test]
fn a_nan_at_the_first_address_reaches_no_other_channel() {
    for (caps, length) in [(DeviceCaps::PORTABLE, 40), (SINGLE, 37)] {
        let shape = Shape::new(&[1, 3, length], ChannelsFirst).expect("a shape");
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let plan = SumsPlan::statistics(x, &caps).expect("limits").expect("values");
        let found = run(&plan.partials[0], &plan.partials[0].variant.source(), |role| match role {
            Role::Input => {
                let mut words = vec![1.5f32.to_bits(); shape.elements() as usize];
                words[0] = f32::NAN.to_bits();
                words
            }
            _ => vec![0; 4 * 3],
        });
        let found = &found[&Role::Tiles];
        assert_eq!(flagged(found, 3, 3), [true, false, false], "{length}");
        let constant = [1.5f32, 0.0, 0.0, 0.0].map(f32::to_bits);
        assert_eq!([&found[4..8], &found[8..12]], [&constant, &constant], "{length}");
    }
}
