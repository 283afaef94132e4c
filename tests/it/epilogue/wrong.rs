//! Wrong formulas for everything that an epilogue changes, and that the comparison of these tests
//! catches them.

use syncbn::low_level::Epilogue;

use super::bounds::{Expected, derivative, gradients};
use super::common::*;
use super::problem::{EPILOGUES, Pass, Problem, Uses, shape};

/// The formulas of an epilogue with each term in the open, so that one can be wrong.
struct Formula {
    /// y, of what was normalized, the residual, and the epilogue.
    y: fn(f64, f64, Epilogue) -> f64,
    /// The factor of the upstream gradient, of what there is to decide by.
    factor: fn(&Value, Epilogue) -> f64,
    /// The gradient of the residual, of g, of what has passed, and of the value.
    grad_residual: fn(f64, f64, &Value) -> f64,
    /// What has passed enters the gradients of the layer; otherwise g itself.
    masks_layer: bool,
}

/// One value of a call.
struct Value {
    normalized: f64,
    residual: f64,
    /// What would be normalized without subtracting the mean.
    unshifted: f64,
    bias: f64,
    weight: f64,
}

const RIGHT: Formula = Formula {
    y: |normalized, residual, epilogue| {
        let v = normalized + residual;
        v * derivative(epilogue, v)
    },
    factor: |value, epilogue| derivative(epilogue, value.normalized + value.residual),
    grad_residual: |_, passed, _| passed,
    masks_layer: true,
};

fn by_formula(problem: &Problem, uses: Uses, formula: &Formula) -> Pass {
    let preactivation = problem.preactivation(uses);
    let mut y = Vec::new();
    let mut passed = Vec::new();
    let mut grad_residuals = Vec::new();
    for (rank, batch) in problem.x.iter().enumerate() {
        let value = |index: usize| {
            let c = batch.channel(index);
            let weight = problem.weight().map_or(1.0, |weight| f64::from(weight[c]));
            let bias = problem.bias().map_or(0.0, |bias| f64::from(bias[c]));
            let scaled = |x: f64| weight * preactivation.inv_std[c] * x + bias;
            let x = f64::from(batch.values[index]);
            let residual = problem
                .residuals
                .as_ref()
                .map_or(0.0, |residuals| f64::from(residuals[rank].values[index]));
            Value {
                normalized: scaled(x - preactivation.mean[c]),
                residual,
                unshifted: scaled(x),
                bias,
                weight,
            }
        };
        let values: Vec<Value> = (0..batch.values.len()).map(value).collect();
        let epilogue = problem.epilogue();
        y.push(
            values
                .iter()
                .map(|value| (formula.y)(value.normalized, value.residual, epilogue) as f32)
                .collect(),
        );
        let g = widened(&problem.g[rank].values);
        let behind: Vec<f64> =
            values.iter().zip(&g).map(|(value, g)| g * (formula.factor)(value, epilogue)).collect();
        let of_residual = values.iter().zip(&g).zip(&behind);
        grad_residuals.push(
            of_residual.map(|((v, &g), &p)| (formula.grad_residual)(g, p, v) as f32).collect(),
        );
        passed.push(if formula.masks_layer { behind } else { g });
    }
    let narrowed = |ranks: &[Vec<f64>]| -> Vec<Vec<f32>> {
        ranks.iter().map(|values| values.iter().map(|&value| value as f32).collect()).collect()
    };
    let gradients = gradients(problem, uses, &preactivation, &passed);
    Pass {
        y,
        grad_inputs: narrowed(&gradients.grad_inputs),
        grad_residuals: problem.epilogue().adds_residual().then_some(grad_residuals),
        grad_weights: Some(narrowed(&gradients.grad_weights)),
        grad_biases: Some(narrowed(&gradients.grad_biases)),
    }
}

fn compared(problem: &Problem, uses: Uses, pass: &Pass) -> Result<f64, String> {
    Expected::of(problem, uses).compare(problem, pass)
}

#[test]
fn the_right_formula_passes_and_wrong_ones_are_caught() {
    type Shows = fn(Epilogue) -> bool;
    let activates: Shows = Epilogue::activates;
    let adds: Shows = Epilogue::adds_residual;
    let both: Shows = |epilogue| epilogue == Epilogue::ADD_RELU;
    let leaks: Shows = |epilogue| ![0.0, 1.0].contains(&epilogue.slope());
    let wrong: [(&str, &str, Shows, Formula); 12] = [
        ("y", "without activation", activates, Formula { y: |y, z, _| y + z, ..RIGHT }),
        ("y", "activation first", both, Formula { y: |y, z, e| y * derivative(e, y) + z, ..RIGHT }),
        ("y", "residual forgotten", adds, Formula { y: |y, _, e| y * derivative(e, y), ..RIGHT }),
        (
            "y",
            "slope forgotten",
            leaks,
            Formula { y: |y, z, e| if e.activates() { (y + z).max(0.0) } else { y + z }, ..RIGHT },
        ),
        (
            "grad_",
            "sign of what is not shifted by the mean",
            activates,
            Formula { factor: |v, e| derivative(e, v.unshifted + v.residual), ..RIGHT },
        ),
        (
            "grad_",
            "sign without bias",
            activates,
            Formula { factor: |v, e| derivative(e, v.normalized - v.bias + v.residual), ..RIGHT },
        ),
        (
            "grad_",
            "sign without residual",
            both,
            Formula { factor: |v, e| derivative(e, v.normalized), ..RIGHT },
        ),
        (
            "grad_",
            "slope forgotten",
            leaks,
            Formula {
                factor: |v, e| {
                    if !e.activates() || v.normalized + v.residual > 0.0 { 1.0 } else { 0.0 }
                },
                ..RIGHT
            },
        ),
        (
            "grad_",
            "the other sign",
            activates,
            Formula { factor: |v, e| derivative(e, -(v.normalized + v.residual)), ..RIGHT },
        ),
        ("grad_", "layer without mask", activates, Formula { masks_layer: false, ..RIGHT }),
        (
            "grad_residuals",
            "scaled by the weight",
            adds,
            Formula { grad_residual: |_, p, v| p * v.weight, ..RIGHT },
        ),
        ("grad_residuals", "without mask", both, Formula { grad_residual: |g, _, _| g, ..RIGHT }),
    ];
    for epilogue in EPILOGUES {
        for uses in Uses::ALL {
            let problem = Problem::plain(&shape(0), epilogue, 700);
            let share = compared(&problem, uses, &by_formula(&problem, uses, &RIGHT)).unwrap();
            assert!(
                share < 0.1,
                "{epilogue:?}: the right formula in f64, rounded once, uses {share} of the \
                tolerance"
            );
            for (output, what, shows, formula) in &wrong {
                let pass = by_formula(&problem, uses, formula);
                match (compared(&problem, uses, &pass), shows(epilogue)) {
                    (Err(error), true) => {
                        assert!(error.contains(output), "{epilogue:?}, {output}, {what}: {error}")
                    }
                    (Ok(_), false) => {}
                    (Ok(_), true) => panic!("{epilogue:?}, {uses:?}: {output}, {what}, passes"),
                    (Err(error), false) => {
                        panic!("{epilogue:?}, {uses:?}: {what} is another formula: {error}")
                    }
                }
            }
        }
    }
}

#[test]
fn the_comparison_fails_at_twice_its_tolerance() {
    for uses in Uses::ALL {
        let problem = Problem::plain(&shape(0), Epilogue::ADD_RELU, 701);
        let expected = Expected::of(&problem, uses);
        let exact = by_formula(&problem, uses, &RIGHT);
        let rank = 1;
        let index = 4;
        let channel = problem.x[rank].channel(index);
        type Values = fn(&mut Pass) -> &mut Vec<Vec<f32>>;
        let [of_weight, of_bias] = expected.of_affine(rank, channel);
        let of_y = expected.of_y(&problem, channel);
        let of_input = expected.of_grad_input(&problem, channel);
        let moved: [(&str, Values, usize, f64); 5] = [
            ("y", |pass| &mut pass.y, index, of_y),
            ("grad_inputs", |pass| &mut pass.grad_inputs, index, of_input),
            (
                "grad_residuals",
                |pass| pass.grad_residuals.as_mut().unwrap(),
                index,
                f64::from(f32::EPSILON),
            ),
            ("grad_weights", |pass| pass.grad_weights.as_mut().unwrap(), channel, of_weight),
            ("grad_biases", |pass| pass.grad_biases.as_mut().unwrap(), channel, of_bias),
        ];
        for (name, values, at, bound) in moved {
            for (change, allowed) in
                [(2.0 * bound, false), (-2.0 * bound, false), (f64::NAN, false), (0.0, true)]
            {
                let mut found = exact.clone();
                let value = &mut values(&mut found)[rank][at];
                *value = (f64::from(*value) + change) as f32;
                let result = expected.compare(&problem, &found);
                assert_eq!(result.is_ok(), allowed, "{uses:?}, {name}, {change:e}");
                assert!(
                    result.err().is_none_or(|error| error.contains(&format!("{name}[{rank}]")))
                );
            }
            let mut found = exact.clone();
            values(&mut found)[rank].pop();
            assert!(expected.compare(&problem, &found).unwrap_err().contains("values, expected"));
        }
    }
}
