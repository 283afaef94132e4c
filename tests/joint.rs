//! Several layers in one exchange: the bits of each by itself, one message, and nothing changed when one is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::merging::merging_groups;
use common::tapped::Tapped;
use pollster::block_on;
use syncbn::{
    ArgumentError, Device, DeviceGroup, Epilogue, Error, ExchangeError, ForwardRequest, Inputs, LayerRequest,
    LocalGroup, ProcessGroup, SyncBatchNorm, SyncBatchNormConfig, Tensor,
};

use common::*;

/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);
/// Channels, and how each layer ends. One uses its running statistics and exchanges nothing.
const LAYERS: [(usize, Epilogue, Option<bool>); 4] = [
    (3, Epilogue::None, None),
    (70, Epilogue::AddRelu, None),
    (1, Epilogue::Relu, Some(false)),
    (2, Epilogue::LeakyRelu(0.1), None),
];

fn config((channels, epilogue, batch): (usize, Epilogue, Option<bool>)) -> SyncBatchNormConfig {
    let mut config = SyncBatchNormConfig::torch(channels).with_epilogue(epilogue).with_activation_mask(true);
    config.use_batch_statistics = batch;
    config
}

/// Layers with their inputs.
type Layers = Vec<(DeviceGroup, Vec<Tensor>)>;

/// The layers over some devices, with a batch per rank each; the second rank of the last layer is empty.
fn layers(devices: &[Device]) -> Layers {
    let mut random = Random(71);
    let layer = |(index, layer): (usize, (usize, Epilogue, Option<bool>))| {
        let group = DeviceGroup::new(config(layer), devices.to_vec()).unwrap();
        let samples = |rank: usize| if index == 3 && rank == 1 { 0 } else { 2 + rank + index };
        let batches: Vec<Batch> =
            (0..devices.len()).map(|rank| Batch::random(&[samples(rank), layer.0, 40 * 40], &mut random)).collect();
        let inputs = upload(&group, &batches);
        (group, inputs)
    };
    LAYERS.into_iter().enumerate().map(layer).collect()
}

fn inputs<'a>(group: &DeviceGroup, x: &'a [Tensor]) -> Inputs<'a> {
    // x is its own residual.
    if group.config().epilogue.adds_residual() { Inputs::with_residuals(x, x) } else { x.into() }
}

fn outputs(layers: &[(DeviceGroup, Vec<Tensor>)]) -> Vec<Vec<Tensor>> {
    let like = |tensor: &Tensor| tensor.device().zeros(tensor.dims()).unwrap();
    layers.iter().map(|(_, x)| x.iter().map(like).collect()).collect()
}

fn requests<'a>(
    layers: &'a mut [(DeviceGroup, Vec<Tensor>)],
    outputs: &'a mut [Vec<Tensor>],
) -> Vec<ForwardRequest<'a>> {
    let request = |((group, x), y): (&'a mut (DeviceGroup, Vec<Tensor>), &'a mut Vec<Tensor>)| {
        let inputs = inputs(group, x);
        ForwardRequest::new(group, inputs, y)
    };
    layers.iter_mut().zip(outputs).map(request).collect()
}

#[test]
fn layers_that_share_an_exchange_get_the_bits_of_each_by_itself() {
    let [a, b] = [&virtual_gpus()[0], &virtual_gpus()[1]];
    for devices in [vec![a.clone(), b.clone(), Device::host()], vec![a.clone(), a.clone()]] {
        let (mut joint, mut alone) = (layers(&devices), layers(&devices));
        let [mut y, mut z] = [outputs(&joint), outputs(&alone)];
        let results = block_on(DeviceGroup::forward_train_many(requests(&mut joint, &mut y))).unwrap();
        for (index, ((saved, report), (group, x))) in results.into_iter().zip(&mut alone).enumerate() {
            let x = inputs(group, x);
            let (expected, expected_report) = block_on(group.forward_train_into(x, &mut z[index])).unwrap();
            assert_eq!(bits(&read(&y[index])), bits(&read(&z[index])), "layer {index}");
            assert_eq!((&report.local, &report.global), (&expected_report.local, &expected_report.global));
            let (joint, x_of_joint) = &joint[index];
            assert_eq!(joint.running_stats(), group.running_stats(), "layer {index}");
            // What is saved serves backward.
            let of_joint = block_on(joint.backward(&saved, inputs(joint, x_of_joint), &y[index])).unwrap();
            let of_alone = block_on(group.backward(&expected, x, &z[index])).unwrap();
            assert_eq!(bits(&read(&of_joint.grad_inputs)), bits(&read(&of_alone.grad_inputs)), "layer {index}");
        }
    }
}

#[test]
fn no_request_is_no_work() {
    assert!(block_on(DeviceGroup::forward_train_many([])).unwrap().is_empty());
}

#[test]
fn a_refused_request_is_named_and_leaves_all_layers_as_they_were() {
    let devices = vec![virtual_gpus()[0].clone(), Device::host()];
    let refuse = |change: &dyn Fn(&mut Layers, &mut Vec<Vec<Tensor>>)| {
        let mut layers = layers(&devices);
        let mut y = outputs(&layers);
        change(&mut layers, &mut y);
        let error = block_on(DeviceGroup::forward_train_many(requests(&mut layers, &mut y))).unwrap_err();
        for (index, (group, _)) in layers.iter().enumerate() {
            assert_eq!(group.running_stats().unwrap().num_batches_tracked, 0, "layer {index}");
        }
        for values in y.iter().flat_map(|y| read(y)) {
            assert!(values.iter().all(|&value| value == 0.0), "an output was written");
        }
        let Error::Joint { index, source } = error else { panic!("{error}") };
        (index, *source)
    };
    let (index, error) = refuse(&|_, y| y[1][1] = Device::host().zeros(&[1, 70]).unwrap());
    assert!(matches!((index, &error), (1, Error::Argument(ArgumentError::Dims { rank: 1, .. }))), "{index}: {error}");

    let (index, error) = refuse(&|layers, _| {
        layers[3].0 = DeviceGroup::new(config(LAYERS[3]), vec![virtual_gpus()[1].clone(), Device::host()]).unwrap();
    });
    assert_eq!((index, error), (3, ArgumentError::NotTogether { reason: "it is on other devices" }.into()));

    // Wrapped twice, as the output of two layers.
    let (index, error) = refuse(&|layers, y| {
        let dims = layers[0].1[0].dims().to_vec();
        layers[3].0 = DeviceGroup::new(config(LAYERS[0]), devices.clone()).unwrap();
        let own = |device: &Device| device.zeros(&dims).unwrap();
        layers[3].1 = vec![own(&devices[0]), Device::host().zeros(layers[0].1[1].dims()).unwrap()];
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = 4 * dims.iter().product::<usize>() as u64;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let page = devices[0].wgpu().unwrap().0.create_buffer(&descriptor);
        y[0][0] = devices[0].wrap(page.clone(), 0, &dims).unwrap();
        y[3] = vec![devices[0].wrap(page, 0, &dims).unwrap(), Device::host().zeros(layers[0].1[1].dims()).unwrap()];
    });
    assert!(matches!((index, &error), (0, Error::Argument(ArgumentError::Overlap { .. }))), "{index}: {error}");

    // One value in the whole group, of a layer behind others that have enough.
    let (index, error) = refuse(&|layers, y| {
        let host = |dims: &[usize]| Device::host().zeros(dims).unwrap();
        layers[3].1 = vec![devices[0].zeros(&[1, 2]).unwrap(), host(&[0, 2])];
        y[3] = vec![devices[0].zeros(&[1, 2]).unwrap(), host(&[0, 2])];
    });
    assert!(matches!((index, &error), (3, Error::Batch(_))), "{index}: {error}");
}

/// Layers of a rank, their inputs and their outputs.
type OfRank = (Vec<SyncBatchNorm>, Vec<Tensor>, Vec<Tensor>);

/// Layers of a rank on the host, with an input each.
fn of_rank(group: &ProcessGroup, rank: usize) -> OfRank {
    let (host, mut random) = (Device::host(), Random(5 + rank as u64));
    let layers = [3, 1, 4].map(|channels| {
        let config = SyncBatchNormConfig::torch(channels);
        SyncBatchNorm::named(&format!("bn{channels}"), config, host.clone(), group).unwrap()
    });
    let x = [3, 1, 4].map(|channels| Batch::random(&[2 + rank, channels, 3], &mut random).upload(&host));
    let y = x.each_ref().map(|x| host.zeros(x.dims()).unwrap());
    (layers.into(), x.into(), y.into())
}

/// All layers of a rank, in the order of `order`.
fn joint((layers, x, y): &mut OfRank, order: &[usize]) -> Result<Vec<syncbn::stats::GlobalStats>, Error> {
    let mut requests: Vec<_> = layers.iter_mut().zip(x.iter()).zip(y).map(Some).collect();
    let requests = order.iter().map(|&index| {
        let ((layer, x), y) = requests[index].take().expect("each layer once");
        LayerRequest::new(layer, x, y)
    });
    let results = block_on(SyncBatchNorm::forward_train_many(requests))?;
    Ok(results.into_iter().map(|(_, report)| report.global).collect())
}

/// The ranks of a group whose messages are counted, over a transport that merges them on their way or not.
fn counted_groups(gathers: &Arc<AtomicUsize>, merges: bool) -> Vec<(usize, ProcessGroup)> {
    let counted = |inner| {
        let gathers = gathers.clone();
        let tap = move |message| {
            gathers.fetch_add(1, Ordering::Relaxed);
            message
        };
        ProcessGroup::new(Tapped::new(inner, tap).merging(merges)).with_deadline(LONG)
    };
    LocalGroup::ranks(3).into_iter().map(counted).enumerate().collect()
}

#[test]
fn processes_exchange_one_message_for_all_layers_and_get_the_bits_of_many() {
    let gathers = Arc::new(AtomicUsize::new(0));
    let [gathered, merged] = [false, true].map(|merges| {
        let together = on_threads(counted_groups(&gathers, merges), |(rank, group)| {
            let mut rank = of_rank(&group, rank);
            let globals = joint(&mut rank, &[0, 1, 2]).expect("a joint call");
            // And again, without the checksum of the state.
            joint(&mut rank, &[0, 1, 2]).expect("a joint call");
            let running: Vec<_> = rank.0.iter().map(|layer| layer.running_stats().cloned()).collect();
            (globals, running, bits(&read(&rank.2)))
        });
        assert_eq!(gathers.swap(0, Ordering::Relaxed), 3 * 2, "one message per rank and call");
        let apart = on_threads(counted_groups(&gathers, merges), |(rank, group)| {
            let (mut layers, x, mut y) = of_rank(&group, rank);
            let mut globals = Vec::new();
            for round in 0..2 {
                for ((layer, x), y) in layers.iter_mut().zip(&x).zip(&mut y) {
                    let report = block_on(layer.forward_train_into(x, y)).expect("a call").1;
                    globals.extend((round == 0).then_some(report.global));
                }
            }
            let running: Vec<_> = layers.iter().map(|layer| layer.running_stats().cloned()).collect();
            (globals, running, bits(&read(&y)))
        });
        assert_eq!(gathers.swap(0, Ordering::Relaxed), 3 * 2 * 3);
        assert_eq!(together, apart);
        together
    });
    assert_eq!(gathered, merged);
}

/// The errors of two ranks whose second does what `spoil` does, after a good joint call; the same whether messages merge on
/// their way.
fn errors(spoil: impl Fn(&mut OfRank) -> Result<(), Error> + Sync) -> Vec<Error> {
    let [gathered, merged] = [false, true].map(|merges| {
        let groups = if merges { merging_groups(2, LONG) } else { process_groups(2, LONG) };
        on_threads(groups.into_iter().enumerate().collect(), |(rank, group)| {
            let mut layers = of_rank(&group, rank);
            joint(&mut layers, &[0, 1, 2]).expect("a good call");
            let result = if rank == 1 { spoil(&mut layers) } else { joint(&mut layers, &[0, 1]).map(drop) };
            for layer in &layers.0 {
                assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 1);
            }
            result.expect_err("a call that fails")
        })
    });
    assert_eq!(gathered, merged);
    gathered
}

#[test]
fn ranks_with_other_requests_all_learn_of_it() {
    let mismatch = |error: &Error| match error {
        Error::Joint { index, source } => match &**source {
            Error::Exchange(ExchangeError::Mismatch { rank, what, .. }) => (Some(*index), *rank, *what),
            other => panic!("{other}"),
        },
        Error::Exchange(ExchangeError::Mismatch { rank, what, .. }) => (None, *rank, *what),
        other => panic!("{other}"),
    };
    for error in errors(|layers| joint(layers, &[1, 0]).map(drop)) {
        assert_eq!(mismatch(&error), (Some(0), 1, "layer"), "{error}");
    }
    for error in errors(|layers| joint(layers, &[0, 2]).map(drop)) {
        assert_eq!(mismatch(&error), (Some(1), 1, "layer"), "{error}");
    }
    let by_itself = |(layers, x, y): &mut OfRank| block_on(layers[0].forward_train_into(&x[0], &mut y[0])).map(drop);
    for error in errors(by_itself).into_iter().chain(errors(|layers| joint(layers, &[0, 1, 2]).map(drop))) {
        assert_eq!(mismatch(&error), (None, 1, "number of exchanges in a message"), "{error}");
    }
    for error in errors(|layers| joint(layers, &[2]).map(drop)) {
        assert_eq!(mismatch(&error), (None, 1, "layer"), "{error}");
    }
    // An output of the second layer that does not fit.
    let misfit = |layers: &mut OfRank| {
        layers.2[1] = Device::host().zeros(&[7]).unwrap();
        joint(layers, &[0, 1]).map(drop)
    };
    let [first, second] = &errors(misfit)[..] else { panic!("two ranks") };
    assert!(matches!(second, Error::Joint { index: 1, source } if matches!(**source, Error::Argument(_))), "{second}");
    assert!(matches!(first, Error::Exchange(ExchangeError::Aborted { rank: 1, .. })), "{first}");
}
