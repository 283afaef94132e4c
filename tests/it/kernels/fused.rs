//! A small pass in one kernel has the bits of the kernels that sum, merge and write, one after the
//! other.

use bytemuck::Pod;
use syncbn::DType;
use syncbn::Layout::ChannelsFirst;
use syncbn::config::{Activation as Act, Momentum, RunningVariance};
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Dispatch, Gradient, LayerFlags, ParameterGradients, Role,
    RunningUpdate, SumsPlan, TileParams,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::dispatch::run;
use super::finishing::{CAPS, bits, contents_of, each_input, merge};

const CURVE: Epilogue = Epilogue { activation: Act::Silu, ..Epilogue::NONE };
const LEAKY: Epilogue = Epilogue { activation: Act::LeakyRelu(0.25), ..Epilogue::NONE };
/// What an output has before: no NaN, and nothing that a kernel writes of these inputs.
const UNWRITTEN: u32 = 0x1234_5678;

/// What the only dispatch of a plan leaves.
fn left_by(
    dispatches: &[Dispatch<TileParams>],
    contents: &dyn Fn(Role) -> Vec<u32>,
) -> impl Fn(Role) -> Vec<u32> + use<> {
    let [dispatch] = dispatches else { panic!("{} windows", dispatches.len()) };
    let left = run(dispatch, &dispatch.variant.source(), contents);
    move |role| left[&role].clone()
}

/// A pass in three kernels, which sum, merge and write, and in one.
struct Pass<'a, P> {
    sums: &'a SumsPlan,
    finalize: &'a Dispatch<P>,
    apply: &'a ApplyPlan,
    fused: &'a Dispatch<TileParams>,
    /// What both ways write besides the output.
    kept: &'a [Role],
    /// What `finalize` leaves for `apply`.
    coefficients: Role,
    /// The activation that is written.
    output: Role,
    /// Bytes of it.
    output_bytes: u64,
}

impl<P: Pod> Pass<'_, P> {
    /// Runs both ways, and compares all that they write.
    fn assert_same_bits(&self, what: &str, contents: impl Fn(Role) -> Vec<u32>) {
        let contents = |role: Role| {
            if role == self.output {
                return vec![UNWRITTEN; self.output_bytes as usize / 4];
            }
            contents(role)
        };
        let sums = left_by(&self.sums.partials, &contents);
        let finalize = self.finalize;
        let merged = run(finalize, &finalize.variant.source(), |role| match role {
            Role::Locals => sums(Role::Tiles),
            _ => contents(role),
        });
        let outputs = left_by(&self.apply.dispatches, &|role| match role {
            Role::Centering => merged[&self.coefficients].clone(),
            _ => contents(role),
        });
        let found = run(self.fused, &self.fused.variant.source(), contents);
        for role in self.kept {
            assert_eq!(found[role], merged[role], "{what}: {role:?}");
        }
        let expected = outputs(self.output);
        assert_eq!(found[&self.output], expected, "{what}");
        assert!(expected.iter().all(|&word| word != UNWRITTEN), "{what}");
    }
}

/// The only dispatch of a pass, if one kernel does all of it.
fn fused(
    finishing: Option<Vec<Dispatch<TileParams>>>,
    apply: &ApplyPlan,
) -> Option<Dispatch<TileParams>> {
    SumsPlan::fused(&finishing?, apply)
}

/// Whether an input goes with an epilogue: quads with two of four, in turn.
fn is_turn(kind: usize, x: Activation<'_>, seed: u64) -> bool {
    let [channels, inner] = [x.shape.channels(), x.shape.spatial_len()];
    let neighbours = if x.shape.strides().channel == 1 { channels } else { inner };
    !neighbours.is_multiple_of(4) || (kind as u64 + seed + x.dtype as u64).is_multiple_of(2)
}

#[test]
fn a_small_forward_pass_has_the_bits_of_three_kernels() {
    let mut passes = 0;
    for (kind, epilogue) in [Epilogue::NONE, Epilogue::RELU, LEAKY, CURVE].iter().enumerate() {
        each_input(|what, x, seed| {
            if !is_turn(kind, x, seed) {
                return;
            }
            let plan = SumsPlan::statistics(x, &CAPS).expect("within the limits").expect("values");
            let layer = LayerFlags {
                weight: !seed.is_multiple_of(3),
                bias: !(seed + kind as u64).is_multiple_of(4),
                epilogue: *epilogue,
                mask: None,
            };
            let variance = [RunningVariance::Unbiased, RunningVariance::Biased][seed as usize % 2];
            let update = RunningUpdate { momentum: Momentum::Decay(0.875), variance };
            let update = (!seed.is_multiple_of(5)).then_some(update);
            let finalize = merge(x.shape).statistics(0, 1e-5, update);
            for y in [x.dtype, DType::F32] {
                let apply = ApplyPlan::normalize(x, y, &CAPS, layer, false);
                let apply = apply.expect("within the limits").expect("values");
                let Some(fused) = fused(plan.finishing(&finalize), &apply) else { continue };
                let what = format!("{what}, {layer:?}, y {y:?}");
                let pass = Pass {
                    sums: &plan,
                    finalize: &finalize,
                    apply: &apply,
                    fused: &fused,
                    kept: &[Role::Running, Role::Centering, Role::Mean, Role::InvStd],
                    coefficients: Role::Centering,
                    output: Role::Output,
                    output_bytes: Activation { dtype: y, ..x }.bytes(),
                };
                pass.assert_same_bits(&what, |role| contents_of(x, role, seed));
                passes += 1;
            }
        });
    }
    assert!(passes > 50, "{passes}");
}

#[test]
fn a_small_backward_pass_has_the_bits_of_three_kernels() {
    let mut passes = 0;
    // Without an activation, formed again, a curve, and by a mask.
    for (kind, epilogue) in [Epilogue::NONE, LEAKY, CURVE, LEAKY].iter().enumerate() {
        each_input(|what, x, seed| {
            if !is_turn(kind, x, seed) {
                return;
            }
            let mask = if kind == 3 { ApplyPlan::mask_order(x, x.dtype, &CAPS) } else { None };
            let [weight, bias] = [3, 5].map(|period| !seed.is_multiple_of(period));
            let layer = LayerFlags { weight, bias, epilogue: *epilogue, mask };
            let plan = SumsPlan::gradient(x, x, &CAPS, layer).expect("within the limits");
            let plan = plan.expect("values");
            let wanted = ParameterGradients {
                weight: seed % 3 != 1,
                bias: seed % 5 != 1,
                of_all: [None, Some(2.0)][seed as usize % 2],
                accumulate: seed.is_multiple_of(3),
            };
            let finalize = merge(x.shape).gradient(0, true, wanted);
            let gradient = Gradient { batch_statistics: true, ..Gradient::default() };
            let apply = ApplyPlan::gradient(x, x, &CAPS, layer, gradient);
            let apply = apply.expect("within the limits").expect("values");
            let finishing = plan.finishing_gradient(&finalize);
            let Some(fused) = fused(finishing, &apply) else { return };
            let what = format!("{what}, {layer:?}, {wanted:?}");
            let pass = Pass {
                sums: &plan,
                finalize: &finalize,
                apply: &apply,
                fused: &fused,
                // The coefficients stay in the workgroup.
                kept: &[Role::GradWeight, Role::GradBias],
                coefficients: Role::GradCentering,
                output: Role::GradInput,
                output_bytes: x.bytes(),
            };
            pass.assert_same_bits(&what, |role| match role {
                // Near x, so that deviations have few places; of one channel NaN.
                Role::Centering => {
                    let mut random = Random::new(seed);
                    let center = |channel: usize| {
                        let [rest, inv_std] = [1e-6, if channel == 4 { f32::NAN } else { 1.25 }];
                        bits([100.0 + random.values(1)[0], rest, inv_std, 1.0])
                    };
                    (0..x.shape.channels()).flat_map(center).collect()
                }
                _ => contents_of(x, role, seed),
            });
            passes += 1;
        });
    }
    assert!(passes > 50, "{passes}");
}

#[test]
fn what_one_kernel_cannot_do_is_done_by_several() {
    let is_fused =
        |dims: &[usize], dtype: DType, of: &dyn Fn(Shape) -> Shape, layer: LayerFlags| {
            let shape = of(Shape::new(dims, ChannelsFirst).expect("a shape"));
            let x = Activation { shape: &shape, dtype };
            let plan = SumsPlan::statistics(x, &CAPS).expect("within the limits").expect("values");
            let apply =
                ApplyPlan::normalize(x, dtype, &CAPS, layer, false).expect("within the limits");
            let finalize = merge(&shape).statistics(0, 1e-5, None);
            fused(plan.finishing(&finalize), &apply.expect("values")).is_some()
        };
    let plain = LayerFlags::default();
    let same = |shape: Shape| shape;
    assert!(is_fused(&[4, 8, 16], DType::F32, &same, plain));
    // Words of 16 bits that hold two channels, quads that cover planes, a residual, padding, several
    // tiles, many bytes.
    assert!(!is_fused(&[3, 7, 15], DType::F16, &same, plain));
    assert!(!is_fused(&[4, 8, 15], DType::F16, &same, plain));
    assert!(is_fused(&[4, 8, 15], DType::F32, &same, plain));
    let residual = LayerFlags { epilogue: Epilogue::ADD_RELU, ..plain };
    assert!(!is_fused(&[4, 8, 16], DType::F32, &same, residual));
    assert!(!is_fused(&[1, 8, 16], DType::F32, &|shape| shape.with_lengths(&[7]), plain));
    assert!(!is_fused(&[5, 2, 4096], DType::F32, &same, plain));
    assert!(is_fused(&[4, 64, 4096], DType::F32, &same, plain));
    assert!(!is_fused(&[4, 65, 4096], DType::F32, &same, plain));
}

#[test]
fn a_mask_or_running_statistics_of_the_application_are_a_buffer_too_many() {
    let shape = Shape::new(&[2, 4, 16], ChannelsFirst).expect("a shape");
    let x = Activation { shape: &shape, dtype: DType::F32 };
    let plan = SumsPlan::statistics(x, &CAPS).expect("within the limits").expect("values");
    let apply = |mask, in_place| {
        let layer = LayerFlags { epilogue: Epilogue::RELU, mask, ..LayerFlags::default() };
        let plan = ApplyPlan::normalize(x, x.dtype, &CAPS, layer, in_place);
        plan.expect("within the limits").expect("values")
    };
    let entries = merge(&shape).statistics(0, 1e-5, None);
    let mask = ApplyPlan::mask_order(x, x.dtype, &CAPS);
    assert!(fused(plan.finishing(&entries), &apply(None, false)).is_some());
    assert_eq!(fused(plan.finishing(&entries), &apply(mask, false)), None);
    assert_eq!(fused(plan.finishing(&entries), &apply(None, true)), None);
    let update =
        RunningUpdate { momentum: Momentum::Decay(0.75), variance: RunningVariance::Biased };
    let vectors = merge(&shape).statistics_to_vectors(1e-5, update);
    assert_eq!(fused(plan.finishing(&vectors), &apply(None, false)), None);
    assert!(plan.finishing(&vectors).is_some());
}

#[test]
fn gradients_of_constants_or_of_a_residual_are_written_by_a_kernel_of_their_own() {
    let shape = Shape::new(&[2, 4, 16], ChannelsFirst).expect("a shape");
    let x = Activation { shape: &shape, dtype: DType::F32 };
    let layer = LayerFlags::default();
    let plan = SumsPlan::gradient(x, x, &CAPS, layer).expect("within the limits").expect("values");
    let finalize = merge(&shape).gradient(0, true, ParameterGradients::default());
    let is_fused = |wanted: Gradient| {
        let apply = ApplyPlan::gradient(x, x, &CAPS, layer, wanted).expect("within the limits");
        fused(plan.finishing_gradient(&finalize), &apply.expect("values")).is_some()
    };
    let of_batch = Gradient { batch_statistics: true, ..Gradient::default() };
    assert!(is_fused(of_batch));
    assert!(!is_fused(Gradient::default()));
    assert!(!is_fused(Gradient { residual: true, ..of_batch }));
    assert!(!is_fused(Gradient { in_place: true, ..of_batch }));
}

#[test]
fn a_fused_backward_pass_binds_8_mib_at_most() {
    for (channels, expected) in [(42, true), (43, false)] {
        // x, grad_output and grad_input, of 64 KiB a channel.
        let shape = Shape::new(&[4, channels, 4096], ChannelsFirst).expect("a shape");
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let layer = LayerFlags::default();
        let plan = SumsPlan::gradient(x, x, &CAPS, layer).expect("within the limits");
        let wanted = Gradient { batch_statistics: true, ..Gradient::default() };
        let apply = ApplyPlan::gradient(x, x, &CAPS, layer, wanted).expect("within the limits");
        let finalize = merge(&shape).gradient(0, true, ParameterGradients::default());
        let finishing = plan.expect("values").finishing_gradient(&finalize);
        assert!(finishing.is_some(), "{channels}");
        assert_eq!(fused(finishing, &apply.expect("values")).is_some(), expected, "{channels}");
    }
}

#[test]
fn devices_that_skip_nothing_write_few_workgroups_at_once() {
    // Two channels to a workgroup.
    for (channels, expected) in [(32, true), (34, false)] {
        let shape = Shape::new(&[32, channels, 7, 7], ChannelsFirst).expect("a shape");
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let is_fused = |caps: &DeviceCaps| {
            let plan = SumsPlan::statistics(x, caps).expect("within the limits").expect("values");
            let apply = ApplyPlan::normalize(x, x.dtype, caps, LayerFlags::default(), false);
            let apply = apply.expect("within the limits").expect("values");
            let finalize = merge(&shape).statistics(0, 1e-5, None);
            fused(plan.finishing(&finalize), &apply).is_some()
        };
        assert_eq!(is_fused(&DeviceCaps::PORTABLE), expected, "{channels}");
        assert!(is_fused(&CAPS), "{channels}");
    }
}
