//! The device's own conversion and the portable one read and write the same values: everything
//! computed from them has the same bits.

use half::f16;
use syncbn::low_level::plan::{Activation, ApplyPlan, DeviceCaps, Gradient, LayerFlags, SumsPlan};
use syncbn::low_level::{Epilogue, Shape};
use syncbn::{DType, Error, Layout};

use super::devices::{On, native};
use super::problem::{Pass, Problem, Uses};
use super::shapes::Kind;
use super::stored::{Layouts, Types};

/// Runs a problem both ways.
fn both(problem: &Problem, layouts: Layouts) -> Result<[[(Uses, Pass); 2]; 2], Error> {
    let run = |on: On| problem.run(on.devices(problem.x.len()), &[layouts]);
    Ok([run(On::Native)?, run(On::Portable)?])
}

fn assert_same(problem: &Problem, layouts: Layouts, what: &str) {
    let [native, portable] = both(problem, layouts).unwrap();
    for ((uses, native), (_, portable)) in native.iter().zip(&portable) {
        assert!(
            native.bits() == portable.bits(),
            "{what}, {:?}, {layouts:?}, {uses:?}",
            problem.types[0]
        );
    }
}

/// Where at least one of the activations is f16.
fn with_f16() -> impl Iterator<Item = Types> {
    Types::all().into_iter().filter(|types| [types.x, types.other].contains(&DType::F16))
}

#[test]
fn the_two_ways_to_read_f16_are_two_kernels() {
    // Otherwise the other tests here compare one with itself.
    let shape = Shape::new(&[4, 3], Layout::ChannelsFirst).unwrap();
    let plan = |native_f16| {
        let caps = DeviceCaps { native_f16, ..DeviceCaps::PORTABLE };
        let x = Activation { shape: &shape, dtype: DType::F16 };
        let plan = SumsPlan::statistics(x, &caps).unwrap().unwrap();
        plan.partials[0].variant.source()
    };
    assert_ne!(plan(true), plan(false));
    assert_ne!(native(), super::devices::portable());
}

#[test]
fn kernels_that_write_convert_as_the_device_does_where_it_rounds_well() {
    let shape = Shape::new(&[4, 4, 16], Layout::ChannelsFirst).unwrap();
    let x = Activation { shape: &shape, dtype: DType::F16 };
    let layer = LayerFlags::default();
    for (native_f16, rounds_f16) in [(false, false), (true, false), (true, true)] {
        let caps = DeviceCaps { native_f16, rounds_f16, ..DeviceCaps::PORTABLE };
        let wanted =
            |in_place| Gradient { batch_statistics: true, in_place, ..Gradient::default() };
        let plans = [false, true].into_iter().flat_map(|in_place| {
            [
                ApplyPlan::normalize(x, DType::F16, &caps, layer, in_place),
                ApplyPlan::gradient(x, x, &caps, layer, wanted(in_place)),
            ]
        });
        for plan in plans {
            let source = plan.unwrap().unwrap().dispatches[0].variant.source();
            let converts = ["unpack2x16float(", " pack2x16float(", "(pack2x16float("]
                .map(|conversion| source.contains(conversion));
            assert_eq!(converts[0], rounds_f16, "{caps:?}");
            assert_eq!(converts[1] || converts[2], rounds_f16, "{caps:?}");
        }
    }
}

#[test]
fn every_finite_f16_gives_the_same_bits_by_native_and_by_portable_loads() {
    let finite: Vec<f32> =
        (0..=u16::MAX).map(f16::from_bits).filter(|h| h.is_finite()).map(f16::to_f32).collect();
    // 63,488 of them: 31 channels of 2,048 values.
    let dims = vec![64, 31, 32];
    for types in with_f16() {
        let mut problem = Problem::random(
            std::slice::from_ref(&dims),
            &[types],
            Epilogue::NONE,
            [true, true],
            5100,
        );
        if types.x == DType::F16 {
            problem.x[0].values.clone_from(&finite);
        }
        if types.other == DType::F16 {
            // In another order, so that x and g do not grow together.
            problem.g[0].values =
                (0..finite.len()).map(|index| finite[index * 7919 % finite.len()]).collect();
        }
        for layouts in Layouts::all() {
            assert_same(&problem, layouts, "every finite f16");
        }
    }
}

#[test]
fn generated_problems_give_the_same_bits_by_native_and_by_portable_loads() {
    for (seed, types) in (5200..).zip(with_f16()) {
        for kind in Kind::ALL {
            let problem =
                Problem::random(&kind.dims(3, seed), &[types], Epilogue::NONE, [true, false], seed);
            for layouts in Layouts::all() {
                assert_same(&problem, layouts, &format!("seed {seed}, {kind:?}"));
            }
        }
    }
}
