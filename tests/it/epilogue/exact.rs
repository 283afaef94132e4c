//! What must agree to the bit: the fused layer with the steps one by one, both passes with each
//! other, and the slope at 0.
//!
//! y in f32 is the arithmetic of f32 on what the layer without an epilogue gives, because v is
//! formed by the same operations and rounded before the residual is added: one addition and at most
//! one product follow. The gradients are those of the layer without an epilogue for g·slope, where
//! that product is exact (slopes 0, ½ and 2): of another one a driver may keep more digits than an
//! f32 has while it adds up. A 16-bit y or gradient is rounded after the activation and not before,
//! so that there is nothing to compare.

use syncbn::{Backward, DType, Forward, config::Activation, low_level::Epilogue};

use super::common::*;
use super::devices::On;
use super::problem::{EPILOGUES, Pass, Problem, Uses, shape};
use super::stored::{DTYPES, Layouts, Types};

/// The epilogue in f32.
fn after(epilogue: Epilogue, v: f32) -> f32 {
    let slope = epilogue.slope();
    if !epilogue.activates() || v > 0.0 || v.is_nan() {
        v
    } else if slope == 0.0 {
        0.0
    } else {
        slope * v
    }
}

/// g behind the activation, in f32.
fn passed(epilogue: Epilogue, g: f32, v: f32) -> f32 {
    let slope = epilogue.slope();
    if !epilogue.activates() || v > 0.0 {
        g
    } else if slope == 0.0 {
        0.0
    } else {
        slope * g
    }
}

/// The same layer without an epilogue.
fn unfused(problem: &Problem) -> Problem {
    let config = problem.config.clone().with_activation(Activation::None).with_residual(false);
    Problem { config, residuals: None, ..problem.clone() }
}

/// What enters the activation, from the outputs of the layer without an epilogue.
fn entering(problem: &Problem, normalized: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of_rank = |(rank, values): (usize, &Vec<f32>)| match &problem.residuals {
        Some(residuals) => {
            values.iter().zip(&residuals[rank].values).map(|(y, residual)| y + residual).collect()
        }
        None => values.clone(),
    };
    normalized.iter().enumerate().map(of_rank).collect()
}

fn each_value(
    values: &[Vec<f32>],
    other: &[Vec<f32>],
    apply: impl Fn(f32, f32) -> f32,
) -> Vec<Vec<f32>> {
    let of_rank = |(values, other): (&Vec<f32>, &Vec<f32>)| {
        values.iter().zip(other).map(|(&a, &b)| apply(a, b)).collect()
    };
    values.iter().zip(other).map(of_rank).collect()
}

fn upstream(problem: &Problem) -> Vec<Vec<f32>> {
    problem.g.iter().map(|batch| batch.values.clone()).collect()
}

/// Every problem with f32 outputs, in every layout, on every kind of device; with it, what it gave
/// and what its layer without an epilogue gave for the same upstream gradients.
fn each_problem(
    mut check: impl FnMut(&str, &Problem, On, &[Layouts], [(Uses, Pass); 2], [(Uses, Pass); 2]),
) {
    let mut seed = 100;
    for on in On::ALL {
        for epilogue in EPILOGUES {
            for x in DTYPES {
                let layouts = Layouts::all()[seed as usize % 4];
                let types = Types { x, other: DType::F32 };
                let problem = Problem::random(&shape(seed), &[types], epilogue, [true, true], seed);
                let run = |problem: &Problem| problem.run(on.devices(3), &[layouts]).unwrap();
                let what = format!("seed {seed}: {on:?}, {epilogue:?}, x {x}, {layouts:?}");
                check(&what, &problem, on, &[layouts], run(&problem), run(&unfused(&problem)));
                seed += 1;
            }
        }
    }
}

#[test]
fn fused_outputs_have_the_bits_of_normalizing_adding_and_activating() {
    each_problem(|what, problem, _, _, fused, unfused| {
        for ((uses, fused), (_, unfused)) in fused.iter().zip(&unfused) {
            let v = entering(problem, &unfused.y);
            let expected = each_value(&v, &v, |v, _| after(problem.epilogue(), v));
            assert_eq!(bits(&fused.y), bits(&expected), "{what}, {uses:?}");
        }
    });
}

#[test]
fn fused_gradients_have_the_bits_of_those_behind_the_activation() {
    let exact = |slope: f32| [0.0, -0.5, 1.0, 2.0].contains(&slope);
    let mut compared = 0;
    each_problem(|what, problem, on, layouts, fused, plain| {
        if !exact(problem.epilogue().slope()) {
            return;
        }
        for ((uses, fused), (_, plain)) in fused.iter().zip(&plain) {
            let v = entering(problem, &plain.y);
            let g = each_value(&upstream(problem), &v, |g, v| passed(problem.epilogue(), g, v));
            let mut behind = unfused(problem);
            behind.g.iter_mut().zip(&g).for_each(|(batch, g)| batch.values.clone_from(g));
            let passes = behind.run(on.devices(3), layouts).unwrap();
            let (_, expected) = passes.into_iter().find(|(other, _)| other == uses).unwrap();
            let [_, grad_inputs, _, grad_weights, grad_biases] = expected.bits();
            let [_, found_inputs, _, found_weights, found_biases] = fused.bits();
            assert_eq!(found_inputs, grad_inputs, "{what}, {uses:?}");
            assert_eq!(
                (found_weights, found_biases),
                (grad_weights, grad_biases),
                "{what}, {uses:?}"
            );
            // That of the residual is what has passed, rounded to the type of x.
            if let Some(found) = &fused.grad_residuals {
                let x = problem.types[0].x;
                let expected = each_value(&g, &g, |g, _| super::stored::rounded(g, x));
                assert_eq!(bits(found), bits(&expected), "{what}, {uses:?}");
            }
            compared += 1;
        }
    });
    assert_eq!(compared, 2 * 4 * 7 * 3);
}

/// v at 0 and one step of f32 to either side of it, by a residual that undoes the normalization.
#[test]
fn both_passes_see_the_same_sign_next_to_0() {
    for on in On::ALL {
        for turn in 0..5 {
            let mut problem = Problem::plain(&shape(turn), Epilogue::ADD_RELU, 300 + turn);
            let layouts = [Layouts::all()[turn as usize % 4]];
            for (at, uses) in Uses::ALL.into_iter().enumerate() {
                let plain = unfused(&problem).run(on.devices(3), &layouts).unwrap();
                let normalized = &plain[at].1.y;
                let residuals = problem.residuals.iter_mut().flatten();
                for (rank, (residual, normalized)) in residuals.zip(normalized).enumerate() {
                    for (index, (residual, y)) in
                        residual.values.iter_mut().zip(normalized).enumerate()
                    {
                        *residual = -[*y, y.next_up(), y.next_down()][(index + rank) % 3];
                    }
                }
                for g in problem.g.iter_mut().flat_map(|batch| &mut batch.values) {
                    *g = g.abs() + 0.5;
                }
                let (_, fused) = &problem.run(on.devices(3), &layouts).unwrap()[at];
                let v = entering(&problem, normalized);
                let positive = v.iter().flatten().filter(|&&v| v > 0.0).count();
                let zero = v.iter().flatten().filter(|&&v| v == 0.0).count();
                assert!(positive > 0 && zero > 0 && v.iter().flatten().any(|&v| v < 0.0));
                let what = format!("{on:?}, {uses:?}, {:?}", problem.x[0].dims);
                let g = upstream(&problem);
                let expected = each_value(&g, &fused.y, |g, y| if y > 0.0 { g } else { 0.0 });
                assert_eq!(
                    bits(fused.grad_residuals.as_ref().unwrap()),
                    bits(&expected),
                    "{what}: by forward's own y"
                );
                assert_eq!(
                    bits(&fused.y),
                    bits(&each_value(&v, &v, |v, _| v.max(0.0) + 0.0)),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn at_0_the_slope_multiplies() {
    let dims = [vec![4, 2, 3], vec![1, 2, 5], vec![0, 2, 1]];
    for on in On::ALL {
        for epilogue in EPILOGUES {
            for eps in [0.0, 1e-5] {
                let mut problem = Problem::plain(&dims, epilogue, 400);
                problem.config = problem.config.with_eps(eps);
                // Constant channels of values that no f32 sum of them holds, and v = 0.
                for x in &mut problem.x {
                    for index in 0..x.values.len() {
                        x.values[index] = [0.1, -1234.567][x.channel(index)];
                    }
                }
                problem.running.mean = vec![0.1, -1234.567];
                problem.parameters.bias = vec![0.0; 2];
                problem.residuals.iter_mut().flatten().for_each(|batch| batch.values.fill(0.0));
                for g in &mut problem.g {
                    (0..g.values.len()).for_each(|index| g.values[index] = (index + 1) as f32);
                }
                let slope = epilogue.slope();
                for (uses, pass) in problem.run(on.devices(3), &Layouts::all()[..1]).unwrap() {
                    let what = format!("{on:?}, {epilogue:?}, eps {eps}, {uses:?}");
                    assert!(pass.y.iter().flatten().all(|&y| y == 0.0), "{what}: {:?}", pass.y);
                    for (rank, (batch, g)) in problem.x.iter().zip(upstream(&problem)).enumerate() {
                        let passed: Vec<f32> = g.iter().map(|g| slope * g).collect();
                        if let Some(found) = &pass.grad_residuals {
                            assert_eq!(found[rank], passed, "{what}");
                        }
                        for (channel, &found) in
                            pass.grad_biases.as_ref().unwrap()[rank].iter().enumerate()
                        {
                            let of_channel =
                                (0..g.len()).filter(|&index| batch.channel(index) == channel);
                            let sum: f32 = of_channel.map(|index| g[index]).sum();
                            // Exact but for the products with 0.01.
                            let error = (found - slope * sum).abs();
                            let allowed = if slope == 0.01 { 1e-6 * sum } else { 0.0 };
                            assert!(
                                error <= allowed,
                                "{what}: grad_biases[{rank}][{channel}] = {found}, sum {sum}"
                            );
                        }
                        // What is constant has no direction that a batch's statistics leave.
                        let still = slope == 0.0 || (uses == Uses::Group && eps == 0.0);
                        assert!(
                            !still || pass.grad_inputs[rank].iter().all(|&dx| dx == 0.0),
                            "{what}"
                        );
                        assert!(
                            still
                                || pass.grad_inputs[rank].iter().any(|&dx| dx != 0.0)
                                || g.is_empty(),
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_input_itself_may_be_the_residual() {
    for on in On::ALL {
        let mut problem = Problem::plain(&shape(0), Epilogue::ADD_RELU, 500);
        problem.residuals = Some(problem.x.clone());
        let [_, (_, expected)] = problem.run(on.devices(3), &Layouts::all()[..1]).unwrap();
        let layer = problem.layer(on.devices(3));
        let tensors = problem.tensors(&layer);
        let x = &tensors.x;
        let forward = pollster::block_on(layer.forward_train(Forward::of(x).residual(x))).unwrap();
        let request = Backward::of(x, &tensors.g).residual(x);
        let backward = pollster::block_on(layer.backward(&forward.saved, request)).unwrap();
        assert_eq!(
            problem.pass(problem.read(&forward.output), &backward).bits(),
            expected.bits(),
            "{on:?}"
        );
        // And once more, as activation checkpointing does.
        let again = pollster::block_on(layer.forward_train(Forward::of(x).residual(x).untracked()))
            .unwrap();
        assert_eq!(bits(&problem.read(&again.output)), expected.bits()[0], "{on:?}");
    }
}
