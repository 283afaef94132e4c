//! How many lanes interleave what they write changes no bit, and nothing where a mask lies as they
//! walk.

use syncbn::DType;
use syncbn::Layout::{self, ChannelsFirst, ChannelsLast};
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Gradient, LayerFlags, MaskOrder, Role,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::machine::run;

const EIGHT: DeviceCaps = DeviceCaps::PORTABLE;
const SIXTEEN: DeviceCaps = DeviceCaps { step_lanes: 16, ..EIGHT };
const SHAPES: [([usize; 3], Layout); 5] = [
    ([2, 3, 4096], ChannelsFirst),
    ([3, 2, 1100], ChannelsFirst),
    ([1, 1, 70_000], ChannelsFirst),
    ([9, 8, 33], ChannelsLast),
    ([5, 2, 64], ChannelsFirst),
];

/// What the one dispatch of a plan leaves in the tensor that it writes.
fn written(plan: &ApplyPlan, shape: &Shape, role: Role) -> Vec<u32> {
    assert_eq!(plan.dispatches.len(), 1);
    let dispatch = &plan.dispatches[0];
    let contents = |of: Role| {
        let mut random = Random::new(of as u64);
        let mut values = |count: usize| -> Vec<u32> {
            random.values(count).iter().map(|value| value.to_bits()).collect()
        };
        match of {
            // A NaN, which nothing finite becomes.
            of if of == role => vec![u32::MAX; shape.elements() as usize],
            Role::Centering => {
                let mut words = values(6 * shape.channels());
                words.iter_mut().skip(3).step_by(4).for_each(|unit| *unit = 1f32.to_bits());
                words
            }
            Role::Weight | Role::Bias => values(shape.channels()),
            _ => values(shape.elements() as usize),
        }
    };
    run(dispatch, &dispatch.variant.source(), contents).remove(&role).expect("what is written")
}

fn normalize(shape: &Shape, caps: &DeviceCaps, mask: Option<MaskOrder>) -> ApplyPlan {
    let layer = LayerFlags { weight: true, bias: true, epilogue: Epilogue::RELU, mask };
    let x = Activation { shape, dtype: DType::F32 };
    ApplyPlan::normalize(x, DType::F32, caps, layer, false).expect("limits").expect("values")
}

fn gradient(shape: &Shape, caps: &DeviceCaps, mask: Option<MaskOrder>) -> ApplyPlan {
    let layer = LayerFlags { weight: true, bias: true, epilogue: Epilogue::RELU, mask };
    let x = Activation { shape, dtype: DType::F32 };
    let wanted = Gradient { batch_statistics: true, ..Gradient::default() };
    ApplyPlan::gradient(x, x, caps, layer, wanted).expect("limits").expect("values")
}

#[test]
fn sixteen_lanes_write_what_eight_write() {
    let mut differ = 0;
    for (dims, layout) in SHAPES {
        let shape = Shape::new(&dims, layout).expect("a shape");
        for (plan, role) in [
            (normalize as fn(&Shape, &DeviceCaps, Option<MaskOrder>) -> ApplyPlan, Role::Output),
            (gradient, Role::GradInput),
        ] {
            let [eight, sixteen] = [EIGHT, SIXTEEN].map(|caps| plan(&shape, &caps, None));
            differ += usize::from(eight != sixteen);
            let [eight, sixteen] = [&eight, &sixteen].map(|plan| written(plan, &shape, role));
            assert!(!eight.contains(&u32::MAX), "{dims:?}, {role:?}: not all is written");
            assert!(eight == sixteen, "{dims:?}, {role:?}");
        }
    }
    assert!(differ >= 4, "only {differ} plans differ");
}

#[test]
fn a_mask_by_invocation_lies_as_every_kernel_walks() {
    for (dims, layout) in SHAPES {
        let shape = Shape::new(&dims, layout).expect("a shape");
        let mask = Some(MaskOrder::ByInvocation);
        assert_eq!(normalize(&shape, &EIGHT, mask), normalize(&shape, &SIXTEEN, mask), "{dims:?}");
        assert_eq!(gradient(&shape, &EIGHT, mask), gradient(&shape, &SIXTEEN, mask), "{dims:?}");
    }
}
