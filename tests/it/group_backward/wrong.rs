//! A wrong formula for each output of the layer, and that the comparisons of these tests catch it.

use syncbn::stats::RunningStats;
use syncbn_reference::{Divisor, Running};

use super::common::oracle::with_ranks;
use super::common::*;
use super::compare::compare_gradients;
use super::problem::{Found, Problem, Uses};

/// The formulas of forward and backward with each term in the open, so that one can be wrong.
struct Formula {
    /// What stands for A/N and for B/N.
    mean_dy: fn(&Sums) -> f64,
    mean_dy_xmu: fn(&Sums) -> f64,
    /// What is multiplied in grad_input, and in grad_weight.
    input_scale: fn(f64, f64) -> f64,
    weight_scale: fn(f64) -> f64,
    grad_bias: fn(&Sums) -> f64,
    /// What x̂ is measured from in grad_weight.
    center: fn(&Sums) -> f64,
}

/// Sums of one channel, over the group and over the rank.
struct Sums {
    n: f64,
    rank_n: f64,
    mean: f64,
    a: f64,
    b: f64,
    rank_a: f64,
}

const RIGHT: Formula = Formula {
    mean_dy: |s| s.a / s.n,
    mean_dy_xmu: |s| s.b / s.n,
    input_scale: |weight, inv_std| weight * inv_std,
    weight_scale: |inv_std| inv_std,
    grad_bias: |s| s.rank_a,
    center: |s| s.mean,
};

fn by_formula(problem: &Problem, formula: &Formula) -> Found {
    let statistics =
        with_ranks(&problem.batches, |ranks| syncbn_reference::batch_statistics(ranks).unwrap());
    let channels = problem.channels();
    let pairs = |rank: usize, c: usize| {
        let batch = &problem.batches[rank];
        let g = &problem.grad_outputs[rank];
        let indices = (0..batch.values.len()).filter(move |&index| batch.channel(index) == c);
        indices
            .map(move |index| (index, f64::from(batch.values[index]), f64::from(g.values[index])))
    };
    let ranks = 0..problem.batches.len();
    let mut found = Found {
        grad_inputs: problem.batches.iter().map(|batch| vec![0.0; batch.values.len()]).collect(),
        grad_weights: Some(vec![vec![0.0; channels]; ranks.len()]),
        grad_biases: Some(vec![vec![0.0; channels]; ranks.len()]),
    };
    for c in 0..channels {
        let mean = statistics.mean[c];
        let inv_std = 1.0 / (statistics.var_biased[c] + problem.config.eps).sqrt();
        let all = || ranks.clone().flat_map(|rank| pairs(rank, c));
        let (a, b) = all().fold((0.0, 0.0), |(a, b), (_, x, g)| (a + g, b + g * (x - mean)));
        for rank in ranks.clone() {
            let rank_a = pairs(rank, c).map(|(_, _, g)| g).sum();
            let rank_n = pairs(rank, c).count() as f64;
            let sums = Sums { n: statistics.count as f64, rank_n, mean, a, b, rank_a };
            let mean_dy = (formula.mean_dy)(&sums);
            let mean_dy_xmu = (formula.mean_dy_xmu)(&sums);
            let scale = (formula.input_scale)(problem.parameters.weight[c].into(), inv_std);
            for (index, x, g) in pairs(rank, c) {
                let projected = (x - mean) * inv_std * inv_std * mean_dy_xmu;
                found.grad_inputs[rank][index] = (scale * (g - mean_dy - projected)) as f32;
            }
            let center = (formula.center)(&sums);
            let sum: f64 = pairs(rank, c).map(|(_, x, g)| g * (x - center)).sum();
            found.grad_weights.as_mut().unwrap()[rank][c] =
                ((formula.weight_scale)(inv_std) * sum) as f32;
            found.grad_biases.as_mut().unwrap()[rank][c] = (formula.grad_bias)(&sums) as f32;
        }
    }
    found
}

/// Two ranks of different size and mean; 56 values per channel, so that N − 1 is not N.
fn problem() -> Problem {
    let mut random = Random::new(300);
    let batches = [
        Batch::new(&[5, 2, 7], |_| random.next() as f32),
        Batch::new(&[3, 2, 7], |_| 1.0 + random.next() as f32),
    ];
    Problem::with_batches(batches.to_vec(), &mut Random::new(301))
}

#[test]
fn a_wrong_term_of_any_gradient_is_caught() {
    let problem = problem();
    let expected = problem.definition(Uses::Group);
    let compared = |formula: &Formula| {
        compare_gradients(&problem, Uses::Group, &by_formula(&problem, formula), &expected)
    };
    let share = compared(&RIGHT).unwrap();
    assert!(share < 0.1, "the right formula in f64, rounded once, uses {share} of the tolerance");

    let wrong: [(&str, &str, Formula); 12] = [
        ("grad_inputs", "without A/N", Formula { mean_dy: |_| 0.0, ..RIGHT }),
        ("grad_inputs", "without B/N", Formula { mean_dy_xmu: |_| 0.0, ..RIGHT }),
        ("grad_inputs", "A/(N - 1)", Formula { mean_dy: |s| s.a / (s.n - 1.0), ..RIGHT }),
        ("grad_inputs", "B/(N - 1)", Formula { mean_dy_xmu: |s| s.b / (s.n - 1.0), ..RIGHT }),
        ("grad_inputs", "A of the rank", Formula { mean_dy: |s| s.rank_a / s.rank_n, ..RIGHT }),
        ("grad_inputs", "without weight", Formula { input_scale: |_, inv_std| inv_std, ..RIGHT }),
        ("grad_inputs", "without inv_std", Formula { input_scale: |weight, _| weight, ..RIGHT }),
        ("grad_weights", "without inv_std", Formula { weight_scale: |_| 1.0, ..RIGHT }),
        (
            "grad_weights",
            "inv_std squared",
            Formula { weight_scale: |inv_std| inv_std * inv_std, ..RIGHT },
        ),
        ("grad_weights", "of x and not x - mean", Formula { center: |_| 0.0, ..RIGHT }),
        ("grad_biases", "of the group", Formula { grad_bias: |s| s.a, ..RIGHT }),
        ("grad_biases", "averaged", Formula { grad_bias: |s| s.rank_a / s.rank_n, ..RIGHT }),
    ];
    for (output, what, formula) in &wrong {
        let error = compared(formula).expect_err(&format!("{output}, {what}, passes"));
        assert!(error.contains(output), "{output}, {what}: {error}");
    }
}

#[test]
fn a_wrong_y_or_running_statistic_is_caught() {
    let problem = problem();
    let eps = problem.config.eps;
    let right = definition(&problem.batches, Some(&problem.parameters), eps);
    let narrowed = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let y = |parameters: &Parameters, eps: f64| -> Vec<Vec<f32>> {
        definition(&problem.batches, Some(parameters), eps)
            .outputs
            .iter()
            .map(|y| narrowed(y))
            .collect()
    };
    let compared =
        |found: &[Vec<f32>]| compare(&problem.batches, found, &right.outputs, TOLERANCE_ULP);
    compared(&y(&problem.parameters, eps)).unwrap();
    let Parameters { weight, bias } = problem.parameters.clone();
    compared(&y(&Parameters { weight: vec![1.0; 2], bias: bias.clone() }, eps)).unwrap_err();
    compared(&y(&Parameters { weight, bias: vec![0.0; 2] }, eps)).unwrap_err();
    compared(&y(&problem.parameters, 0.0)).unwrap_err();

    let before =
        || Running { mean: widened(&problem.running.mean), var: widened(&problem.running.var) };
    let running = |factor: f64, divisor| {
        let mut running = before();
        running.update(&right.statistics, factor, divisor).unwrap();
        running
    };
    let expected = running(0.1, Divisor::CountMinusOne);
    let compared = |found: &Running| {
        let found = RunningStats {
            mean: narrowed(&found.mean),
            var: narrowed(&found.var),
            num_batches_tracked: 8,
        };
        compare_running(&found, &expected, 1.0)
    };
    compared(&expected).unwrap();
    // Each statistic wrong by itself: the momentum's meaning turned round, the other divisor, and
    // not moved at all.
    let turned = running(0.9, Divisor::CountMinusOne);
    let of =
        |mean: &Running, var: &Running| Running { mean: mean.mean.clone(), var: var.var.clone() };
    assert!(compared(&of(&turned, &expected)).unwrap_err().contains("running_mean"));
    assert!(compared(&of(&before(), &expected)).unwrap_err().contains("running_mean"));
    assert!(compared(&of(&expected, &turned)).unwrap_err().contains("running_var"));
    assert!(
        compared(&of(&expected, &running(0.1, Divisor::Count)))
            .unwrap_err()
            .contains("running_var")
    );
    assert!(compared(&of(&expected, &before())).unwrap_err().contains("running_var"));
}

#[test]
fn the_comparison_of_gradients_fails_at_twice_its_tolerance() {
    let problem = problem();
    let expected = problem.definition(Uses::Group);
    let exact = by_formula(&problem, &RIGHT);
    let compared = |found: &Found| compare_gradients(&problem, Uses::Group, found, &expected);
    // No gradient of this problem allows more than this: tolerance times the size of what the sums
    // are made of.
    let rank = 0;
    let channel = 0;
    let ups = &problem.grad_outputs;
    let of_channel =
        |rank: usize| (0..ups[rank].values.len()).filter(move |&i| ups[rank].channel(i) == channel);
    let sum_g: f64 = of_channel(rank).map(|i| f64::from(ups[rank].values[i]).abs()).sum();
    let mut found = exact.clone();
    found.grad_biases.as_mut().unwrap()[rank][channel] +=
        (2.0 * STATISTICS_TOLERANCE * sum_g) as f32;
    assert!(compared(&found).unwrap_err().contains("grad_biases[0], value 0"));
    // |x̂| is below 4 here: no term of grad_weight or grad_input exceeds the sums times this.
    let mut found = exact.clone();
    found.grad_weights.as_mut().unwrap()[rank][channel] +=
        (2.0 * STATISTICS_TOLERANCE * 5.0 * sum_g) as f32;
    assert!(compared(&found).unwrap_err().contains("grad_weights[0], value 0"));
    let largest_k = 1.0 / 0.5;
    let mut found = exact.clone();
    found.grad_inputs[1][3] += (2.0 * STATISTICS_TOLERANCE * largest_k * 1.25 * 30.0) as f32;
    assert!(compared(&found).unwrap_err().contains("grad_inputs[1]"));
    for poison in 0..3 {
        let mut found = exact.clone();
        match poison {
            0 => found.grad_inputs[0][0] = f32::NAN,
            1 => found.grad_weights.as_mut().unwrap()[0][0] = f32::NAN,
            _ => found.grad_biases.as_mut().unwrap()[0][0] = f32::NAN,
        }
        compared(&found).unwrap_err();
    }
    let mut found = exact;
    found.grad_inputs[0].pop();
    assert!(compared(&found).unwrap_err().contains("values, expected"));
}
