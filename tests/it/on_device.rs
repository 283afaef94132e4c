//! Layers on one GPU: what merges on the device against the f64 definition and against the merge on
//! the host.
//!
//! `syncbn_testkit::epilogue::one_gpu` runs a problem of the epilogue tests on such a layer.
//! `accuracy` holds what others lose, `statistics` mean and inverse deviation on the device,
//! `running` the running statistics over several steps and modes, `given_running` those that the
//! caller gives, `ranks` calls with other numbers of ranks, `not_finite` how far NaN reaches,
//! `application` passes within the application's submissions, `encoded` what such passes may be
//! asked, `workspace` their memory, `refused` what is refused before anything is submitted, `state`
//! reading and setting, `tiles` one rank beside an empty one, `in_place` passes over what they
//! read.

mod accuracy;
mod application;
mod encoded;
mod given_running;
mod in_place;
mod not_finite;
mod ranks;
mod refused;
mod running;
mod state;
mod statistics;
mod tiles;
mod workspace;

use crate::common;
use crate::common::epilogue::{bounds, one_gpu, problem};
use crate::common::storage as stored;
use crate::storage::devices;

use bounds::Expected;
use devices::On;
use one_gpu::passes;
use problem::{CURVES, EPILOGUES, Problem, shape};
use stored::{Layouts, Types};
use syncbn::{DType, low_level::Epilogue};

/// The worst error of evaluation and training as a share of what is allowed, or what is wrong.
///
/// The bounds are those of the merge on the host, because the ranks of these problems have one
/// mean: what the device's merge adds is relative to how far the ranks' means lie apart.
fn check(problem: &Problem, on: On, layouts: Layouts) -> Result<f64, String> {
    let passes = passes(problem, &on.devices(1)[0], layouts).map_err(|error| error.to_string())?;
    let shares = passes.map(|(uses, pass)| Expected::of(problem, uses).compare(problem, &pass));
    shares.into_iter().try_fold(0f64, |worst, share| Ok(worst.max(share?)))
}

#[test]
fn every_combination_of_epilogue_storage_and_layout_follows_the_definition() {
    const AFFINE: [[bool; 2]; 5] =
        [[true, true], [true, true], [true, false], [false, true], [false, false]];
    let mut seed = 0u64;
    let mut worst = 0f64;
    for epilogue in EPILOGUES.into_iter().chain(CURVES) {
        for types in Types::all() {
            for layouts in Layouts::all() {
                let on = if seed.is_multiple_of(2) { On::Native } else { On::Portable };
                let affine = AFFINE[seed as usize % AFFINE.len()];
                let problem = Problem::random(&shape(seed), &[types], epilogue, affine, seed);
                let failed = |error| -> f64 {
                    panic!("seed {seed}: {on:?}, {epilogue:?}, {types:?}, {layouts:?}: {error}")
                };
                worst = worst.max(check(&problem, on, layouts).unwrap_or_else(failed));
                seed += 1;
            }
        }
    }
    println!("{seed} problems, worst error {worst:.3} of what is allowed");
}

#[test]
fn a_mask_gives_the_bits_of_the_residual_read_again() {
    for (seed, types) in (700..).zip(Types::all()) {
        for layouts in Layouts::all() {
            let dims = [vec![3, 5, 4_001], vec![17, 5, 9], vec![1, 5, 33]];
            let problem = Problem::random(&dims, &[types], Epilogue::ADD_RELU, [true, true], seed);
            let masked = Problem {
                config: problem.config.clone().with_activation_mask(true),
                ..problem.clone()
            };
            let device = &On::Native.devices(1)[0];
            let expected = passes(&problem, device, layouts).unwrap();
            let found = passes(&masked, device, layouts).unwrap();
            for ((uses, found), (_, expected)) in found.iter().zip(&expected) {
                assert_eq!(found.bits(), expected.bits(), "{types:?}, {layouts:?}, {uses:?}");
            }
        }
    }
}

#[test]
fn windows_of_tensors_beyond_one_binding_do_not_change_a_bit() {
    let adapter = common::adapter();
    // A binding that holds several samples of a tensor of a few hundred kilobytes.
    let (device, queue) =
        common::own_device(&adapter, |limits| limits.max_storage_buffer_binding_size = 384 << 10);
    let small = syncbn::Device::from_wgpu(device, queue).unwrap();
    let words = Types { x: DType::F16, other: DType::F16 };
    for (seed, dims) in (6000..).zip([vec![401, 5, 301], vec![9_001, 37]]) {
        for types in [Types::all()[0], words] {
            let problem = Problem::random(
                &[dims.clone(), dims.clone()],
                &[types],
                Epilogue::ADD_RELU,
                [true; 2],
                seed,
            );
            let layouts = Layouts::all()[seed as usize % 4];
            let found = passes(&problem, &small, layouts).unwrap();
            let expected = passes(&problem, &On::Portable.devices(1)[0], layouts).unwrap();
            for ((uses, found), (_, expected)) in found.iter().zip(&expected) {
                assert_eq!(found.bits(), expected.bits(), "{dims:?}, {types:?}, {uses:?}");
            }
        }
    }
}
