//! `SyncBatchNorm` into the caller's tensors: the bits of the forms that allocate, and an exchange even where a rank wants
//! no gradient of its input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use pollster::block_on;
use syncbn::{Device, Epilogue, Input, LayerGradTargets, ProcessGroup, SyncBatchNorm, SyncBatchNormConfig, Tensor};

use common::*;

/// Nobody waits in vain here.
const DEADLINE: Duration = Duration::from_secs(20);
const DIMS: [usize; 3] = [4, 3, 7];
const ELEMENTS: usize = 4 * 3 * 7;

/// x, residual and grad_output of a rank on its device.
fn tensors(device: &Device, rank: usize) -> [Tensor; 3] {
    let mut random = Random(rank as u64 + 1);
    std::array::from_fn(|_| device.upload(&DIMS, &random.values(ELEMENTS)).unwrap())
}

fn layer(device: &Device, group: &ProcessGroup, epilogue: Epilogue) -> SyncBatchNorm {
    let config = SyncBatchNormConfig::torch(DIMS[1]).with_epilogue(epilogue);
    let mut layer = SyncBatchNorm::new(config, device.clone(), group).unwrap();
    layer.set_parameters(Some(&[0.5, -1.0, 2.0]), Some(&[0.25, 0.0, -0.5])).unwrap();
    layer
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    block_on(tensor.to_vec()).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_caller_s_tensors_get_the_bits_of_the_forms_that_allocate() {
    for device in devices() {
        let same = on_threads(process_groups(2, DEADLINE), |group| {
            let [x, residual, grad_output] = tensors(&device, group.rank());
            let input = Input::with_residual(&x, &residual);
            let mut layer = layer(&device, &group, Epilogue::AddRelu);
            let forward = block_on(layer.forward_train(input)).unwrap();
            let backward = block_on(layer.backward(&forward.saved, input, &grad_output)).unwrap();
            let evaluated = block_on(layer.forward_eval(input)).unwrap();

            let [mut y, mut dx, mut dz] = std::array::from_fn(|_| device.zeros(&DIMS).unwrap());
            let [mut dw, mut db] = std::array::from_fn(|_| device.zeros(&[DIMS[1]]).unwrap());
            let (saved, _) = block_on(layer.forward_train_into(input, &mut y)).unwrap();
            let targets = LayerGradTargets {
                grad_input: Some(&mut dx),
                grad_weight: Some(&mut dw),
                grad_bias: Some(&mut db),
                grad_residual: Some(&mut dz),
            };
            block_on(layer.backward_into(&saved, input, &grad_output, targets)).unwrap();
            assert_eq!(bits(&y), bits(&forward.output));
            assert_eq!(bits(&dx), bits(&backward.grad_input));
            assert_eq!(bits(&dz), bits(backward.grad_residual.as_ref().unwrap()));
            assert_eq!(bits(&dw), bits(backward.grad_weight.as_ref().unwrap()));
            assert_eq!(bits(&db), bits(backward.grad_bias.as_ref().unwrap()));
            // A second step has been counted since the first evaluation.
            block_on(layer.forward_eval_into(input, &mut y)).unwrap();
            bits(&y) == bits(&evaluated.output)
        });
        assert_eq!(same, [false, false], "{device}: the running statistics moved between the evaluations");
    }
}

#[test]
fn a_rank_that_wants_no_gradient_of_its_input_still_takes_part() {
    let host = Device::host();
    let found = on_threads(process_groups(2, DEADLINE), |group| {
        let [x, _, grad_output] = tensors(&host, group.rank());
        let mut layer = layer(&host, &group, Epilogue::None);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let whole = block_on(layer.backward(&forward.saved, &x, &grad_output)).unwrap();
        if group.rank() == 0 {
            let targets = LayerGradTargets::default();
            let report = block_on(layer.backward_into(&forward.saved, &x, &grad_output, targets)).unwrap();
            assert_eq!(report.global, whole.report.global);
        } else {
            let again = block_on(layer.backward(&forward.saved, &x, &grad_output)).unwrap();
            assert_eq!(bits(&again.grad_input), bits(&whole.grad_input));
        }
        whole.report.global
    });
    assert_eq!(found[0], found[1]);
}

#[test]
fn what_is_written_over_has_the_bits_of_tensors_apart() {
    for device in devices() {
        on_threads(process_groups(2, DEADLINE), |group| {
            let [mut x, residual, mut grad_output] = tensors(&device, group.rank());
            let input = Input::with_residual(&x, &residual);
            let mut layer = layer(&device, &group, Epilogue::AddRelu);
            let running = layer.running_stats().unwrap().clone();
            let forward = block_on(layer.forward_train(input)).unwrap();
            let backward = block_on(layer.backward(&forward.saved, input, &grad_output)).unwrap();
            let targets = LayerGradTargets::default();
            block_on(layer.backward_in_place(&forward.saved, input, &mut grad_output, targets)).unwrap();
            assert_eq!(bits(&grad_output), bits(&backward.grad_input));

            let followed = layer.running_stats().unwrap().clone();
            layer.set_running_stats(running).unwrap();
            let mut evaluated = device.upload(&DIMS, &block_on(x.to_vec()).unwrap()).unwrap();
            block_on(layer.forward_train_in_place(&mut x, Some(&residual))).unwrap();
            assert_eq!(bits(&x), bits(&forward.output));
            assert_eq!(layer.running_stats(), Some(&followed));

            let apart = block_on(layer.forward_eval(Input::with_residual(&evaluated, &residual))).unwrap();
            block_on(layer.forward_eval_in_place(&mut evaluated, Some(&residual))).unwrap();
            assert_eq!(bits(&evaluated), bits(&apart.output));
        });
    }
}
