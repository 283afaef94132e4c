//! How many lanes interleave what they write changes no bit, nor do long planes of f32 that are
//! written in the order of addresses then; and nothing changes where a mask lies as lanes walk.

use syncbn::DType;
use syncbn::Layout::{self, ChannelsFirst, ChannelsLast};
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Gradient, LayerFlags, MaskOrder, Role,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::dispatch::run;

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
fn written(plan: &ApplyPlan, shape: &Shape, dtype: DType, role: Role) -> Vec<u32> {
    assert_eq!(plan.dispatches.len(), 1);
    let dispatch = &plan.dispatches[0];
    let words = shape.elements() as usize * dtype.size_bytes() as usize / 4;
    let contents = |of: Role| {
        let mut random = Random::new(of as u64);
        let mut values = |count: usize| -> Vec<u32> {
            random.values(count).iter().map(|value| value.to_bits()).collect()
        };
        match of {
            // A NaN, which nothing finite becomes.
            of if of == role => vec![u32::MAX; words],
            Role::Centering => {
                let mut words = values(6 * shape.channels());
                words.iter_mut().skip(3).step_by(4).for_each(|unit| *unit = 1f32.to_bits());
                words
            }
            Role::Weight | Role::Bias => values(shape.channels()),
            _ if dtype == DType::F32 => values(words),
            // The upper half of an f32 is a bf16.
            _ => values(words).into_iter().map(|bits| bits >> 16 | bits & 0xffff_0000).collect(),
        }
    };
    run(dispatch, &dispatch.variant.source(), contents).remove(&role).expect("what is written")
}

fn normalize(shape: &Shape, dtype: DType, caps: &DeviceCaps, mask: Option<MaskOrder>) -> ApplyPlan {
    let layer = LayerFlags { weight: true, bias: true, epilogue: Epilogue::RELU, mask };
    let x = Activation { shape, dtype };
    ApplyPlan::normalize(x, dtype, caps, layer, false).expect("limits").expect("values")
}

fn gradient(shape: &Shape, dtype: DType, caps: &DeviceCaps, mask: Option<MaskOrder>) -> ApplyPlan {
    let layer = LayerFlags { weight: true, bias: true, epilogue: Epilogue::RELU, mask };
    let x = Activation { shape, dtype };
    let wanted = Gradient { batch_statistics: true, ..Gradient::default() };
    ApplyPlan::gradient(x, x, caps, layer, wanted).expect("limits").expect("values")
}

type Planned = fn(&Shape, DType, &DeviceCaps, Option<MaskOrder>) -> ApplyPlan;

#[test]
fn sixteen_lanes_write_what_eight_write() {
    for dtype in [DType::F32, DType::BF16] {
        let mut differ = 0;
        for (dims, layout) in SHAPES {
            let shape = Shape::new(&dims, layout).expect("a shape");
            for (plan, role) in [(normalize as Planned, Role::Output), (gradient, Role::GradInput)]
            {
                let [eight, sixteen] =
                    [EIGHT, SIXTEEN].map(|caps| plan(&shape, dtype, &caps, None));
                differ += usize::from(eight != sixteen);
                let [eight, sixteen] =
                    [&eight, &sixteen].map(|plan| written(plan, &shape, dtype, role));
                let what = format!("{dims:?}, {dtype:?}, {role:?}");
                assert!(!eight.contains(&u32::MAX), "{what}: not all is written");
                assert!(eight == sixteen, "{what}");
            }
        }
        assert!(differ >= 4, "only {differ} plans of {dtype:?} differ");
    }
}

#[test]
fn a_mask_by_invocation_lies_as_every_kernel_walks() {
    for (dims, layout) in SHAPES {
        let shape = Shape::new(&dims, layout).expect("a shape");
        for plan in [normalize as Planned, gradient] {
            let [eight, sixteen] = [EIGHT, SIXTEEN]
                .map(|caps| plan(&shape, DType::F32, &caps, Some(MaskOrder::ByInvocation)));
            assert_eq!(eight, sixteen, "{dims:?}");
        }
    }
}
