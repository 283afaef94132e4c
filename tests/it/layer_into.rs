//! `SyncBatchNorm` into the caller's tensors: the bits of the forms that allocate, and an exchange
//! even where a rank wants no gradient of its input.

use crate::common;
use std::time::Duration;

use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, Device, Forward, ProcessGroup, SyncBatchNorm, Tensor,
    low_level::Epilogue,
};

use common::*;

/// Nobody waits in vain here.
const DEADLINE: Duration = Duration::from_secs(20);
const DIMS: [usize; 3] = [4, 3, 7];
const ELEMENTS: usize = 4 * 3 * 7;

/// x, residual and grad_output of a rank on its device.
fn tensors(device: &Device, rank: usize) -> [Tensor; 3] {
    let mut random = Random::new(rank as u64 + 1);
    std::array::from_fn(|_| device.upload(&DIMS, &random.values(ELEMENTS)).unwrap())
}

fn layer(device: &Device, group: &ProcessGroup, epilogue: Epilogue) -> SyncBatchNorm {
    let config = BatchNormConfig::torch(DIMS[1])
        .with_residual(epilogue.residual)
        .with_activation(epilogue.activation);
    let mut layer = SyncBatchNorm::new(config, [device.clone()]).unwrap().in_group(group).unwrap();
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
            let forward_of = || Forward::of(&x).residual(&residual);
            let backward_of = || Backward::of(&x, &grad_output);
            let layer = layer(&device, &group, Epilogue::ADD_RELU);
            let forward = block_on(layer.forward_train(forward_of())).unwrap();
            let backward =
                block_on(layer.backward(&forward.saved, backward_of().residual(&residual)))
                    .unwrap();
            let evaluated = block_on(layer.forward_eval(forward_of())).unwrap();

            let [mut y, mut dx, mut dz] = std::array::from_fn(|_| device.zeros(&DIMS).unwrap());
            let [mut dw, mut db] = std::array::from_fn(|_| device.zeros(&[DIMS[1]]).unwrap());
            let saved = block_on(layer.forward_train(forward_of().write_to(&mut y))).unwrap().saved;
            let request = backward_of()
                .residual(&residual)
                .input_gradient(&mut dx)
                .residual_gradient(&mut dz);
            let request = request.weight_gradient(&mut dw).bias_gradient(&mut db);
            block_on(layer.backward(&saved, request)).unwrap();
            assert_eq!(bits(&y), bits(&forward.output));
            assert_eq!(bits(&dx), bits(&backward.input));
            assert_eq!(bits(&dz), bits(backward.residual.as_ref().unwrap()));
            assert_eq!(bits(&dw), bits(backward.weight.as_ref().unwrap()));
            assert_eq!(bits(&db), bits(backward.bias.as_ref().unwrap()));
            // A second step has been counted since the first evaluation.
            block_on(layer.forward_eval(forward_of().write_to(&mut y))).unwrap();
            bits(&y) == bits(&evaluated.output)
        });
        assert_eq!(
            same,
            [false, false],
            "{device}: the running statistics moved between the evaluations"
        );
    }
}

#[test]
fn a_rank_that_wants_no_gradient_of_its_input_still_takes_part() {
    let host = Device::host();
    let found = on_threads(process_groups(2, DEADLINE), |group| {
        let [x, _, grad_output] = tensors(&host, group.rank());
        let layer = layer(&host, &group, Epilogue::NONE);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let whole =
            block_on(layer.backward(&forward.saved, Backward::of(&x, &grad_output))).unwrap();
        let global = whole.report.unwrap().global.unwrap();
        if group.rank() == 0 {
            let nothing = Backward::of(&x, &grad_output).input_gradient(None::<&mut Tensor>);
            let report = block_on(layer.backward(&forward.saved, nothing)).unwrap().report.unwrap();
            assert_eq!(report.global.as_ref(), Some(&global));
        } else {
            let again =
                block_on(layer.backward(&forward.saved, Backward::of(&x, &grad_output))).unwrap();
            assert_eq!(bits(&again.input), bits(&whole.input));
        }
        global
    });
    assert_eq!(found[0], found[1]);
}

#[test]
fn what_is_overwritten_has_the_bits_of_a_pass_out_of_place() {
    for device in devices() {
        on_threads(process_groups(2, DEADLINE), |group| {
            let [mut x, residual, mut grad_output] = tensors(&device, group.rank());
            let mut layer = layer(&device, &group, Epilogue::ADD_RELU);
            let running = layer.running_stats().unwrap();
            let forward =
                block_on(layer.forward_train(Forward::of(&x).residual(&residual))).unwrap();
            let request = Backward::of(&x, &grad_output).residual(&residual);
            let backward = block_on(layer.backward(&forward.saved, request)).unwrap();
            let request = Backward::in_place(&x, &mut grad_output).residual(&residual);
            block_on(layer.backward(&forward.saved, request)).unwrap();
            assert_eq!(bits(&grad_output), bits(&backward.input));

            let followed = layer.running_stats();
            layer.set_running_stats(running).unwrap();
            let mut evaluated = device.upload(&DIMS, &block_on(x.to_vec()).unwrap()).unwrap();
            block_on(layer.forward_train(Forward::in_place(&mut x).residual(&residual))).unwrap();
            assert_eq!(bits(&x), bits(&forward.output));
            assert!(followed.is_some());
            assert_eq!(layer.running_stats(), followed);

            let out_of_place =
                block_on(layer.forward_eval(Forward::of(&evaluated).residual(&residual))).unwrap();
            block_on(layer.forward_eval(Forward::in_place(&mut evaluated).residual(&residual)))
                .unwrap();
            assert_eq!(bits(&evaluated), bits(&out_of_place.output));
        });
    }
}
