//! Passes that the golden cases do not have: one GPU, encoders, joint calls, groups.

use half::{bf16, f16};
use syncbn::collective::LocalGroup;
use syncbn::config::Activation;
use syncbn::low_level::Epilogue;
use syncbn::tensor::Element;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, Layout, ProcessGroup, SyncBatchNorm,
    Tensor, Workspace, joint,
};
use wasm_bindgen_test::wasm_bindgen_test;

use super::gpu;

/// Values of a tensor: of mean 3 and no symmetry.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| 3.0 + ((i * 7919) % 101) as f32 * 0.04 - 2.0).collect()
}

/// How far two results of one batch may be from each other: 16 ulp each of the largest, as of
/// `BatchNorm`.
fn assert_near(found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    approx::assert_abs_diff_eq!(found, expected, epsilon = 32.0 * f32::EPSILON * largest);
}

/// y and dx of a batch by the layer on the host.
async fn on_the_host(config: BatchNormConfig, dims: &[usize], layout: Layout) -> [Vec<f32>; 2] {
    let host = Device::host();
    let bn = SyncBatchNorm::new(config, [host.clone()]).unwrap();
    let [x, dy] = inputs(&host, dims, layout);
    let forward = bn.forward_train(&x).await.unwrap();
    let backward = bn.backward(&forward.saved, Backward::of(&x, &dy)).await.unwrap();
    [forward.output.to_vec().await.unwrap(), backward.input.to_vec().await.unwrap()]
}

fn inputs(device: &Device, dims: &[usize], layout: Layout) -> [Tensor; 2] {
    let count = dims.iter().product();
    let x = device.upload(dims, &values(count)).unwrap().with_layout(layout);
    let mut upstream = values(count);
    upstream.reverse();
    [x, device.upload(dims, &upstream).unwrap().with_layout(layout)]
}

#[wasm_bindgen_test]
async fn batch_norm_computes_what_the_host_computes_and_records_into_an_encoder() {
    let device = gpu().await;
    for (dims, layout) in
        [([6, 4, 5, 4], Layout::ChannelsFirst), ([6, 5, 4, 4], Layout::ChannelsLast)]
    {
        for epilogue in [Epilogue::NONE, Epilogue::RELU, Epilogue::leaky_relu(0.1)] {
            let config = || {
                BatchNormConfig::torch(4)
                    .with_residual(epilogue.residual)
                    .with_activation(epilogue.activation)
            };
            let [y, dx] = on_the_host(config(), &dims, layout).await;
            let bn = BatchNorm::new(config(), &device).unwrap();
            let [x, dy] = inputs(&device, &dims, layout);
            let forward = bn.forward_train(&x).unwrap();
            assert_near(&forward.output.to_vec().await.unwrap(), &y);
            let backward = bn.backward(&forward.saved, Backward::of(&x, &dy)).unwrap();
            assert_near(&backward.input.to_vec().await.unwrap(), &dx);

            let (wgpu, queue) = device.wgpu().unwrap();
            let mut workspace = Workspace::new(&device);
            let mut out = device.zeros(&dims).unwrap().with_layout(layout);
            let mut encoder = wgpu.create_command_encoder(&Default::default());
            let request = Forward::of(&x).write_to(&mut out).untracked();
            bn.forward_train(request.encode(&mut encoder, &mut workspace)).unwrap();
            queue.submit([encoder.finish()]);
            assert_near(&out.to_vec().await.unwrap(), &y);
        }
    }
}

/// The largest difference of y and of dx between a WebGPU device and the host, as a share of the
/// largest value, in tensors of `T`.
async fn far_from_the_host<T: Element>(layout: Layout, round: fn(f32) -> T) -> [f32; 2] {
    let dims = match layout {
        Layout::ChannelsFirst => [6, 4, 5, 3],
        Layout::ChannelsLast => [6, 5, 3, 4],
    };
    let x: Vec<T> = values(360).into_iter().map(round).collect();
    let dy: Vec<T> = values(360).into_iter().rev().map(round).collect();
    let mut found = Vec::new();
    for device in [Device::host(), gpu().await] {
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(4), [device.clone()]).unwrap();
        let [x, dy] =
            [&x, &dy].map(|values| device.upload(&dims, values).unwrap().with_layout(layout));
        let forward = bn.forward_train(&x).await.unwrap();
        let backward = bn.backward(&forward.saved, Backward::of(&x, &dy)).await.unwrap();
        assert_eq!(forward.output.dtype(), x.dtype());
        let [y, dx] = [&forward.output, &backward.input];
        found.push([y.to_vec().await.unwrap(), dx.to_vec().await.unwrap()]);
    }
    [0, 1].map(|i| {
        let host = &found[0][i];
        let gpu = &found[1][i];
        let largest = host.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let far = host.iter().zip(gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 0.1, "all is zero");
        far / largest
    })
}

#[wasm_bindgen_test]
async fn storage_types_in_both_layouts_hold_what_the_host_stores() {
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        // A value on the border of two neighbours may be rounded to either: they are 2^-10 of the
        // value apart at most in f16, 2^-7 in bf16.
        let far = far_from_the_host(layout, f16::from_f32).await;
        assert!(far.iter().all(|&far| far <= 1.0 / 1024.0), "f16, {layout:?}: {far:?}");
        let far = far_from_the_host(layout, bf16::from_f32).await;
        assert!(far.iter().all(|&far| far <= 1.0 / 128.0), "bf16, {layout:?}: {far:?}");
    }
}

#[wasm_bindgen_test]
async fn masks_are_kept_and_used() {
    let device = gpu().await;
    let config = || BatchNormConfig::torch(3).with_residual(true).with_activation(Activation::Relu);
    let dims = [5, 3, 7];
    let mut gradients = Vec::new();
    for mask in [false, true] {
        let config = config().with_activation_mask(mask);
        let bn = SyncBatchNorm::new(config, [device.clone()]).unwrap();
        let [x, dy] = inputs(&device, &dims, Layout::ChannelsFirst);
        let residual = device.upload(&dims, &vec![-0.25; 105]).unwrap();
        let forward = bn.forward_train(Forward::of(&x).residual(&residual)).await.unwrap();
        let mut request = Backward::of(&x, &dy);
        if forward.saved.needs_residual() {
            request = request.residual(&residual);
        }
        assert_eq!(forward.saved.needs_residual(), !mask);
        let backward = bn.backward(&forward.saved, request).await.unwrap();
        gradients.push(backward.input.to_vec().await.unwrap());
    }
    assert_eq!(gradients[0], gradients[1]);
}

#[wasm_bindgen_test]
async fn callers_of_a_process_group_meet_on_one_thread() {
    let mut layers = Vec::new();
    for (rank, local) in LocalGroup::ranks(2).into_iter().enumerate() {
        let device = if rank == 0 { gpu().await } else { Device::host() };
        let group = ProcessGroup::new(local);
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [device.clone()]).unwrap();
        let bn = bn.named("bn").in_group(&group).unwrap();
        let x = device.upload(&[2, 1], &[4.0 * rank as f32, 4.0 * rank as f32 + 2.0]).unwrap();
        layers.push((bn, x));
    }
    let [(a, x), (b, z)] = &layers[..] else { unreachable!("two ranks") };
    let (y, w) = futures::future::join(a.forward_train(x), b.forward_train(z)).await;
    // Of the batch 0, 2, 4, 6: mean 3, variance 5.
    assert_near(&y.unwrap().output.to_vec().await.unwrap(), &[-1.341_638_1, -0.447_212_7]);
    assert_near(&w.unwrap().output.to_vec().await.unwrap(), &[0.447_212_7, 1.341_638_1]);
}

#[wasm_bindgen_test]
async fn joint_calls_give_each_layer_its_own_bits() {
    let device = gpu().await;
    let layer = |c| SyncBatchNorm::new(BatchNormConfig::torch(c), [device.clone()]).unwrap();
    let a = layer(1);
    let b = layer(2);
    let x = device.upload(&[3, 1], &values(3)).unwrap();
    let z = device.upload(&[3, 2], &values(6)).unwrap();
    let alone =
        [a.forward_train(&x).await.unwrap().output, b.forward_train(&z).await.unwrap().output];
    let both = joint::forward_train([(&a, &x), (&b, &z)]).await.unwrap();
    for (alone, joint) in alone.iter().zip(&both) {
        assert_eq!(alone.to_vec().await.unwrap(), joint.output.to_vec().await.unwrap());
    }
}
