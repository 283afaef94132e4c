//! Tensors of 400 MiB and of the largest buffer that the software driver gives, 2 GiB − 1, through
//! all passes and both layouts, where one binding spans 128 MiB.
//!
//! x and g are functions of the index, so that sums are taken in f64 while they are made and any
//! value of a result can be checked by itself. Results are read in samples, at both ends of every
//! binding's worth of bytes and at random places.

mod problem;

use crate::common;

use approx::abs_diff_eq;
use common::*;
use pollster::block_on;
use problem::Problem;
use syncbn::{Backward, BatchNormConfig, Device, Forward, Layout, SyncBatchNorm, Tensor};

impl Problem {
    fn run(&self, device: &Device) {
        let bytes = 4 * self.elements() as u64;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let [x, y] = [(); 2].map(|()| device.wgpu().unwrap().0.create_buffer(&descriptor));
        let tensor = |buffer: &wgpu::Buffer| {
            device.wrap(buffer.clone(), 0, &self.dims).unwrap().with_layout(self.layout)
        };
        let started = std::time::Instant::now();
        let passed = |what: &str| println!("{:>5.1} s: {what}", started.elapsed().as_secs_f64());
        let count = (self.elements() / self.channels) as f64;

        // About 0, no value is far from its mean: the plain sums of f64 lose nothing that matters.
        let sums = self.fill(device, &x, |index, c| {
            let stored = self.x(index, c);
            let x = f64::from(stored);
            (stored, [x, x * x])
        });
        let mean: Vec<f64> = sums.iter().map(|[sum, _]| sum / count).collect();
        let var: Vec<f64> = sums
            .iter()
            .zip(&mean)
            .map(|([_, squares], mean)| squares / count - mean * mean)
            .collect();
        passed("x is there");

        let mut layer =
            SyncBatchNorm::new(BatchNormConfig::torch(self.channels), [device.clone()]).unwrap();
        let parameters = Parameters::random(self.channels, &mut Random::new(5));
        parameters.set(&mut layer);
        let weight = widened(&parameters.weight);
        let bias = widened(&parameters.bias);
        let inputs = tensor(&x);
        let saved = block_on(layer.forward_train(Forward::of(&inputs).write_to(&mut tensor(&y))))
            .unwrap()
            .saved;
        block_on(device.wait()).unwrap();
        passed("forward");
        for (channel, found) in saved.statistics().unwrap().channels().iter().enumerate() {
            let deviation = var[channel].sqrt();
            let what = format!(
                "channel {channel}: {found:?}, expected {}, {}",
                mean[channel], var[channel]
            );
            assert_eq!(found.count as usize, self.elements() / self.channels, "{what}");
            assert!(
                abs_diff_eq!(found.mean, mean[channel], epsilon = STATISTICS_TOLERANCE * deviation),
                "{what}"
            );
            assert!(
                abs_diff_eq!(
                    found.var_biased(),
                    var[channel],
                    epsilon = STATISTICS_TOLERANCE * var[channel]
                ),
                "{what}"
            );
        }
        let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + 1e-5).sqrt()).collect();
        let from_mean = |index: usize, c: usize| f64::from(self.x(index, c)) - mean[c];
        self.check(device, &y, "y", |index| {
            let c = self.channel(index);
            // No |x − mean| exceeds 1.1; the channel's largest |y| is near this.
            let largest = 1.1 * weight[c].abs() * inv_std[c] + bias[c].abs();
            (weight[c] * inv_std[c] * from_mean(index, c) + bias[c], TOLERANCE_ULP * ulp(largest))
        });
        passed("y is right");

        let sums = self.fill(device, &y, |index, c| {
            let stored = self.g(index);
            let g = f64::from(stored);
            (stored, [g, g * from_mean(index, c)])
        });
        let [mut grad_weight, mut grad_bias] =
            [(); 2].map(|()| device.zeros(&[self.channels]).unwrap());
        let mut gradients = tensor(&y);
        let request = Backward::in_place(&inputs, &mut gradients);
        let request = request.weight_gradient(&mut grad_weight).bias_gradient(&mut grad_bias);
        block_on(layer.backward(&saved, request)).unwrap();
        block_on(device.wait()).unwrap();
        passed("backward in place of g");
        let read = |vector: &Tensor| block_on(vector.to_vec()).unwrap();
        let found = read(&grad_weight).into_iter().zip(read(&grad_bias)).enumerate();
        for (c, (grad_weight, grad_bias)) in found {
            // Sums of positive mean: relative to the sums of absolute values, |g| < 1.75 and
            // |x − mean| < 1.1.
            let [sum_dy, sum_dy_xmu] = sums[c];
            let scale = STATISTICS_TOLERANCE * 1.75 * count;
            assert!(
                abs_diff_eq!(f64::from(grad_bias), sum_dy, epsilon = scale),
                "grad_bias[{c}]: {grad_bias}, {sum_dy}"
            );
            let expected = inv_std[c] * sum_dy_xmu;
            let allowed = 1.1 * inv_std[c] * scale;
            assert!(
                abs_diff_eq!(f64::from(grad_weight), expected, epsilon = allowed),
                "grad_weight[{c}]: {grad_weight}, {expected}"
            );
        }
        self.check(device, &y, "grad_input", |index| {
            let c = self.channel(index);
            let scale = weight[c] * inv_std[c];
            let projection = inv_std[c] * inv_std[c] * sums[c][1] / count;
            let mean_dy = sums[c][0] / count;
            let expected =
                scale * (f64::from(self.g(index)) - mean_dy - from_mean(index, c) * projection);
            // Each term is rounded a few times; together they are at most this large.
            let largest = scale.abs() * (1.75 + mean_dy.abs() + 1.1 * projection.abs());
            (expected, TOLERANCE_ULP * ulp(largest))
        });
        passed("grad_input is right");

        let running = layer.running_stats().unwrap();
        block_on(layer.forward_eval(Forward::in_place(&mut tensor(&x)))).unwrap();
        block_on(device.wait()).unwrap();
        self.check(device, &x, "y in evaluation", |index| {
            let c = self.channel(index);
            let scale = weight[c] / (f64::from(running.var[c]) + 1e-5).sqrt();
            let from_running = f64::from(self.x(index, c)) - f64::from(running.mean[c]);
            let largest = scale.abs() * (9.0 + f64::from(running.mean[c]).abs()) + bias[c].abs();
            (scale * from_running + bias[c], TOLERANCE_ULP * ulp(largest))
        });
        passed("evaluation in place of x is right");
    }
}

fn device() -> Device {
    let device = block_on(Device::from_adapter(&adapter())).unwrap();
    device.with_deadline(std::time::Duration::from_secs(600))
}

#[test]
fn tensors_of_400_mib_pass_in_both_layouts() {
    let device = device();
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        let problem = Problem::new([25, 64, 256 * 256], layout);
        assert_eq!(4 * problem.elements(), 400 << 20);
        problem.run(&device);
    }
}

#[test]
fn the_largest_buffer_passes_in_both_layouts() {
    let device = device();
    let largest = device.wgpu().unwrap().0.limits().max_buffer_size;
    assert!(largest >= (1 << 31) - 1, "a buffer of {largest} bytes");
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        // 2 GiB − 1 in whole words: three primes.
        let problem = Problem::new([233, 1103, 2089], layout);
        assert_eq!(4 * problem.elements() as u64, (1 << 31) - 4);
        problem.run(&device);
    }
}

#[test]
fn one_channel_and_one_sample_may_be_larger_than_a_binding() {
    Problem::new([1, 1, 60_000_001], Layout::ChannelsFirst).run(&device());
    Problem::new([1, 3, 20_000_003], Layout::ChannelsFirst).run(&device());
}

#[test]
fn seventy_thousand_channels_pass_in_both_layouts() {
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        Problem::new([9, 70_000, 17], layout).run(&device());
        Problem::new([300, 70_000, 1], layout).run(&device());
    }
}
