//! Passes in place, and their bits beside those of passes out of place.

use syncbn::{
    Backward, DType, Device, Error, Forward, Tensor, error::ArgumentError, low_level::Epilogue,
};

use super::common::*;
use super::devices::On;
use super::one_gpu::{layer, passes, tensors};
use super::problem::{EPILOGUES, Problem, Uses, shape};
use super::stored::*;

/// Forward and backward of a problem, everything in place, by its use of statistics.
fn in_place(problem: &Problem, device: &Device, layouts: Layouts, uses: Uses) -> [Vec<Tensor>; 3] {
    let mut layer = layer(problem, device);
    let mut call = tensors(problem, device, layouts);
    let saved = match uses {
        Uses::Group => layer.forward_train(call.forward()),
        Uses::Running => layer.forward_eval(call.forward()),
    };
    let saved = saved.unwrap().saved;
    let mut gradients = tensors(problem, device, layouts).g;
    let mut grad_residuals = tensors(problem, device, layouts).x;
    let mut request = Backward::in_place(&call.x, &mut gradients)
        .residual_gradient(problem.epilogue().adds_residual().then_some(&mut grad_residuals));
    if let Some(residuals) = call.residuals.as_ref().filter(|_| saved.needs_residual()) {
        request = request.residual(residuals);
    }
    layer.backward(&saved, request).unwrap();
    // The statistics moved with the call that is differentiated.
    layer.set_running_stats(problem.running.clone()).unwrap();
    let mut request = Forward::in_place(&mut call.x);
    if let Some(residuals) = &call.residuals {
        request = request.residual(residuals);
    }
    match uses {
        Uses::Group => layer.forward_train(request),
        Uses::Running => layer.forward_eval(request),
    }
    .unwrap();
    [call.x, gradients, grad_residuals]
}

#[test]
fn in_place_gives_the_bits_of_a_pass_out_of_place() {
    let mut seed = 8000;
    for epilogue in EPILOGUES {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for mask in [false, true] {
                let on = if seed % 2 == 0 { On::Native } else { On::Portable };
                let layouts = Layouts::all()[if seed % 3 == 0 { 0 } else { 3 }];
                let types = Types { x: dtype, other: dtype };
                let mut problem =
                    Problem::random(&shape(seed), &[types], epilogue, [true, true], seed);
                problem.config = problem.config.with_activation_mask(mask);
                let device = &on.devices(1)[0];
                for (uses, expected) in passes(&problem, device, layouts).unwrap() {
                    let what = format!(
                        "seed {seed}: {on:?}, {epilogue:?}, {dtype}, mask {mask}, {uses:?}"
                    );
                    let [y, grad_inputs, grad_residuals] =
                        in_place(&problem, device, layouts, uses);
                    assert_eq!(bits(&problem.read(&y)), bits(&expected.y), "{what}");
                    assert_eq!(
                        bits(&problem.read(&grad_inputs)),
                        bits(&expected.grad_inputs),
                        "{what}"
                    );
                    if let Some(expected) = expected.grad_residuals {
                        assert_eq!(bits(&problem.read(&grad_residuals)), bits(&expected), "{what}");
                    }
                }
                seed += 1;
            }
        }
    }
}

#[test]
fn what_cannot_be_written_over_is_refused() {
    let device = &virtual_gpus()[0];
    let problem = Problem::plain(&shape(1), Epilogue::RELU, 1);
    let layer = layer(&problem, device);
    let layouts = Layouts::all()[0];
    let call = tensors(&problem, device, layouts);
    let mut place = tensors(&problem, device, layouts);
    let saved = layer.forward_train(&call.x).unwrap().saved;
    let request = Backward::in_place(&call.x, &mut place.g).input_gradient(&mut place.x);
    let error = layer.backward(&saved, request).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Argument(ArgumentError::NotWanted { argument: "input_gradient", .. })
        ),
        "{error}"
    );
    let error = layer.backward(&saved, Backward::in_place(&call.x, &mut place.g[1..])).unwrap_err();
    assert!(
        matches!(error, Error::Argument(ArgumentError::RankCount { argument: "grad_output", .. })),
        "{error}"
    );
    let residuals = tensors(&problem, device, layouts).x;
    let error =
        layer.forward_train(Forward::in_place(&mut place.x).residual(&residuals)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Argument(ArgumentError::ResidualNotAdded { argument: "residual", .. })
        ),
        "{error}"
    );
    assert_eq!(bits(&problem.read(&place.x)), bits(&problem.read(&call.x)), "nothing was written");
}
