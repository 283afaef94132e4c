//! Epilogues against the f64 definition: a residual, an activation, or both, fused into forward and
//! backward, with every combination of storage types and layouts, on GPUs, on the host, and in a
//! group of both.
//!
//! `problem` runs a layer, `bounds` derives what it should give and the tolerances. `exact` holds
//! what must agree to the bit, `not_finite` how far NaN and infinity reach, `refused` residuals
//! that do not fit, `saved` what backward needs again, `targets` where gradients go, `slices`
//! tensors of one buffer, `mask` what forward keeps and writes over, `windows` tensors beyond one
//! binding, `fast` the ways that a device may be told not to take, `wrong` formulas that must be
//! caught. Storage types, layouts and devices are gone through as in the tests of storage.

mod curves;
mod exact;
mod fast;
mod mask;
mod not_finite;
mod refused;
mod saved;
mod slices;
mod targets;
mod windows;
mod wrong;

use crate::common;
use crate::common::epilogue::{bounds, problem};
use crate::common::storage as stored;
use crate::storage::devices;

use bounds::check;
use devices::On;
use problem::{CURVES, EPILOGUES, Problem, shape};
use stored::{Layouts, Types};

/// Runs every combination of epilogue, storage types and layouts on the host, and on one of the
/// kinds of GPU in turn; kinds of shape, weight and bias take turns too.
fn check_all(on: On) {
    let mut seed = 0u64;
    let mut run = 0;
    let mut worst = 0f64;
    let mut excluded = 0;
    let mut values = 0;
    for epilogue in EPILOGUES.into_iter().chain(CURVES) {
        for types in Types::all() {
            for layouts in Layouts::all() {
                seed += 1;
                // 3 is no factor of the number of types and layouts: over the epilogues, each of
                // these runs on every kind.
                let kind = [On::Native, On::Portable, On::Mixed][seed as usize % 3];
                if ![On::Host, kind].contains(&on) {
                    continue;
                }
                run += 1;
                let affine = AFFINE[seed as usize % AFFINE.len()];
                let problem = Problem::random(&shape(seed), &[types], epilogue, affine, seed);
                let failed = |error| -> f64 {
                    panic!(
                        "seed {seed}: {on:?}, {epilogue:?}, {types:?}, {layouts:?}, affine \
                        {affine:?}: {error}"
                    )
                };
                worst = worst.max(
                    check(&problem, on.devices(problem.x.len()), &[layouts]).unwrap_or_else(failed),
                );
                excluded += problem.excluded;
                values += problem.x.iter().map(|batch| batch.values.len()).sum::<usize>();
            }
        }
    }
    println!("{on:?}: {run} problems, worst error {worst:.3} of what is allowed");
    println!(
        "{excluded} of {values} upstream gradients were set to 0: there rounding decides on the \
        sign"
    );
    // Of values spread over about 4, those within the tolerance of y, some 1e-6, of 0.
    assert!(excluded as f64 <= 2e-5 * values as f64);
}

/// With a weight and with a bias.
const AFFINE: [[bool; 2]; 5] =
    [[true, true], [true, true], [true, false], [false, true], [false, false]];

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
    for seed in 5000..5080 {
        let mut random = common::Random::new(seed);
        let mut ranks = |end: usize| [0, 1, 2].map(|_| random.below(end));
        let types = ranks(Types::all().len()).map(|index| Types::all()[index]);
        let layouts = ranks(Layouts::all().len()).map(|index| Layouts::all()[index]);
        let [epilogue, affine, on] = ranks(40);
        let epilogue = EPILOGUES[epilogue % 8];
        let affine = AFFINE[affine % 5];
        let on = On::ALL[on % 4];
        let problem = Problem::random(&shape(seed), &types, epilogue, affine, seed);
        let failed =
            |error| panic!("seed {seed}: {on:?}, {epilogue:?}, {types:?}, {layouts:?}: {error}");
        check(&problem, on.devices(problem.x.len()), &layouts).unwrap_or_else(failed);
    }
}

#[test]
fn values_enter_the_activation_on_both_sides_of_0() {
    for epilogue in EPILOGUES {
        for uses in problem::Uses::ALL {
            let mut signs = [0, 0];
            for seed in 0..20 {
                let problem = Problem::plain(&shape(seed), epilogue, seed);
                let v = problem.preactivation(uses).v.concat();
                v.iter().for_each(|&v| signs[usize::from(v > 0.0)] += 1);
            }
            let all = signs[0] + signs[1];
            assert!(
                signs.iter().all(|sign| 4 * sign > all),
                "{epilogue:?}, {uses:?}: {signs:?} of {all}"
            );
        }
    }
}
