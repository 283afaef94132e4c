//! NaN and infinity in x, in a residual and in an upstream gradient: how far they reach through an
//! epilogue.

use approx::abs_diff_eq;
use syncbn::low_level::Epilogue;

use super::common::*;
use super::devices::On;
use super::problem::{EPILOGUES, Pass, Problem, Uses};
use super::stored::Layouts;

const CHANNELS: usize = 3;
/// The channel that is not finite.
const POISONED: usize = 1;
const POISONS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// A problem with a value in the poisoned channel at this index of rank 0.
fn problem(epilogue: Epilogue, seed: u64) -> (Problem, usize) {
    let dims = [vec![3, CHANNELS, 5], vec![2, CHANNELS, 7], vec![0, CHANNELS]];
    let problem = Problem::plain(&dims, epilogue, seed);
    let at = (0..problem.x[0].values.len())
        .filter(|&index| problem.x[0].channel(index) == POISONED)
        .nth(6)
        .unwrap();
    (problem, at)
}

fn run(problem: &Problem, on: On, uses: Uses) -> Pass {
    let passes = problem.run(on.devices(3), &Layouts::all()[..1]).unwrap();
    passes.into_iter().find(|(other, _)| *other == uses).unwrap().1
}

/// A value of rank 0 in the poisoned channel that enters the activation above 0, or below.
fn with_sign(problem: &Problem, uses: Uses, above: bool) -> usize {
    let v = &problem.preactivation(uses).v[0];
    (0..v.len()).find(|&i| problem.x[0].channel(i) == POISONED && (v[i] > 0.0) == above).unwrap()
}

/// Everything but value `at` of rank 0 has the bits of the clean run.
fn assert_others_same(what: &str, found: &[Vec<f32>], clean: &[Vec<f32>], at: usize) {
    for (rank, (found, clean)) in found.iter().zip(clean).enumerate() {
        for (index, (found, clean)) in found.iter().zip(clean).enumerate() {
            assert!(
                (rank, index) == (0, at) || found.to_bits() == clean.to_bits(),
                "{what}: [{rank}], value {index}"
            );
        }
    }
}

fn assert_gradients_same(what: &str, found: &Pass, clean: &Pass) {
    let [_, found @ ..] = found.bits();
    let [_, clean @ ..] = clean.bits();
    assert_eq!(found, clean, "{what}");
}

#[test]
fn with_running_statistics_a_value_that_is_not_finite_keeps_to_itself_and_passes_the_activation() {
    for on in On::tested() {
        for epilogue in EPILOGUES {
            for poison in POISONS {
                let (clean, at) = problem(epilogue, 600);
                let mut poisoned = clean.clone();
                poisoned.x[0].values[at] = poison;
                let what = format!("{on:?}, {epilogue:?}, {poison}");
                let found = run(&poisoned, on, Uses::Running);
                let clean = run(&clean, on, Uses::Running);
                assert_others_same(&what, &found.y, &clean.y, at);
                let v = poison * poisoned.parameters.weight[POISONED].signum();
                let slope = epilogue.slope();
                let expected = match v > 0.0 || v.is_nan() {
                    true => v,
                    false if slope == 0.0 => 0.0,
                    false => slope * v,
                };
                let y = found.y[0][at];
                assert!(
                    y == expected || (y.is_nan() && expected.is_nan()),
                    "{what}: {y}, expected {expected}"
                );
                // x is not read for a gradient of the input but to find where the activation is
                // active.
                assert_others_same(&what, &found.grad_inputs, &clean.grad_inputs, at);
                let g = f64::from(poisoned.g[0].values[at])
                    * if v > 0.0 { 1.0 } else { f64::from(slope) };
                let weight = f64::from(poisoned.parameters.weight[POISONED]);
                let var = f64::from(poisoned.running.var[POISONED]) + poisoned.config.eps;
                let dx = f64::from(found.grad_inputs[0][at]);
                let expected = g * weight / var.sqrt();
                assert!(
                    abs_diff_eq!(dx, expected, epsilon = 1e-6 * expected.abs()),
                    "{what}: {dx}, expected {expected}"
                );
                assert!(
                    found.grad_biases.iter().flatten().flatten().all(|db| db.is_finite()),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn in_training_a_value_that_is_not_finite_makes_its_channel_nan_and_spares_the_others() {
    for on in On::tested() {
        for epilogue in EPILOGUES {
            for poison in POISONS {
                let (clean, at) = problem(epilogue, 601);
                let mut poisoned = clean.clone();
                poisoned.x[0].values[at] = poison;
                let what = format!("{on:?}, {epilogue:?}, {poison}");
                let found = run(&poisoned, on, Uses::Group);
                let clean = run(&clean, on, Uses::Group);
                for (name, found, clean) in [
                    ("y", &found.y, &clean.y),
                    ("grad_inputs", &found.grad_inputs, &clean.grad_inputs),
                ] {
                    for (rank, batch) in poisoned.x.iter().enumerate() {
                        for index in 0..batch.values.len() {
                            let found = found[rank][index];
                            let clean = clean[rank][index];
                            let right = match batch.channel(index) {
                                POISONED => found.is_nan(),
                                _ => found.to_bits() == clean.to_bits(),
                            };
                            assert!(
                                right,
                                "{what}: {name}[{rank}], value {index}: {found}, clean {clean}"
                            );
                        }
                    }
                }
                // A NaN is not above 0: the slope of everything in the channel.
                for (rank, biases) in found.grad_biases.as_ref().unwrap().iter().enumerate() {
                    let values = poisoned.g[rank].values.iter().enumerate();
                    let of_channel =
                        values.filter(|(index, _)| poisoned.g[rank].channel(*index) == POISONED);
                    let (sum, size) = of_channel.fold((0.0, 0.0), |(sum, size), (_, &g)| {
                        let g = f64::from(epilogue.slope()) * f64::from(g);
                        (sum + g, size + g.abs())
                    });
                    let db = f64::from(biases[POISONED]);
                    assert!(
                        abs_diff_eq!(db, sum, epsilon = STATISTICS_TOLERANCE * size),
                        "{what}: {db}, expected {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_residual_that_is_not_finite_reaches_only_its_own_element() {
    for on in On::tested() {
        for uses in Uses::ALL {
            for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
                for poison in POISONS {
                    // The clean run has v of the same sign; a NaN has none, and passes
                    // nothing.
                    let (mut clean, at) = problem(epilogue, 602);
                    clean.residuals.as_mut().unwrap()[0].values[at] =
                        if poison > 0.0 { 1000.0 } else { -1000.0 };
                    let mut poisoned = clean.clone();
                    poisoned.residuals.as_mut().unwrap()[0].values[at] = poison;
                    let what = format!("{on:?}, {epilogue:?}, {uses:?}, {poison}");
                    let found = run(&poisoned, on, uses);
                    let clean = run(&clean, on, uses);
                    assert_others_same(&what, &found.y, &clean.y, at);
                    let y = found.y[0][at];
                    let right = match (poison.is_nan(), epilogue) {
                        (true, _) => y.is_nan(),
                        (false, Epilogue::ADD_RELU) => y == poison.max(0.0),
                        (false, _) => y == poison,
                    };
                    assert!(right, "{what}: {y}");
                    assert_gradients_same(&what, &found, &clean);
                    assert!(
                        found.grad_residuals.iter().flatten().flatten().all(|dz| dz.is_finite()),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_upstream_gradient_that_is_not_finite_counts_as_0_behind_a_slope_of_0() {
    for on in On::tested() {
        for uses in Uses::ALL {
            for epilogue in [Epilogue::RELU, Epilogue::leaky_relu(0.0), Epilogue::ADD_RELU] {
                let (mut clean, _) = problem(epilogue, 603);
                let at = with_sign(&clean, uses, false);
                clean.g[0].values[at] = 0.0;
                for poison in POISONS {
                    let mut poisoned = clean.clone();
                    poisoned.g[0].values[at] = poison;
                    let what = format!("{on:?}, {epilogue:?}, {uses:?}, {poison}");
                    assert_gradients_same(&what, &run(&poisoned, on, uses), &run(&clean, on, uses));
                }
            }
        }
    }
}

#[test]
fn an_upstream_gradient_that_is_not_finite_and_passes_makes_its_channel_nan() {
    for on in On::tested() {
        for epilogue in EPILOGUES {
            let (clean, _) = problem(epilogue, 604);
            // Where v is positive, and for slopes other than 0 where it is negative.
            let below = Some(with_sign(&clean, Uses::Group, false));
            let places = [
                Some(with_sign(&clean, Uses::Group, true)),
                below.filter(|_| epilogue.slope() != 0.0),
            ];
            for at in places.into_iter().flatten() {
                for poison in POISONS {
                    let mut poisoned = clean.clone();
                    poisoned.g[0].values[at] = poison;
                    let what = format!("{on:?}, {epilogue:?}, {poison} at {at}");
                    let found = run(&poisoned, on, Uses::Group);
                    let clean = run(&clean, on, Uses::Group);
                    for (rank, batch) in poisoned.x.iter().enumerate() {
                        for index in 0..batch.values.len() {
                            let found = found.grad_inputs[rank][index];
                            let clean = clean.grad_inputs[rank][index];
                            let poisoned = batch.channel(index) == POISONED;
                            let right = if poisoned {
                                found.is_nan()
                            } else {
                                found.to_bits() == clean.to_bits()
                            };
                            assert!(
                                right,
                                "{what}: grad_inputs[{rank}], value {index}: {found}, clean {clean}"
                            );
                        }
                    }
                    if let (Some(found), Some(clean)) =
                        (&found.grad_residuals, &clean.grad_residuals)
                    {
                        assert_others_same(&what, found, clean, at);
                        assert!(!found[0][at].is_finite(), "{what}");
                    }
                }
            }
        }
    }
}
