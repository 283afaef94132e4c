//! What is refused, with the errors of a group that merges on the host and before anything is submitted.

use std::fmt::Debug;

use pollster::block_on;
use syncbn::{
    ArgumentError, BatchError, ConfigError, Device, DeviceGroup, Epilogue, Error, GradTargets, Inputs, ProcessGroup,
};
use syncbn::{LocalGroup, ResidentGroup, SyncBatchNormConfig, Tensor};

use super::common::*;
use super::layer::group_of;

const CHANNELS: usize = 3;
const DIMS: [usize; 3] = [2, CHANNELS, 5];

fn config() -> SyncBatchNormConfig {
    SyncBatchNormConfig::torch(CHANNELS)
}

fn random(device: &Device, dims: &[usize]) -> Tensor {
    Batch::random(dims, &mut Random(5)).upload(device)
}

fn error<T: Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("an error")
}

#[test]
fn a_call_that_a_group_refuses_is_refused_alike_and_changes_nothing() {
    let [device, other] = [0, 1].map(|index| virtual_gpus()[index].clone());
    let mut group = group_of(&config(), &device, 2);
    let mut layer = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    let before = block_on(layer.state_dict()).unwrap();
    let good = || [random(&device, &DIMS), random(&device, &DIMS)];
    let lists: [Vec<Tensor>; 5] = [
        vec![random(&device, &DIMS)],
        vec![random(&device, &DIMS), random(&other, &DIMS)],
        vec![random(&device, &DIMS), random(&Device::host(), &DIMS)],
        vec![random(&device, &DIMS), random(&device, &[2, 4, 5])],
        vec![random(&device, &[1, CHANNELS, 1]), random(&device, &[0, CHANNELS, 5])],
    ];
    for inputs in &lists {
        let expected = error(block_on(group.forward_train(inputs)));
        assert_eq!(error(layer.forward_train(inputs)), expected);
        assert_eq!(error(layer.forward_recompute(inputs)), expected);
    }
    assert_eq!(error(layer.forward_train(&lists[4])), BatchError::OneValue.into());
    let inputs = good();
    let with_residuals = || Inputs::with_residuals(&inputs, &inputs);
    assert_eq!(error(layer.forward_train(with_residuals())), error(block_on(group.forward_train(with_residuals()))));

    // Outputs over inputs, and gradients over upstream gradients.
    let (raw, _) = device.wgpu().unwrap();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let buffer =
        raw.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4096, usage, mapped_at_creation: false });
    let wrapped = || [0, 256].map(|offset| device.wrap(buffer.clone(), offset, &DIMS).unwrap());
    let over = wrapped();
    let expected = error(block_on(group.forward_train_into(&over, &mut wrapped())));
    assert!(matches!(expected, Error::Argument(ArgumentError::Overlap { .. })), "{expected:?}");
    assert_eq!(error(layer.forward_train_into(&over, &mut wrapped())), expected);
    let mut encoder = raw.create_command_encoder(&Default::default());
    assert_eq!(error(layer.encode_forward(&mut encoder, &over, &mut wrapped())), expected);
    assert_eq!(block_on(layer.state_dict()).unwrap(), before, "a call that was refused left something behind");

    let saved = layer.forward_train(&inputs).unwrap().saved;
    let of_group = block_on(group.forward_train(&inputs)).unwrap().saved;
    let g = wrapped();
    fn targets(tensors: &mut [Tensor]) -> GradTargets<'_> {
        GradTargets { grad_inputs: Some(tensors), ..GradTargets::default() }
    }
    let expected = error(block_on(group.backward_into(&of_group, &inputs, &g, targets(&mut wrapped()))));
    assert_eq!(error(layer.backward_into(&saved, &inputs, &g, targets(&mut wrapped()))), expected);
    let short = [random(&device, &DIMS)];
    assert_eq!(
        error(layer.backward(&saved, &inputs, &short)),
        error(block_on(group.backward(&of_group, &inputs, &short)))
    );
    let others = good();
    let expected = error(block_on(group.backward(&of_group, &others, &g)));
    assert!(matches!(expected, Error::Argument(ArgumentError::NotSaved { .. })), "{expected:?}");
    assert_eq!(error(layer.backward(&saved, &others, &g)), expected);
    // The call of another layer, and parameters set since.
    let another = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    assert!(error(another.backward(&saved, &inputs, &g)).to_string().contains("another layer"));
    layer.set_parameters(Some(&[1.0; CHANNELS]), None).unwrap();
    assert!(error(layer.backward(&saved, &inputs, &g)).to_string().contains("set since"));
}

#[test]
fn a_residual_is_needed_where_it_decides() {
    let device = &virtual_gpus()[0];
    let config = config().with_epilogue(Epilogue::AddRelu);
    let mut layer = ResidentGroup::new(config, device.clone(), 1).unwrap();
    let (x, residual) = ([random(device, &DIMS)], [random(device, &DIMS)]);
    let refused = ArgumentError::NoResidual { epilogue: Epilogue::AddRelu };
    assert_eq!(error(layer.forward_train(&x)), refused.clone().into());
    let saved = layer.forward_train(Inputs::with_residuals(&x, &residual)).unwrap().saved;
    assert!(saved.needs_residuals() && saved.mask_bytes() == 0);
    assert_eq!(error(layer.backward(&saved, &x, &x)), refused.into());
}

#[test]
fn ranks_that_do_not_share_one_gpu_are_refused() {
    let [a, b] = [0, 1].map(|index| virtual_gpus()[index].clone());
    assert_eq!(error(ResidentGroup::new(config(), a.clone(), 0)), ConfigError::NoDevices.into());
    for devices in [vec![Device::host()], vec![a.clone(), Device::host()], vec![a.clone(), b]] {
        let refused = error(DeviceGroup::new(config(), devices).unwrap().into_resident());
        assert!(matches!(refused, Error::Argument(ArgumentError::NotResident { .. })), "{refused:?}");
    }
    let groups: Vec<ProcessGroup> = LocalGroup::ranks(2).into_iter().map(ProcessGroup::new).collect();
    let refused = on_threads(groups, |group| {
        let member = block_on(DeviceGroup::in_group(config(), vec![a.clone()], &group)).unwrap();
        error(member.into_resident()).to_string()
    });
    assert!(refused.iter().all(|refused| refused.contains("other processes or threads")), "{refused:?}");
}
