//! Requests that are refused: named by their number, and all layers as they were.

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::stats::{LocalStatistics, Moments};
use syncbn::{Backward, Device, Error, Saved, SyncBatchNorm, Tensor, joint};

use super::common::*;
use super::{LAYERS, LONG, Layers, config, gradients_of, layers, outputs, request, requests};

/// The request that an error is of, and what is wrong with it.
fn of_request(error: Error) -> (usize, Error) {
    let Error::Joint { index, error: source } = error else { panic!("{error}") };
    (index, *source)
}

fn devices() -> Vec<Device> {
    vec![virtual_gpus()[0].clone(), Device::host()]
}

/// A buffer of a GPU as two tensors of these dimensions.
fn twice(device: &Device, dims: &[usize]) -> [Tensor; 2] {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = 4 * dims.iter().product::<usize>() as u64;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let page = device.wgpu().unwrap().0.create_buffer(&descriptor);
    [0, 0].map(|offset| device.wrap(page.clone(), offset, dims).unwrap())
}

/// What a forward call says of requests that were changed, whichever it is, after which nothing
/// else is.
fn refuse(change: &dyn Fn(&mut Layers, &mut Vec<Vec<Tensor>>)) -> (usize, Error) {
    let call = |trains: bool| {
        let mut layers = layers(&devices());
        let mut y = outputs(&layers);
        change(&mut layers, &mut y);
        let requests = requests(&layers, &mut y);
        let result = if trains {
            block_on(joint::forward_train(requests))
        } else {
            block_on(joint::forward_eval(requests))
        };
        let error = result.unwrap_err();
        for (index, (bn, _)) in layers.iter().enumerate() {
            assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0, "layer {index}");
        }
        for values in y.iter().flat_map(|y| read(y)) {
            assert!(values.iter().all(|&value| value == 0.0), "an output was written");
        }
        of_request(error)
    };
    let [trained, evaluated] = [true, false].map(call);
    assert_eq!(trained, evaluated);
    trained
}

#[test]
fn a_refused_request_is_named_and_leaves_all_layers_as_they_were() {
    let (index, error) = refuse(&|_, y| y[1][1] = Device::host().zeros(&[1, 70]).unwrap());
    assert!(
        matches!((index, &error), (1, Error::Argument(ArgumentError::Dims { rank: Some(1), .. }))),
        "{index}: {error}"
    );

    let (index, error) = refuse(&|layers, _| {
        let devices = vec![virtual_gpus()[1].clone(), Device::host()];
        layers[3].0 = SyncBatchNorm::new(config(LAYERS[3]), devices).unwrap();
    });
    assert_eq!(
        (index, error),
        (3, ArgumentError::NotJoint { reason: "it is on other devices" }.into())
    );

    // Wrapped twice, as the output of two layers.
    let like_first = |layers: &mut Layers| {
        layers[3].0 = SyncBatchNorm::new(config(LAYERS[0]), devices()).unwrap();
        layers[3].1 = layers[0].1.iter().map(|x| x.device().zeros(x.dims()).unwrap()).collect();
    };
    let (index, error) = refuse(&|layers, y| {
        like_first(layers);
        let [a, b] = twice(&devices()[0], layers[0].1[0].dims());
        (y[0][0], y[3]) = (a, vec![b, Device::host().zeros(layers[0].1[1].dims()).unwrap()]);
    });
    let overlap = ArgumentError::Overlap {
        argument: "output",
        rank: Some(0),
        other: "output",
        other_rank: Some(0),
    };
    assert_eq!((index, error), (0, overlap.into()));

    // As the output of one layer and the input of another.
    let (index, error) = refuse(&|layers, y| {
        like_first(layers);
        y[3] = layers[0].1.iter().map(|x| x.device().zeros(x.dims()).unwrap()).collect();
        let [a, b] = twice(&devices()[0], layers[0].1[0].dims());
        (layers[0].1[0], y[3][0]) = (a, b);
    });
    let overlap = ArgumentError::Overlap {
        argument: "output",
        rank: Some(0),
        other: "x",
        other_rank: Some(0),
    };
    assert_eq!((index, error), (3, overlap.into()));
}

#[test]
fn one_value_in_the_whole_group_is_found_of_a_layer_behind_others_that_have_enough() {
    let mut layers = layers(&devices());
    layers[3].1 =
        vec![devices()[0].zeros(&[1, 2]).unwrap(), Device::host().zeros(&[0, 2]).unwrap()];
    let mut y = outputs(&layers);
    let (index, error) =
        of_request(block_on(joint::forward_train(requests(&layers, &mut y))).unwrap_err());
    assert!(matches!((index, &error), (3, Error::Batch(_))), "{index}: {error}");
    for (index, (bn, _)) in layers.iter().enumerate() {
        assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0, "layer {index}");
    }
    assert!(
        y.iter().flat_map(|y| read(y)).flatten().all(|value| value == 0.0),
        "an output was written"
    );
}

/// What a joint backward call is given, by layer.
struct Given<'a> {
    saved: Vec<&'a Saved>,
    dy: Vec<Vec<Tensor>>,
    dx: Vec<Vec<Tensor>>,
}

#[test]
fn a_refused_gradient_is_named_and_nothing_is_written() {
    let layers = layers(&devices());
    let mut y = outputs(&layers);
    let forward = block_on(joint::forward_train(requests(&layers, &mut y))).unwrap();
    let saved: Vec<&Saved> = forward.iter().map(|forward| &forward.saved).collect();
    let refuse = |change: &dyn Fn(&mut Given<'_>)| {
        let mut given = Given { saved: saved.clone(), dy: outputs(&layers), dx: outputs(&layers) };
        change(&mut given);
        let Given { saved, dy, mut dx } = given;
        let calls = layers.iter().zip(saved).zip(dy.iter().zip(&mut dx));
        let calls = calls.map(|(((bn, x), saved), (dy, dx))| {
            (bn, saved, gradients_of(bn, x, dy).input_gradient(dx))
        });
        let error = block_on(joint::backward(calls)).unwrap_err();
        assert!(
            dx.iter().flat_map(|dx| read(dx)).flatten().all(|value| value == 0.0),
            "a gradient was written"
        );
        of_request(error)
    };
    let (index, error) = refuse(&|given| given.dy[2].truncate(1));
    assert_eq!(
        (index, error),
        (2, ArgumentError::RankCount { argument: "grad_output", found: 1, expected: 2 }.into())
    );
    let (index, error) = refuse(&|given| given.saved.swap(1, 3));
    let reason = "it is of another layer; give what a forward call of this layer returned";
    assert_eq!(
        (index, error),
        (1, ArgumentError::NotSaved { argument: "saved".to_owned(), reason }.into())
    );
    let (index, error) = refuse(&|given| given.dx[3].truncate(1));
    assert_eq!(
        (index, error),
        (3, ArgumentError::RankCount { argument: "input_gradient", found: 1, expected: 2 }.into())
    );
    let [first, second] = [0, 1].map(|rank| layers[0].1[rank].dims());
    // What the first layer writes, the second reads: its gradient of y in another shape.
    let count = |dims: &[usize]| dims.iter().product::<usize>();
    let device = &devices()[0];
    let [page, _] = twice(device, &[count(first).max(count(layers[1].1[0].dims()))]);
    let (index, error) = refuse(&|given| {
        let binding = page.binding().unwrap();
        given.dy[1][0] = device.wrap(binding.buffer.clone(), 0, layers[1].1[0].dims()).unwrap();
        given.dx[0] = vec![
            device.wrap(binding.buffer.clone(), 0, first).unwrap(),
            Device::host().zeros(second).unwrap(),
        ];
    });
    let overlap = ArgumentError::Overlap {
        argument: "input_gradient",
        rank: Some(0),
        other: "grad_output",
        other_rank: Some(0),
    };
    assert_eq!((index, error), (0, overlap.into()));
    // Nothing was changed: the same call, as it should be.
    let calls = layers.iter().zip(&saved).zip(&y);
    let calls = calls.map(|(((bn, x), saved), y)| (bn, *saved, gradients_of(bn, x, y)));
    assert_eq!(block_on(joint::backward(calls)).unwrap().len(), 4);
}

#[test]
fn statistics_that_do_not_fit_are_named_and_move_nothing() {
    let layers = layers(&devices());
    let local =
        |index: usize| block_on(layers[index].0.local_statistics(&layers[index].1)).unwrap();
    let refuse = |wrong: LocalStatistics| {
        let calls = [(&layers[0].0, local(0)), (&layers[1].0, wrong)];
        let error = block_on(joint::synchronize(calls)).unwrap_err();
        assert!(layers.iter().all(|(bn, _)| bn.running_stats().unwrap().num_batches_tracked == 0));
        of_request(error)
    };
    let length = ArgumentError::Length { argument: "local", found: 3, expected: 70 };
    assert_eq!(refuse(local(0)), (1, length.into()));
    let one_rank = LocalStatistics::of_rank(vec![Moments::EMPTY; 70]);
    let count = ArgumentError::RankCount { argument: "local", found: 1, expected: 2 };
    assert_eq!(refuse(one_rank), (1, count.into()));
    // One value per channel of the second.
    let mut value = LocalStatistics::of_rank(vec![Moments::from_sums(1, 0.5, 0.0, 0.0); 70]);
    value.append(LocalStatistics::of_rank(vec![Moments::EMPTY; 70])).unwrap();
    let (index, error) = refuse(value);
    assert!(matches!((index, &error), (1, Error::Batch(_))), "{index}: {error}");
}

/// Layers on the host, each of a process group of its own with a peer that never comes, and what
/// each has saved before.
fn of_two_groups(x: &Tensor) -> [(SyncBatchNorm, Saved); 2] {
    [0, 1].map(|_| {
        let bn = SyncBatchNorm::new(config(LAYERS[0]), [Device::host()]).unwrap();
        let alone = block_on(bn.forward_train(x)).unwrap().saved;
        let bn = bn.in_group(&process_groups(2, LONG)[0]).unwrap();
        let saved = block_on(bn.normalize(x, alone.statistics().unwrap())).unwrap().saved;
        (bn, saved)
    })
}

#[test]
fn layers_of_two_process_groups_share_no_exchange() {
    let x = &Batch::random(&[4, 3], &mut Random::new(9)).upload(&Device::host());
    let expected: (usize, Error) =
        (1, ArgumentError::NotJoint { reason: "it is of another process group" }.into());
    let layers = of_two_groups(x);
    let calls = layers.iter().map(|(bn, _)| (bn, x));
    assert_eq!(of_request(block_on(joint::forward_train(calls)).unwrap_err()), expected);
    let layers = of_two_groups(x);
    let calls = layers.iter().map(|(bn, _)| (bn, x));
    assert_eq!(of_request(block_on(joint::forward_eval(calls)).unwrap_err()), expected);
    let layers = of_two_groups(x);
    let local = layers.iter().map(|(bn, _)| (bn, block_on(bn.local_statistics(x)).unwrap()));
    assert_eq!(of_request(block_on(joint::synchronize(local)).unwrap_err()), expected);
    let layers = of_two_groups(x);
    let calls = layers.iter().map(|(bn, saved)| (bn, saved, Backward::of(x, x)));
    assert_eq!(of_request(block_on(joint::backward(calls)).unwrap_err()), expected);
    assert!(layers.iter().all(|(bn, _)| bn.running_stats().unwrap().num_batches_tracked == 1));
}

#[test]
fn the_error_of_a_call_of_one_layer_is_none_of_a_joint_call() {
    let layers = layers(&devices());
    let (bn, x) = &layers[1];
    let plain = block_on(bn.forward_train(&x[..1])).unwrap_err();
    assert!(matches!(plain, Error::Argument(ArgumentError::RankCount { .. })), "{plain}");
    let joined = of_request(block_on(joint::forward_train([(bn, &x[..1])])).unwrap_err());
    assert_eq!(joined, (0, plain));
    assert!(block_on(joint::forward_train([(bn, request(bn, x))])).is_ok());
}
