//! The device's own f16 and the portable decoding read the same values: everything computed from
//! them has the same bits.

use half::f16;
use syncbn::{DType, Error, low_level::Epilogue};

use super::common::*;
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
    let adapter = adapter();
    if assert_native_f16(&adapter) {
        let x = DType::F16;
        let caps = syncbn::low_level::plan::DeviceCaps::PORTABLE;
        let shape = syncbn::low_level::Shape::new(&[4, 3], syncbn::Layout::ChannelsFirst).unwrap();
        let plan = |native_f16| {
            let caps = syncbn::low_level::plan::DeviceCaps { native_f16, ..caps };
            let x = syncbn::low_level::plan::Activation { shape: &shape, dtype: x };
            syncbn::low_level::plan::SumsPlan::statistics(x, &caps).unwrap().unwrap().partials[0]
                .variant
                .source()
        };
        assert_ne!(plan(true), plan(false));
    }
    assert_ne!(native(), super::devices::portable());
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
