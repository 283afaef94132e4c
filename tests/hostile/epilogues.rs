//! Every epilogue in storage types and layouts in turn, forward and backward, within the bounds of
//! the ordinary tests.

use syncbn::{DType, Device};

use super::bounds::check;
use super::common::*;
use super::devices::On;
use super::problem::{CURVES, EPILOGUES, Problem, shape};
use super::stored::{Layouts, Types};

/// f32 and f16 throughout, bf16, and f16 with an output in f32.
const TYPES: [Types; 4] = [
    Types { x: DType::F32, other: DType::F32 },
    Types { x: DType::F16, other: DType::F16 },
    Types { x: DType::BF16, other: DType::BF16 },
    Types { x: DType::F16, other: DType::F32 },
];

/// One device for all ranks, or each of them in turn.
fn devices(turn: usize) -> Vec<Device> {
    let gpus = virtual_gpus();
    match turn % 5 {
        0..3 => vec![gpus[turn % 5].clone(); 3],
        3 => On::Portable.devices(3),
        _ => gpus.to_vec(),
    }
}

#[test]
fn epilogues_follow_the_definition_in_any_storage_type() {
    let mut worst = 0f64;
    let one_in = one_in(7);
    let mut turn = 0;
    let mut run = 0;
    for epilogue in EPILOGUES.into_iter().chain(CURVES) {
        for types in TYPES {
            // A curve has no mask.
            for mask in [false, true].into_iter().filter(|mask| !mask || epilogue.curve().is_none())
            {
                let number = turn;
                turn += 1;
                // No factor of the numbers of types, layouts and devices: everything meets.
                if number % one_in != 0 {
                    continue;
                }
                run += 1;
                let layouts = Layouts::all()[number * 7 / 3 % 4];
                let mut problem = Problem::random(
                    &shape(number as u64),
                    &[types],
                    epilogue,
                    [true, true],
                    number as u64,
                );
                problem.config = problem.config.with_activation_mask(mask);
                let failed = |error| -> f64 {
                    panic!(
                        "seed {number}: {epilogue:?}, {types:?}, {layouts:?}, mask {mask}, devices \
                        {}: {error}",
                        number % 5
                    )
                };
                worst =
                    worst.max(check(&problem, devices(number), &[layouts]).unwrap_or_else(failed));
            }
        }
    }
    println!("{run} of {turn} problems, worst error {worst:.3} of what is allowed");
}
