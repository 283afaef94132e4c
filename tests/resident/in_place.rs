//! Passes over the tensors that they read, and their bits beside those of tensors apart.

use syncbn::{ArgumentError, DType, Device, Epilogue, Error, GradTargets, InPlace, ResidentGroup, Tensor};

use super::common::*;
use super::devices::On;
use super::layer::{layer, passes, tensors};
use super::problem::{EPILOGUES, Problem, Uses, shape};
use super::stored::*;

/// Forward and backward of a problem, everything in place, by its use of statistics.
fn in_place(problem: &Problem, device: &Device, layouts: Layouts, uses: Uses) -> [Vec<Tensor>; 3] {
    let (mut layer, mut call) = (layer(problem, device), tensors(problem, device, layouts));
    let saved = match uses {
        Uses::Group => layer.forward_train(call.inputs()),
        Uses::Running => layer.forward_eval(call.inputs()),
    };
    let saved = saved.unwrap().saved;
    let needed = if saved.needs_residuals() { call.inputs() } else { (&call.x).into() };
    let mut over = tensors(problem, device, layouts).g;
    let mut grad_residuals = tensors(problem, device, layouts).x;
    let targets = GradTargets {
        grad_residuals: problem.epilogue().adds_residual().then_some(&mut grad_residuals[..]),
        ..GradTargets::default()
    };
    layer.backward_in_place(&saved, needed, &mut over, targets).unwrap();
    // The statistics moved with the call that is differentiated.
    layer.set_running_stats(&problem.running).unwrap();
    let place = match &call.residuals {
        Some(residuals) => InPlace::with_residuals(&mut call.x, residuals),
        None => (&mut call.x).into(),
    };
    match uses {
        Uses::Group => layer.forward_train_in_place(place),
        Uses::Running => layer.forward_eval_in_place(place),
    }
    .unwrap();
    [call.x, over, grad_residuals]
}

#[test]
fn in_place_gives_the_bits_of_tensors_apart() {
    let mut seed = 8000;
    for epilogue in EPILOGUES {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for mask in [false, true] {
                let on = if seed % 2 == 0 { On::Native } else { On::Portable };
                let layouts = Layouts::all()[if seed % 3 == 0 { 0 } else { 3 }];
                let types = Types { x: dtype, other: dtype };
                let mut problem = Problem::random(&shape(seed), &[types], epilogue, [true, true], seed);
                problem.config = problem.config.with_activation_mask(mask);
                let device = &on.devices(1)[0];
                for (uses, expected) in passes(&problem, device, layouts).unwrap() {
                    let what = format!("seed {seed}: {on:?}, {epilogue:?}, {dtype}, mask {mask}, {uses:?}");
                    let [y, grad_inputs, grad_residuals] = in_place(&problem, device, layouts, uses);
                    assert_eq!(bits(&problem.read(&y)), bits(&expected.y), "{what}");
                    assert_eq!(bits(&problem.read(&grad_inputs)), bits(&expected.grad_inputs), "{what}");
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
    let problem = Problem::plain(&shape(1), Epilogue::Relu, 1);
    let mut layer: ResidentGroup = layer(&problem, device);
    let layouts = Layouts::all()[0];
    let (call, mut place) = (tensors(&problem, device, layouts), tensors(&problem, device, layouts));
    let saved = layer.forward_train(&call.x).unwrap().saved;
    let targets = GradTargets { grad_inputs: Some(&mut place.x), ..GradTargets::default() };
    let error = layer.backward_in_place(&saved, &call.x, &mut place.g, targets).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::NotWanted { argument: "targets.grad_inputs", .. })));
    let short = &mut place.g[1..];
    let error = layer.backward_in_place(&saved, &call.x, short, GradTargets::default()).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::RankCount { argument: "grad_outputs", .. })), "{error}");
    let residuals = tensors(&problem, device, layouts).x;
    let error = layer.forward_train_in_place(InPlace::with_residuals(&mut place.x, &residuals)).unwrap_err();
    assert_eq!(error, ArgumentError::NoSuchParameter { name: "residuals" }.into());
    assert_eq!(bits(&problem.read(&place.x)), bits(&problem.read(&call.x)), "nothing was written");
}
