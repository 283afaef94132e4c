//! Storage types and layouts against the f64 definition: every combination that a call may ask for,
//! forward and backward, in training and evaluation, on a GPU with conversions of its own, on one
//! without, on the host, and in a group of all three.
//!
//! `stored` lists the combinations, `problem` runs them, `bounds` derives the tolerances. `native`
//! compares both ways to read f16, `refused` what does not go together, `slices` who owns which
//! bytes, `not_finite` how far NaN reaches, `wrong` errors that must be caught.

pub mod devices;
mod native;
mod not_finite;
mod refused;
mod slices;
mod wrong;

use crate::common;
use crate::common::epilogue::{bounds, problem};
use crate::common::{shape_kinds as shapes, storage as stored};

use bounds::check;
use devices::On;
use problem::Problem;
use shapes::Kind;
use stored::{Layouts, Types};
use syncbn::low_level::plan::{Activation, DeviceCaps, SumsPlan};
use syncbn::{DType, Layout, low_level::Epilogue, low_level::Shape};

/// Runs every combination of storage types, layouts, kind of shape, weight and bias. On the host
/// with every number of dimensions; on GPUs with one, in turn, because shapes become batch,
/// channels and positions before a device is asked.
fn check_all(on: On) {
    let mut runs = 0u64;
    let mut worst = 0f64;
    for types in Types::all() {
        for (kind, a) in Kind::ALL.into_iter().zip(0..) {
            for (affine, b) in AFFINE.into_iter().zip(0..) {
                for (layouts, c) in Layouts::all().into_iter().zip(0..) {
                    let turn = 2 + (a + b + c) % 4;
                    for dimensions in if on == On::Host { 2..=5 } else { turn..=turn } {
                        let problem = Problem::random(
                            &kind.dims(dimensions, runs),
                            &[types],
                            Epilogue::NONE,
                            affine,
                            runs,
                        );
                        let failed = |error| -> f64 {
                            panic!(
                                "seed {runs}: {on:?}, {types:?}, {layouts:?}, {kind:?}, weight, \
                                bias {affine:?}: {error}"
                            )
                        };
                        worst = worst.max(
                            check(&problem, on.devices(problem.x.len()), &[layouts])
                                .unwrap_or_else(failed),
                        );
                        runs += 1;
                    }
                }
            }
        }
    }
    println!("{on:?}: {runs} problems, worst error {worst:.3} of what is allowed");
}

/// With a weight and with a bias.
const AFFINE: [[bool; 2]; 4] = [[true, true], [true, false], [false, true], [false, false]];

#[test]
fn every_combination_follows_the_definition_with_native_f16() {
    check_all(On::Native);
}

#[test]
fn every_combination_follows_the_definition_without_native_f16() {
    check_all(On::Portable);
}

#[test]
fn every_combination_follows_the_definition_on_the_host() {
    check_all(On::Host);
}

#[test]
fn every_combination_follows_the_definition_on_all_kinds_of_device_in_one_group() {
    check_all(On::Mixed);
}

#[test]
fn ranks_may_store_in_types_and_layouts_of_their_own() {
    for seed in 5000..5100 {
        let mut random = common::Random::new(seed);
        let mut ranks = |end: usize| [0, 1, 2].map(|_| random.below(end));
        let types = ranks(Types::all().len()).map(|index| Types::all()[index]);
        let layouts = ranks(Layouts::all().len()).map(|index| Layouts::all()[index]);
        let [kind, affine, on] = ranks(20);
        let problem = Problem::random(
            &Kind::ALL[kind % 5].dims(2 + kind / 5, seed),
            &types,
            Epilogue::NONE,
            AFFINE[affine % 4],
            seed,
        );
        let on = On::ALL[on % 4];
        check(&problem, on.devices(problem.x.len()), &layouts)
            .unwrap_or_else(|error| panic!("seed {seed}: {on:?}, {types:?}, {layouts:?}: {error}"));
    }
}

#[test]
fn every_kind_of_shape_is_what_it_says() {
    for dimensions in 2..=5 {
        for seed in 0..100 {
            let drawn = |kind: Kind| kind.dims(dimensions, seed);
            for kind in Kind::ALL {
                let dims = drawn(kind);
                assert!(
                    dims.iter()
                        .all(|dims| dims.len() == dimensions && dims[1] == drawn(kind)[0][1])
                );
                let elements: usize = dims.iter().map(|dims| dims.iter().product::<usize>()).sum();
                // Odd sizes of five dimensions are at most 9·9·7·5·5 on each of three ranks.
                assert!((2..45_000).contains(&elements), "{kind:?} {dims:?}");
            }
            assert!(drawn(Kind::Odd).iter().flatten().all(|size| size % 2 == 1));
            assert!(
                drawn(Kind::OnePosition).iter().all(|dims| dims[2..].iter().all(|&size| size == 1))
            );
            assert!(drawn(Kind::OneChannel).iter().all(|dims| dims[1] == 1));
            let dims = &drawn(Kind::Tiles)[0];
            for (layout, dtype) in
                [(Layout::ChannelsFirst, DType::F16), (Layout::ChannelsLast, DType::F32)]
            {
                let shape = Shape::new(&stored::dims_in(layout, dims), layout).unwrap();
                let plan = SumsPlan::statistics(
                    Activation { shape: &shape, dtype },
                    &DeviceCaps::PORTABLE,
                )
                .unwrap();
                assert!(plan.unwrap().combine.is_some(), "{dims:?}: one tile");
            }
        }
    }
    // Both an empty rank and none occur.
    let empty = |seed| Kind::Any.dims(3, seed)[2][0] == 0;
    assert!((0..20).any(empty) && !(0..20).all(empty));
}
