//! Double backward against the f64 definition: every epilogue, storage type and layout, on GPUs, on
//! the host, and on both at once.
//!
//! `syncbn_testkit::epilogue::double` makes random layers with cotangents, calls either kind of
//! layer, and says what the gradients should be within which bounds. `one_gpu` has what is special
//! about a layer of one GPU. `modes` has statistics, parameters and absent cotangents, `paths` the
//! ways of a GPU, `range` the ends of f32, `refused` the arguments, `spread` processes.

mod modes;
mod one_gpu;
mod paths;
mod range;
mod refused;
mod spread;

use crate::common;
use crate::common::epilogue::double;

use common::epilogue::problem::{EPILOGUES, Problem, Uses, shape};
use common::storage::{DTYPES, Types};
use common::*;
use double::Case;
use syncbn::Layout;
use syncbn::low_level::Epilogue;

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// A random case of f32.
fn plain(turn: u64, epilogue: Epilogue, seed: u64) -> Case {
    Case::new(Problem::plain(&shape(turn), epilogue, seed), seed)
}

/// Checks a case on every kind of group and on a layer of one GPU, in training and in evaluation.
fn check(case: &Case, layout: Layout) {
    for uses in Uses::ALL {
        let compare = |on: &str, found| {
            case.compare(uses, &found).unwrap_or_else(|error| {
                let Problem { config, types, .. } = &case.problem;
                panic!("{on}, {layout:?}, {uses:?}, {config:?}, {types:?}: {error}")
            })
        };
        for kind in Kind::tested() {
            compare(&format!("{kind:?}"), case.run(kind, layout, uses));
        }
        compare("one GPU", case.run_on_one_gpu(&virtual_gpus()[0], layout, uses));
    }
}

#[test]
fn every_epilogue_and_shape_follows_the_definition() {
    for (epilogue, seed) in EPILOGUES.into_iter().zip(1..) {
        for turn in 0..5 {
            check(&plain(turn, epilogue, 10 * turn + seed), LAYOUTS[(turn + seed) as usize % 2]);
        }
    }
}

#[test]
fn every_storage_type_and_layout_follows_the_definition() {
    for (dtype, seed) in DTYPES.into_iter().zip(100..) {
        for layout in LAYOUTS {
            for turn in [0, 3, 4] {
                for epilogue in [Epilogue::NONE, Epilogue::leaky_relu(0.01), Epilogue::ADD_RELU] {
                    let types = [Types { x: dtype, other: dtype }];
                    let problem =
                        Problem::random(&shape(turn), &types, epilogue, [true, true], seed);
                    check(&Case::new(problem, seed), layout);
                }
            }
        }
    }
}

#[test]
fn a_mask_decides_as_the_residual_does() {
    for dtype in DTYPES {
        for (turn, layout) in [(0, LAYOUTS[0]), (1, LAYOUTS[1]), (3, LAYOUTS[0]), (4, LAYOUTS[1])] {
            let types = [Types { x: dtype, other: dtype }];
            let mut problem =
                Problem::random(&shape(turn), &types, Epilogue::ADD_RELU, [true, true], turn);
            problem.config = problem.config.with_activation_mask(true);
            check(&Case::new(problem, turn), layout);
        }
    }
}

#[test]
fn quads_and_single_values_of_large_planes_follow_the_definition() {
    for (dims, seed) in [([3, 4, 1024], 1), ([2, 8, 515], 2), ([40, 12, 16], 3)] {
        let dims = vec![dims.to_vec(), vec![1, dims[1], 4]];
        for layout in LAYOUTS {
            check(&Case::new(Problem::plain(&dims, Epilogue::RELU, seed), seed), layout);
        }
    }
}

#[test]
fn a_comparison_finds_what_is_off_by_twice_the_bound() {
    let case = plain(0, Epilogue::RELU, 5);
    let found = case.run(Kind::Host, LAYOUTS[0], Uses::Group);
    for part in 0..3 {
        let mut wrong = found.clone();
        case.perturb(&mut wrong, part, 2.5);
        assert!(case.compare(Uses::Group, &wrong).is_err(), "part {part}");
    }
    // A formula without the derivative by the deviation: P is missing.
    let without = case.wrong_definition();
    assert!(case.compare(Uses::Group, &without).is_err());
}
