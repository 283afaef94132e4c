//! The host by itself: tensors large enough for several threads and for non-temporal stores, in
//! both layouts and all storage types, and the same bits however the work is shared out.

use crate::common;
use std::sync::Arc;

use common::*;
use half::{bf16, f16};
use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, Device, Forward, Layout, SyncBatchNorm, Tensor, config::Activation,
    low_level::Epilogue, tensor::Element,
};

/// A host with so many threads of its own.
fn host(threads: usize) -> Device {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    Device::host_with_pool(Arc::new(pool))
}

/// Shapes of every order of memory: runs longer and shorter than a tile, of odd length, few columns
/// and many; the first three of more than 4 MB as f32, and all but the last large enough for
/// several threads.
const SHAPES: [&[usize]; 7] = [
    &[3, 5, 70_001],
    &[7, 16, 9973],
    &[1201, 1001],
    &[31, 130, 49],
    &[2000, 70, 1],
    &[3001, 3, 17],
    &[8, 16, 8, 8],
];

fn transposed<T: Copy>(dims: &[usize], values: &[T]) -> Vec<T> {
    let channels = dims[1];
    let inner = dims[2..].iter().product::<usize>();
    let at = |i: usize| {
        (i / (channels * inner) * channels + i % channels) * inner + i / channels % inner
    };
    (0..values.len()).map(|i| values[at(i)]).collect()
}

/// A tensor of these values, which are given channels first.
fn tensor<T: Element>(device: &Device, dims: &[usize], values: &[T], layout: Layout) -> Tensor {
    if layout == Layout::ChannelsFirst {
        return device.upload(dims, values).unwrap();
    }
    let last = [&dims[..1], &dims[2..], &dims[1..2]].concat();
    device.upload(&last, &transposed(dims, values)).unwrap().with_layout(layout)
}

/// Every bit of a training step: outputs, statistics, and gradients of inputs, residuals and
/// parameters.
fn step<T: Element>(
    devices: &[Device],
    dims: &[usize],
    layouts: [Layout; 2],
    epilogue: Epilogue,
) -> Vec<Vec<u32>> {
    let mut random = Random::new(7);
    let count: usize = dims.iter().product();
    let mut draw = |scale: f32| {
        (0..count).map(|_| T::from_f32(random.next() as f32 * scale + 0.3)).collect::<Vec<T>>()
    };
    let config = BatchNormConfig::torch(dims[1])
        .with_residual(epilogue.residual)
        .with_activation(epilogue.activation);
    let mut layer = SyncBatchNorm::new(config, devices.to_vec()).unwrap();
    Parameters::random(dims[1], &mut Random::new(8)).set(&mut layer);
    let mut tensors = |scale: f32, layout| -> Vec<Tensor> {
        devices.iter().map(|device| tensor(device, dims, &draw(scale), layout)).collect()
    };
    let x = tensors(2.0, layouts[0]);
    let residuals = tensors(1.0, layouts[0]);
    let g = tensors(1.0, layouts[1]);
    let mut forward = Forward::of(&x);
    let mut backward = Backward::of(&x, &g);
    if epilogue.adds_residual() {
        (forward, backward) = (forward.residual(&residuals), backward.residual(&residuals));
    }
    let forward = block_on(layer.forward_train(forward)).unwrap();
    let backward = block_on(layer.backward(&forward.saved, backward)).unwrap();
    let lists = [
        Some(forward.output),
        Some(backward.input),
        backward.residual,
        backward.weight,
        backward.bias,
    ];
    lists.into_iter().flatten().flat_map(|tensors| bits(&read(&tensors))).collect()
}

const FIRST: Layout = Layout::ChannelsFirst;
const LAST: Layout = Layout::ChannelsLast;

#[test]
fn one_thread_and_many_give_the_same_bits_in_every_layout_and_storage_type() {
    for dims in SHAPES {
        for (layouts, epilogue) in [
            ([FIRST, FIRST], Epilogue::NONE),
            ([LAST, LAST], Epilogue::ADD_RELU),
            ([FIRST, LAST], Epilogue::leaky_relu(0.1)),
            ([LAST, FIRST], Epilogue::ADD),
        ] {
            let case = format!("{dims:?}, {layouts:?}, {epilogue:?}");
            let one = step::<f32>(&[host(1)], dims, layouts, epilogue);
            assert!(
                one == step::<f32>(&[host(2)], dims, layouts, epilogue),
                "f32, 2 threads, {case}"
            );
            assert!(
                one == step::<f32>(&[host(5)], dims, layouts, epilogue),
                "f32, 5 threads, {case}"
            );
            assert!(
                one == step::<f32>(&[Device::host()], dims, layouts, epilogue),
                "f32, global pool, {case}"
            );
        }
        let one = step::<f16>(&[host(1)], dims, [FIRST, FIRST], Epilogue::RELU);
        assert!(
            one == step::<f16>(&[host(3)], dims, [FIRST, FIRST], Epilogue::RELU),
            "f16, {dims:?}"
        );
        let one = step::<bf16>(&[host(1)], dims, [LAST, LAST], Epilogue::RELU);
        assert!(
            one == step::<bf16>(&[host(3)], dims, [LAST, LAST], Epilogue::RELU),
            "bf16, {dims:?}"
        );
    }
}

#[test]
fn large_tensors_are_as_exact_as_small_ones() {
    for dims in SHAPES {
        let mut random = Random::new(9);
        let batch = Batch::new(dims, |_| (1e3 + random.normal()) as f32);
        let parameters = Parameters::random(dims[1], &mut random);
        let expected = definition(std::slice::from_ref(&batch), Some(&parameters), 1e-5);
        for layout in [FIRST, LAST] {
            let mut layer = SyncBatchNorm::new(BatchNormConfig::torch(dims[1]), [host(2)]).unwrap();
            parameters.set(&mut layer);
            let x = [tensor(&layer.devices()[0], dims, &batch.values, layout)];
            let forward = block_on(layer.forward_train(&x)).unwrap();
            compare_statistics(forward.saved.statistics().unwrap(), &expected.statistics).unwrap();
            let expected: Vec<Vec<f64>> = match layout {
                FIRST => expected.outputs.clone(),
                LAST => expected.outputs.iter().map(|y| transposed(dims, y)).collect(),
            };
            // Channels last, a channel is found by its dimensions as a matrix of rows and channels.
            let count: usize = dims.iter().product();
            let rows = Batch { dims: vec![count / dims[1], dims[1]], values: Vec::new() };
            let like = if layout == FIRST { &batch } else { &rows };
            match compare(
                std::slice::from_ref(like),
                &read(&forward.output),
                &expected,
                TOLERANCE_ULP,
            ) {
                Ok(worst) => println!("{dims:?}, {layout:?}: {worst:.2} ulp"),
                Err(error) => panic!("{dims:?}, {layout:?}: {error}"),
            }
        }
    }
}

#[test]
fn ranks_of_one_caller_and_ranks_in_threads_of_their_own_have_the_same_bits() {
    // One caller takes both halves of a pass channel by channel; separate callers exchange their
    // statistics in between.
    for dims in SHAPES {
        let mut random = Random::new(10);
        let batches: Vec<Batch> = (0..3).map(|_| Batch::random(dims, &mut random)).collect();
        let grads: Vec<Batch> = (0..3).map(|_| Batch::random(dims, &mut random)).collect();
        let config = BatchNormConfig::torch(dims[1]).with_activation(Activation::Relu);
        let layer = SyncBatchNorm::new(config.clone(), vec![Device::host(); 3]).unwrap();
        let x = upload(&layer, &batches);
        let g = upload(&layer, &grads);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
        let fused = [read(&forward.output), read(&backward.input)].map(|values| bits(&values));

        let ranks = process_groups(3, std::time::Duration::from_secs(60))
            .into_iter()
            .zip(batches.iter().zip(&grads));
        let per_rank = on_threads(ranks.collect(), |(process_group, (batch, grad))| {
            let layer = SyncBatchNorm::new(config.clone(), [Device::host()])
                .unwrap()
                .in_group(&process_group)
                .unwrap();
            let x = batch.upload(&layer.devices()[0]);
            let g = grad.upload(&layer.devices()[0]);
            let forward = block_on(layer.forward_train(&x)).unwrap();
            let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
            [read(&[forward.output]), read(&[backward.input])].map(|values| bits(&values).remove(0))
        });
        for (rank, per_rank) in per_rank.into_iter().enumerate() {
            assert!(per_rank[0] == fused[0][rank], "y, rank {rank}, {dims:?}");
            assert!(per_rank[1] == fused[1][rank], "grad_input, rank {rank}, {dims:?}");
        }
    }
}

#[test]
fn a_mask_that_is_filled_channel_by_channel_says_what_the_residual_says() {
    // Whole words of a mask hold 8 channels, 4, 1 or half of one; in the last shape samples begin
    // within a word.
    for dims in
        [[64, 64, 14, 14], [4, 64, 60, 50], [8, 64, 32, 32], [4, 32, 8, 256], [31, 130, 7, 7]]
    {
        let mut random = Random::new(13);
        let mut draw = || (0..2).map(|_| Batch::random(&dims, &mut random)).collect::<Vec<_>>();
        let batches = draw();
        let residuals = draw();
        let grads = draw();
        let step = |mask: bool| {
            let config = BatchNormConfig::torch(dims[1])
                .with_residual(true)
                .with_activation(Activation::Relu)
                .with_activation_mask(mask);
            let layer = SyncBatchNorm::new(config, vec![host(2); 2]).unwrap();
            let [x, residuals, g] =
                [&batches, &residuals, &grads].map(|batches| upload(&layer, batches));
            let forward =
                block_on(layer.forward_train(Forward::of(&x).residual(&residuals))).unwrap();
            assert_eq!(forward.saved.needs_residual(), !mask);
            let backward =
                block_on(layer.backward(&forward.saved, Backward::of(&x, &g).residual(&residuals)))
                    .unwrap();
            let lists = [forward.output, backward.input, backward.residual.unwrap()];
            lists.map(|tensors| bits(&read(&tensors)))
        };
        assert!(step(true) == step(false), "{dims:?}");
    }
}

#[test]
fn a_rank_may_be_empty_while_others_are_large() {
    let dims = [4, 64, 3000];
    let mut random = Random::new(11);
    let whole = Batch::random(&dims, &mut random);
    let empty = Batch::new(&[0, 64, 3000], |_| 0.0);
    let expected = definition(std::slice::from_ref(&whole), None, 1e-5);
    let config = BatchNormConfig::torch(64).with_affine(false);
    let batches = [empty.clone(), whole, empty];
    let layer = SyncBatchNorm::new(config, vec![Device::host(); 3]).unwrap();
    let x = upload(&layer, &batches);
    let forward = block_on(layer.forward_train(&x)).unwrap();
    let expected = [Vec::new(), expected.outputs[0].clone(), Vec::new()];
    compare(&batches, &read(&forward.output), &expected, TOLERANCE_ULP).unwrap();
    let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &x))).unwrap();
    assert_eq!(
        backward.input.iter().map(Tensor::element_count).collect::<Vec<_>>(),
        [0, 4 * 64 * 3000, 0]
    );
}

#[test]
fn a_value_that_is_not_finite_spoils_its_channel_and_no_other_in_large_tensors() {
    for (dims, layout) in [([4, 64, 6000], FIRST), ([4, 64, 6000], LAST)] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut batch = Batch::random(&dims, &mut Random::new(12));
            batch.values[(2 * 64 + 7) * 6000 + 4321] = bad;
            let layer = SyncBatchNorm::new(BatchNormConfig::torch(64), [host(2)]).unwrap();
            let x = [tensor(&layer.devices()[0], &dims, &batch.values, layout)];
            let forward = block_on(layer.forward_train(&x)).unwrap();
            for (channel, stats) in
                forward.saved.statistics().unwrap().channels().iter().enumerate()
            {
                assert_eq!(
                    stats.mean.is_nan(),
                    channel == 7,
                    "{bad} in {layout:?}, channel {channel}: {stats:?}"
                );
            }
            let y = &read(&forward.output)[0];
            let channel = |i: usize| if layout == FIRST { i / 6000 % 64 } else { i % 64 };
            assert!(
                y.iter().enumerate().all(|(i, y)| y.is_nan() == (channel(i) == 7)),
                "{bad} in {layout:?}"
            );
        }
    }
}
