//! Parameters that ranks could not compare: refused where the layer gets them or its peers,
//! whichever is later, before any rank waits for another.

use std::time::Duration;

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, Tensor};
use wgpu::BufferUsages;

use crate::common::{on_threads, process_groups, virtual_gpus};

/// Long, because nobody may have to wait for it.
const DEADLINE: Duration = Duration::from_secs(20);
const UNREADABLE: BufferUsages = BufferUsages::STORAGE.union(BufferUsages::COPY_DST);
const READABLE: BufferUsages = UNREADABLE.union(BufferUsages::COPY_SRC);

/// Two channels of 2 in a buffer of the application's.
fn vector(device: &Device, usage: BufferUsages) -> Tensor {
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false };
    let buffer = device.wgpu().expect("a GPU").0.create_buffer(&descriptor);
    let mut vector = device.wrap(buffer, 0, &[2]).unwrap();
    vector.write(&[2.0f32, 2.0]).unwrap();
    vector
}

/// The parameter that is refused, its rank, and what its buffer lacks.
fn refused<T>(result: Result<T, Error>) -> (&'static str, Option<usize>) {
    match result.map(drop) {
        Err(Error::Argument(ArgumentError::ParameterUsage { name, rank, found, expected })) => {
            assert!(
                expected == "BufferUsages(COPY_SRC)" && !found.contains("COPY_SRC"),
                "{found}, {expected}"
            );
            (name, rank)
        }
        other => panic!("expected a parameter to be refused, found {other:?}"),
    }
}

#[test]
fn they_are_refused_by_the_group_where_the_layer_has_them_already() {
    let device = &virtual_gpus()[0];
    let make = |weights: [BufferUsages; 2], biases: [BufferUsages; 2]| {
        let mut layer =
            SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone(), device.clone()])
                .unwrap();
        let [weights, biases] = [weights, biases].map(|of| of.map(|usage| vector(device, usage)));
        layer.set_parameter_tensors(weights, biases).expect("nobody compares them");
        layer
    };
    let good = [READABLE; 2];
    let cases =
        [([UNREADABLE; 2], good, ("weight", 0)), ([READABLE, UNREADABLE], good, ("weight", 1))];
    for (weights, biases, expected) in
        cases.into_iter().chain([(good, [READABLE, UNREADABLE], ("bias", 1))])
    {
        let first = process_groups(2, DEADLINE).remove(0);
        assert_eq!(refused(make(weights, biases).in_group(&first)), (expected.0, Some(expected.1)));
        // Alone, it may have them, and refuses to be read.
        let alone = make(weights, biases).in_group(&ProcessGroup::single()).unwrap();
        let x = [(); 2].map(|()| device.upload(&[2, 2], &[0.0f32, 1.0, 2.0, 3.0]).unwrap());
        block_on(alone.forward_train(&x)).expect("forward");
    }
}

#[test]
fn a_layer_that_was_refused_takes_no_place_in_the_group_which_goes_on() {
    let device = &virtual_gpus()[0];
    let means = on_threads(process_groups(2, DEADLINE), |group| {
        let make = |usage| {
            let mut layer =
                SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
            layer.set_parameter_tensors([vector(device, usage)], []).unwrap();
            layer.in_group(&group)
        };
        if group.rank() == 0 {
            assert_eq!(refused(make(UNREADABLE)), ("weight", None));
        }
        let mut layer = make(READABLE).expect("parameters that ranks compare");
        // Nor does it take them later, nor half of what it is given.
        assert_eq!(
            refused(layer.set_parameter_tensors([], [vector(device, UNREADABLE)])),
            ("bias", None)
        );
        let both =
            layer.set_parameter_tensors([vector(device, UNREADABLE)], [vector(device, READABLE)]);
        assert_eq!(refused(both), ("weight", None));
        let state = block_on(layer.state()).unwrap();
        assert_eq!((state.weight, state.bias), (Some(vec![2.0; 2]), Some(vec![0.0; 2])));
        let x = device.upload(&[1, 2], &[group.rank() as f32; 2]).unwrap();
        let local = block_on(layer.local_statistics(&x)).unwrap();
        block_on(layer.synchronize(local)).expect("both are there").channels()[0].mean
    });
    assert_eq!(means, [0.5, 0.5]);
}
