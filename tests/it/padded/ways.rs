//! Other ways to the same result: packed points, no padding, micro-batches, joint calls, several
//! callers, integer sums, one device that merges itself, in place, recorded.

use approx::{abs_diff_eq, assert_abs_diff_eq};
use pollster::block_on;
use syncbn::config::Activation;
use syncbn::stats::{Local, Moments};
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, SyncBatchNorm, Tensor, Workspace, joint,
};

use super::common::devices::Kind;
use super::common::epilogue::padded::{Padded, read_padded};
use super::common::*;

/// (N, C, T) of normal values with NaN where samples are padded.
fn padded(rank: &Padded, seed: u64) -> Batch {
    let mut random = Random::new(seed);
    let packed = Batch::new(&rank.packed_dims(), |_| (3.0 + random.normal()) as f32);
    rank.spread(&packed, syncbn::DType::F32)
}

fn ranks() -> [Padded; 2] {
    [Padded::new(&[3, 4, 20], &[20, 7, 0]), Padded::new(&[2, 4, 9], &[3, 9])]
}

/// Every bit of a training step with lengths.
fn step(layer: &SyncBatchNorm, ranks: &[Padded], x: &[Tensor], g: &[Tensor]) -> Vec<Vec<u32>> {
    let lists: Vec<Vec<u32>> = ranks.iter().map(|rank| rank.lengths.clone()).collect();
    let forward = block_on(layer.forward_train(Forward::of(x).lengths(&lists))).unwrap();
    let backward = block_on(layer.backward(&forward.saved, Backward::of(x, g))).unwrap();
    let lists = [Some(forward.output), Some(backward.input), backward.weight, backward.bias];
    lists.into_iter().flatten().flat_map(|tensors| bits(&read(&tensors))).collect()
}

fn tensors(devices: &[Device], ranks: &[Padded], seed: u64) -> Vec<Tensor> {
    let each = devices.iter().zip(ranks).zip(seed..);
    each.map(|((device, rank), seed)| padded(rank, seed).upload(device)).collect()
}

#[test]
fn packed_points_have_the_statistics_of_the_padded_batch() {
    let ranks = ranks();
    for kind in Kind::tested() {
        let devices = kind.devices(2);
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(4), devices.clone()).unwrap();
        let x = tensors(&devices, &ranks, 1);
        let lists: Vec<Vec<u32>> = ranks.iter().map(|rank| rank.lengths.clone()).collect();
        let of_padded = block_on(layer.forward_train(Forward::of(&x).lengths(&lists))).unwrap();
        // (M, C): the points that count, one after the other.
        let packed: Vec<Tensor> = devices
            .iter()
            .zip(&ranks)
            .zip(1..)
            .map(|((device, rank), seed)| {
                let values = rank.spread_back(&padded(rank, seed).values);
                let points = rank.packed_dims()[2];
                let of_point = |i: usize| values[i % 4 * points + i / 4];
                let values: Vec<f32> = (0..4 * points).map(of_point).collect();
                device.upload(&[points, 4], &values).unwrap()
            })
            .collect();
        let of_points = block_on(layer.forward_train(&packed)).unwrap();
        let [a, b] = [&of_padded, &of_points].map(|of| of.saved.statistics().unwrap());
        assert_eq!((a.count(), b.count()), (39, 39));
        for (a, b) in a.channels().iter().zip(b.channels()) {
            assert!(
                abs_diff_eq!(a.mean, b.mean, epsilon = 1e-6)
                    && abs_diff_eq!(a.m2, b.m2, epsilon = 1e-5 * b.m2),
                "{kind:?}"
            );
        }
    }
}

/// The border is within a quad of positions.
#[test]
fn a_value_at_the_border_that_is_not_finite_reaches_its_channel_and_no_other() {
    const POSITIONS: usize = 12;
    const LENGTH: usize = 7;
    let finite: Vec<f32> = (0..2 * POSITIONS).map(|index| (index % 5) as f32).collect();
    let with = |at: usize, value: f32| {
        let mut values = finite.clone();
        values[at] = value;
        values
    };
    let is_nan = |values: &[f32], channel: usize| {
        values[channel * POSITIONS..][..LENGTH].iter().map(|value| value.is_nan()).collect()
    };
    let [all, none]: [Vec<bool>; 2] = [vec![true; LENGTH], vec![false; LENGTH]];
    for kind in Kind::tested() {
        let device = &kind.devices(1)[0];
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), vec![device.clone()]).unwrap();
        let upload = |values: &[f32]| [device.upload(&[1, 2, POSITIONS], values).unwrap()];
        let lengths = [vec![LENGTH as u32]];
        for (place, poison) in (4..LENGTH).zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let x = upload(&with(POSITIONS + place, poison));
            let forward = Forward::of(&x).lengths(&lengths);
            let y = &read(&block_on(layer.forward_train(forward)).unwrap().output)[0];
            let found: [Vec<bool>; 2] = [is_nan(y, 0), is_nan(y, 1)];
            assert_eq!(found, [none.clone(), all.clone()], "{kind:?}, x at {place}");

            let [x, g] = [upload(&finite), upload(&with(place, poison))];
            let forward = Forward::of(&x).lengths(&lengths);
            let saved = block_on(layer.forward_train(forward)).unwrap().saved;
            let backward = block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap();
            let dx = &read(&backward.input)[0];
            let found: [Vec<bool>; 2] = [is_nan(dx, 0), is_nan(dx, 1)];
            assert_eq!(found, [all.clone(), none.clone()], "{kind:?}, g at {place}");
        }
    }
}

#[test]
fn lengths_of_all_positions_give_the_bits_of_no_lengths() {
    for kind in Kind::tested() {
        let devices = kind.devices(2);
        let full = [Padded::new(&[3, 4, 20], &[20; 3]), Padded::new(&[2, 4, 9], &[9; 2])];
        let x = tensors(&devices, &full, 3);
        let g = tensors(&devices, &full, 5);
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(4), devices).unwrap();
        let with = step(&layer, &full, &x, &g);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
        assert_eq!(with[..2], bits(&read(&forward.output)), "{kind:?}");
        assert_eq!(with[2..4], bits(&read(&backward.input)), "{kind:?}");
    }
}

#[test]
fn micro_batches_joint_calls_and_callers_of_their_own_give_the_bits_of_one_call() {
    let ranks = ranks();
    let activations = [Activation::None, Activation::Gelu, Activation::Silu];
    let cases = Kind::tested().flat_map(|kind| activations.map(|of| (kind, of)));
    for (kind, activation) in cases {
        let devices = kind.devices(2);
        let x = tensors(&devices, &ranks, 7);
        let g = tensors(&devices, &ranks, 9);
        let config = BatchNormConfig::torch(4).with_activation(activation);
        let new =
            |devices: &[Device]| SyncBatchNorm::new(config.clone(), devices.to_vec()).unwrap();
        let layer = new(&devices);
        let expected = step(&layer, &ranks, &x, &g);
        let lists: Vec<Vec<u32>> = ranks.iter().map(|rank| rank.lengths.clone()).collect();
        // Step by step.
        let local = block_on(layer.local_statistics(Forward::of(&x).lengths(&lists))).unwrap();
        let counts = |rank: usize| local.ranks()[rank][0].count;
        assert_eq!((counts(0), counts(1)), (27, 12));
        let global = block_on(layer.synchronize(local)).unwrap();
        let normalized =
            block_on(layer.normalize(Forward::of(&x).lengths(&lists), &global)).unwrap();
        assert_eq!(expected[..2], bits(&read(&normalized.output)), "{kind:?}");
        let backward = || Backward::of(&x, &g);
        let sums = Backward::of(&x, &g).weight_gradient(None::<&mut Tensor>);
        let sums = block_on(layer.local_gradient_sums(&normalized.saved, sums)).unwrap();
        let sums = block_on(layer.synchronize(sums)).unwrap();
        let gradients =
            block_on(layer.input_gradients(&normalized.saved, backward(), &sums)).unwrap();
        assert_eq!(expected[2..4], bits(&read(&gradients.input)), "{kind:?}");
        // Jointly with a layer that is not padded.
        let first = new(&devices);
        let second = new(&devices);
        let clean: Vec<Tensor> = devices
            .iter()
            .zip(&ranks)
            .map(|(device, rank)| Batch::new(&rank.dims, |i| (i % 7) as f32).upload(device))
            .collect();
        let calls = [(&first, Forward::of(&clean)), (&second, Forward::of(&x).lengths(&lists))];
        let done = block_on(joint::forward_train(calls)).unwrap();
        assert_eq!(expected[..2], bits(&read(&done[1].output)), "{kind:?}");
        // Each rank by a caller of its own.
        let groups = process_groups(2, std::time::Duration::from_secs(60));
        let callers: Vec<_> = groups.into_iter().zip(0..).collect();
        let found = on_threads(callers, |(group, rank): (_, usize)| {
            let layer = new(&devices[rank..=rank]).in_group(&group).unwrap();
            step(&layer, &ranks[rank..=rank], &x[rank..=rank], &g[rank..=rank])
        });
        for (rank, found) in found.iter().enumerate() {
            let of_rank = [0, 2].map(|kind| expected[kind + rank].clone());
            assert_eq!(found[..2], of_rank, "{kind:?}");
        }
    }
}

#[test]
fn micro_batches_merge_to_the_statistics_of_the_whole_batch() {
    for kind in Kind::tested() {
        let devices = kind.devices(1);
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(4), devices.clone()).unwrap();
        let whole = Padded::new(&[3, 4, 20], &[20, 7, 0]);
        let x = padded(&whole, 11);
        let local = |batch: &Batch, lengths: &[u32]| {
            let x = batch.upload(&devices[0]);
            block_on(layer.local_statistics(Forward::of(&x).lengths(lengths))).unwrap()
        };
        let sample = |n: usize| Batch::new(&[1, 4, 20], |i| x.values[n * 80 + i]);
        let mut merged = Local::empty(4);
        for (n, &length) in whole.lengths.iter().enumerate() {
            merged.merge(&local(&sample(n), &[length])).unwrap();
        }
        let whole = local(&x, &whole.lengths);
        for (a, b) in merged.ranks()[0].iter().zip(&whole.ranks()[0]) {
            assert_eq!((a.count, b.count), (27, 27));
            assert_abs_diff_eq!(a.mean, b.mean, epsilon = 1e-6);
            assert_abs_diff_eq!(a.m2, b.m2, epsilon = 1e-5 * b.m2);
        }
    }
}

#[test]
fn sums_of_integers_have_the_bits_of_what_counts_whatever_the_split_and_the_device() {
    let [host, gpu] =
        [Device::host(), virtual_gpus()[0].clone()].map(|device| whole_and_split(&device));
    assert_eq!(host, gpu);
}

/// Statistics of all and the gradient of the weight of samples on a device; the split is checked.
fn whole_and_split(device: &Device) -> (Vec<Moments>, Vec<f32>) {
    let config = BatchNormConfig::torch(4).with_reproducible(true);
    let [a, _] = ranks();
    let x = padded(&a, 13);
    let g = padded(&a, 17);
    // The samples of a rank on one rank, or each on one of its own; more padding changes nothing.
    let one = SyncBatchNorm::new(config.clone(), [device.clone()]).unwrap();
    let lists = [a.lengths.clone()];
    let x_one = [x.upload(device)];
    let g_one = [g.upload(device)];
    let of_one = block_on(one.forward_train(Forward::of(&x_one).lengths(&lists))).unwrap();
    let back_one = block_on(one.backward(&of_one.saved, Backward::of(&x_one, &g_one))).unwrap();
    let each = SyncBatchNorm::new(config, vec![device.clone(); 3]).unwrap();
    let split = |batch: &Batch| -> Vec<Tensor> {
        let sample = |n: usize| {
            let longer = Batch::new(&[1, 4, 25], |i| match i % 25 {
                position @ 0..20 => batch.values[n * 80 + i / 25 * 20 + position],
                _ => f32::NAN,
            });
            longer.upload(device)
        };
        (0..3).map(sample).collect()
    };
    let x_each = split(&x);
    let g_each = split(&g);
    let lists: Vec<Vec<u32>> = a.lengths.iter().map(|&length| vec![length]).collect();
    let of_each = block_on(each.forward_train(Forward::of(&x_each).lengths(&lists))).unwrap();
    let back_each =
        block_on(each.backward(&of_each.saved, Backward::of(&x_each, &g_each))).unwrap();
    assert_eq!(
        of_one.saved.statistics().unwrap().channels(),
        of_each.saved.statistics().unwrap().channels()
    );
    assert_eq!(one.running_stats(), each.running_stats());
    let whole = [(&of_one.output[0], &of_each.output), (&back_one.input[0], &back_each.input)];
    for (whole, parts) in whole {
        let whole = read_padded(whole, &a);
        let longer = Padded::new(&[1, 4, 25], &[0]);
        for (n, part) in parts.iter().enumerate() {
            let part = read_padded(part, &longer);
            for i in 0..80 {
                let bits = part[i / 20 * 25 + i % 20].to_bits();
                assert_eq!(whole[n * 80 + i].to_bits(), bits, "sample {n}, {i}");
            }
        }
    }
    let weight = block_on(back_one.weight.unwrap()[0].to_vec()).unwrap();
    (of_one.saved.statistics().unwrap().channels().to_vec(), weight)
}

#[test]
fn one_device_that_merges_itself_gives_the_same_submitted_recorded_and_in_place() {
    let ranks = ranks();
    let device = virtual_gpus()[0].clone();
    let devices = [device.clone(), device.clone()];
    let x = tensors(&devices, &ranks, 19);
    let g = tensors(&devices, &ranks, 23);
    let lists: Vec<Vec<u32>> = ranks.iter().map(|rank| rank.lengths.clone()).collect();
    let layer = BatchNorm::new(BatchNormConfig::torch(4), &device).unwrap();
    let forward = layer.forward_train(Forward::of(&x).lengths(&lists)).unwrap();
    let backward = layer.backward(&forward.saved, Backward::of(&x, &g)).unwrap();
    let y = read(&forward.output);
    let dx = read(&backward.input);
    for (rank, values) in ranks.iter().zip(y.iter().chain(&dx).collect::<Vec<_>>()) {
        rank.gather(values).unwrap();
    }
    // As a layer that merges on the host.
    let host = SyncBatchNorm::new(BatchNormConfig::torch(4), devices.clone()).unwrap();
    let expected = step(&host, &ranks, &x, &g);
    for (found, expected) in y.iter().chain(&dx).zip(&expected) {
        let expected: Vec<f32> = expected.iter().map(|&bits| f32::from_bits(bits)).collect();
        assert_abs_diff_eq!(found[..], expected[..], epsilon = 1e-5);
    }
    // Recorded: two passes with other lengths in one encoder do not disturb each other.
    let (wgpu_device, queue) = device.wgpu().unwrap();
    let mut workspace = Workspace::new(&device);
    let mut encoder = wgpu_device.create_command_encoder(&Default::default());
    let recorded = BatchNorm::new(BatchNormConfig::torch(4), &device).unwrap();
    let request = Forward::of(&x).lengths(&lists).encode(&mut encoder, &mut workspace);
    let of_recorded = recorded.forward_train(request).unwrap();
    let others = [vec![1, 0, 0], vec![0, 4]];
    let request = Forward::of(&x).lengths(&others).encode(&mut encoder, &mut workspace);
    let of_others = recorded.forward_train(request.untracked()).unwrap();
    let request = Backward::of(&x, &g).encode(&mut encoder, &mut workspace);
    let back = recorded.backward(&of_recorded.saved, request).unwrap();
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&read(&of_recorded.output)), bits(&y));
    assert_eq!(bits(&read(&back.input)), bits(&dx));
    let alone = layer.forward_train(Forward::of(&x).lengths(&others).untracked()).unwrap();
    assert_eq!(bits(&read(&of_others.output)), bits(&read(&alone.output)));
    // In place.
    let mut x_and_y = tensors(&devices, &ranks, 19);
    recorded.forward_train(Forward::in_place(&mut x_and_y).lengths(&lists).untracked()).unwrap();
    assert_eq!(bits(&read(&x_and_y)), bits(&y));
    let mut gradients = tensors(&devices, &ranks, 23);
    recorded.backward(&of_recorded.saved, Backward::in_place(&x, &mut gradients)).unwrap();
    assert_eq!(bits(&read(&gradients)), bits(&dx));
}

#[test]
fn one_device_that_merges_itself_skips_a_batch_of_which_nothing_counts() {
    let ranks = ranks();
    let device = virtual_gpus()[0].clone();
    let devices = [device.clone(), device.clone()];
    // Padding is NaN, and so is nearly all of these.
    let x = tensors(&devices, &ranks, 31);
    let g = tensors(&devices, &ranks, 37);
    let layer = BatchNorm::new(BatchNormConfig::torch(4), &device).unwrap();
    let before = block_on(layer.running_stats()).unwrap();
    let nothing = [vec![0; 3], vec![0; 2]];
    let forward = layer.forward_train(Forward::of(&x).lengths(&nothing)).unwrap();
    let backward = layer.backward(&forward.saved, Backward::of(&x, &g)).unwrap();
    let parameters = [&backward.weight.unwrap(), &backward.bias.unwrap()];
    for tensors in [&forward.output, &backward.input].into_iter().chain(parameters) {
        assert!(read(tensors).concat().iter().all(|value| value.to_bits() == 0));
    }
    assert_eq!(block_on(layer.running_stats()).unwrap(), before);
    let evaluated = layer.forward_eval(Forward::of(&x).lengths(&nothing)).unwrap();
    assert!(read(&evaluated.output).concat().iter().all(|value| value.to_bits() == 0));
}

#[test]
fn thousands_of_short_samples_take_several_dispatches() {
    let mut random = Random::new(29);
    for dims in [[9001, 4, 6], [9001, 3, 5], [4100, 2, 8]] {
        let rank = Padded::random(&dims, &mut random);
        let packed = Batch::new(&rank.packed_dims(), |_| (3.0 + random.normal()) as f32);
        let host = Device::host();
        let mut results = Vec::new();
        for device in [host, virtual_gpus()[0].clone()] {
            let ranks = [rank.clone()];
            for dtype in [syncbn::DType::F32, syncbn::DType::F16] {
                let x = [storage::upload_as(
                    &device,
                    &rank.spread(&packed, dtype),
                    dtype,
                    syncbn::Layout::ChannelsFirst,
                )];
                let layer = SyncBatchNorm::new(BatchNormConfig::torch(dims[1]), [device.clone()]);
                let layer = layer.unwrap();
                let lists = [rank.lengths.clone()];
                let done = block_on(layer.forward_train(Forward::of(&x).lengths(&lists))).unwrap();
                let backward =
                    block_on(layer.backward(&done.saved, Backward::of(&x, &done.output))).unwrap();
                let y = ranks[0].gather(&read_padded(&done.output[0], &rank)).unwrap();
                ranks[0].gather(&read_padded(&backward.input[0], &rank)).unwrap();
                let sums = read(&backward.weight.unwrap());
                results.push((dtype, y, sums));
            }
        }
        for (a, b) in [(0, 2), (1, 3)] {
            let (dtype, y, sums) = &results[a];
            let (_, other_y, other_sums) = &results[b];
            let is_close = |a: &[f32], b: &[f32], allowed: f32| {
                a.iter()
                    .zip(b)
                    .all(|(a, b)| abs_diff_eq!(a, b, epsilon = allowed * (1.0 + b.abs())))
            };
            assert!(is_close(y, other_y, 2e-3), "{dims:?} {dtype:?}");
            assert!(is_close(&sums[0], &other_sums[0], 1e-2), "{dims:?} {dtype:?}");
        }
    }
}
