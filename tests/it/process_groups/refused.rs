//! What a layer of a process group refuses when it is asked, since it would fail or be lost later.

use approx::abs_diff_eq;
use pollster::block_on;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, Tensor};
use wgpu::BufferUsages;

use crate::common::{on_threads, process_groups, virtual_gpus};
use crate::process_groups::{CHANNELS, LONG};

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// A vector of channels in a buffer that this test made, all 2.
fn vector(device: &Device, usage: BufferUsages) -> Tensor {
    let (gpu, queue) = device.wgpu().expect("a GPU");
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false };
    let buffer = gpu.create_buffer(&descriptor);
    queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&[2.0f32; CHANNELS]));
    device.wrap(buffer, 0, &[CHANNELS]).unwrap()
}

/// The message of an argument's error.
fn message(error: &Error) -> String {
    assert!(matches!(error, Error::Argument(_)), "{error:?}");
    error.to_string()
}

const UNREADABLE: BufferUsages = BufferUsages::STORAGE.union(BufferUsages::COPY_DST);

#[test]
fn a_parameter_that_cannot_be_read_is_refused_when_it_is_given_where_ranks_compare_it() {
    let groups = process_groups(2, LONG);
    on_threads(groups, |group| {
        let device = virtual_gpus()[group.rank()].clone();
        let mut layer =
            SyncBatchNorm::new(config(), [device.clone()]).unwrap().in_group(&group).unwrap();
        let unreadable = || Some(vector(&device, UNREADABLE));
        let readable = || Some(vector(&device, UNREADABLE | BufferUsages::COPY_SRC));
        let given = [
            ("weight", unreadable(), None),
            ("bias", None, unreadable()),
            ("bias", readable(), unreadable()),
        ];
        for (name, weight, bias) in given {
            let refused = message(
                &layer.set_parameter_tensors(weight, bias).expect_err("a parameter to compare"),
            );
            assert!(
                refused.starts_with(&format!("{name} lies")) && refused.contains("COPY_SRC"),
                "{refused}"
            );
        }
        // Nothing was set: those of the beginning are in use.
        assert_eq!(block_on(layer.state()).unwrap().weight, Some(vec![1.0; CHANNELS]));
        layer.set_parameter_tensors(readable(), readable()).unwrap();
        block_on(layer.forward_train(&device.zeros(&[2, CHANNELS]).unwrap()))
            .expect("the group goes on");
    });
}

#[test]
fn a_parameter_that_cannot_be_read_serves_a_layer_without_peers_and_is_named_where_it_is_read() {
    let device = virtual_gpus()[0].clone();
    let mut layer = SyncBatchNorm::new(config(), [device.clone()])
        .unwrap()
        .in_group(&ProcessGroup::single())
        .unwrap();
    layer.set_parameter_tensors(Some(vector(&device, UNREADABLE)), None).unwrap();
    let values = [[1.0f32; CHANNELS], [3.0; CHANNELS]].concat();
    let x = device.upload(&[2, CHANNELS], &values).unwrap();
    let y = block_on(layer.forward_train(&x)).expect("forward").output;
    // Mean 2, deviation 1, weight 2; eps takes 5e-6 of the size.
    let y = block_on(y.to_vec()).unwrap();
    assert!(y.iter().all(|y| abs_diff_eq!(y.abs(), 2.0, epsilon = 2e-5)), "{y:?}");
    let refused = message(&block_on(layer.state()).expect_err("it cannot be read"));
    assert!(refused.starts_with("weight lies") && refused.contains("COPY_SRC"), "{refused}");
}

#[test]
fn layers_that_have_peers_are_not_synchronized_with_others() {
    let local = || SyncBatchNorm::new(config(), [Device::host()]).unwrap();
    on_threads(process_groups(2, LONG), |group| {
        let member = || local().in_group(&group).unwrap();

        for (layers, index) in
            [(vec![member()], 0), (vec![member(), local()], 0), (vec![local(), member()], 1)]
        {
            let refused =
                message(&SyncBatchNorm::synchronized(layers).expect_err("its peers would be lost"));
            let named = refused.starts_with(&format!("layers[{index}]"));
            assert!(named && refused.contains("other processes or threads"), "{refused}");
        }
    });
    // A group of one process has no peers to lose.
    let alone = local().in_group(&ProcessGroup::single()).unwrap();
    assert_eq!(SyncBatchNorm::synchronized(vec![alone]).unwrap().devices().len(), 1);
}
