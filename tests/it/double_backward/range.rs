//! Double backward over the range of f32: of x, grad_output and the cotangents.

use syncbn::Layout;
use syncbn::low_level::Epilogue;

use super::common::epilogue::problem::{Problem, Uses};
use super::common::*;
use super::double::Case;

/// Scales of x, grad_output, the cotangent of grad_input and that of grad_weight, with which every
/// gradient is within f32, and so are the products grad_output·(x − mean), which backward sums.
/// Products with the cotangents vanish or overflow in f32.
const SCALES: [[f32; 4]; 8] = [
    [1e-30, 1.0, 1e-30, 1.0],
    [1e-20, 1e-10, 1.0, 1.0],
    [1e-20, 1.0, 1e-10, 1.0],
    [1e20, 1.0, 1e20, 1.0],
    [1e30, 1.0, 1e30, 1.0],
    [1e30, 1e5, 1e30, 1.0],
    [1.0, 1e30, 1e-30, 1e-30],
    [1.0, 1e-30, 1e30, 1e30],
];

#[test]
fn gradients_are_right_at_every_scale() {
    for (dims, seed) in [([9, 3, 5], 1), ([3, 4, 4800], 2)] {
        let dims = [dims.to_vec(), vec![2, dims[1], 4]];
        for scales in SCALES {
            let mut case = Case::new(Problem::plain(&dims, Epilogue::NONE, seed), seed);
            let scale = |values: &mut Vec<f32>, by: f32| {
                values.iter_mut().for_each(|value| *value *= by);
            };
            let [of_x, of_g, of_v, of_u] = scales;
            case.problem.x.iter_mut().for_each(|batch| scale(&mut batch.values, of_x));
            case.problem.g.iter_mut().for_each(|batch| scale(&mut batch.values, of_g));
            case.v.iter_mut().flatten().for_each(|batch| scale(&mut batch.values, of_v));
            case.u.iter_mut().flatten().for_each(|values| scale(values, of_u));
            // The cotangent of grad_bias is as large as the rest of the gradient.
            let of_q = (of_v / of_x).max(of_u);
            case.q.iter_mut().flatten().for_each(|values| scale(values, of_q));
            let eps = if of_x < 1.0 { 0.0 } else { 1e-5 };
            case.problem.config = case.problem.config.with_eps(eps);
            for kind in Kind::tested() {
                let found = case.run(kind, Layout::ChannelsFirst, Uses::Group);
                let share = case.compare(Uses::Group, &found);
                let share = share.unwrap_or_else(|error| panic!("{kind:?}, {scales:?}: {error}"));
                println!("{kind:?}, {scales:?}, {dims:?}: {share:.2} of the bound");
            }
        }
    }
}

#[test]
fn a_gradient_beyond_f32_is_nan_or_infinite_and_the_other_stays() {
    let dims = [vec![9, 3, 5]];
    let mut case = Case::new(Problem::plain(&dims, Epilogue::NONE, 5), 5);
    case.problem.config = case.problem.config.with_eps(0.0);
    // The gradient of x is about 10⁶⁰.
    case.problem.x[0].values.iter_mut().for_each(|value| *value *= 1e-30);
    for kind in Kind::tested() {
        let found = case.run(kind, Layout::ChannelsFirst, Uses::Group);
        assert!(found.inputs[0].iter().all(|value| !value.is_finite()), "{kind:?}");
        assert!(found.grad_outputs[0].iter().all(|value| value.is_finite()), "{kind:?}");
    }
}
