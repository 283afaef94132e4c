//! An optimizer's gradients in one buffer of the application, added to by submissions of this crate
//! and by the application's.

use pollster::block_on;
use syncbn::{Backward, BatchNorm, Device, Forward, Tensor, Workspace};
use wgpu::BufferUsages;

use super::common::*;
use super::layer::{Call, Layer, Place, assert_same, sums};
use super::problem::Problem;

const CHANNELS: usize = 5;
const DIMS: [usize; 3] = [3, CHANNELS, 7];
/// Bytes from one tensor to the next: more than any of them has, and a multiple of every device's
/// alignment.
const STRIDE: u64 = 512;
/// Fills what no tensor owns, so that writing too far shows.
const MARK: f32 = 12345.0;

/// A buffer of the application.
struct Page {
    device: Device,
    buffer: wgpu::Buffer,
}

impl Page {
    fn new(slots: u64) -> Self {
        let device = virtual_gpus()[0].clone();
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let size = slots * STRIDE;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let (gpu, queue) = device.wgpu().unwrap();
        let buffer = gpu.create_buffer(&descriptor);
        queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&vec![MARK; size as usize / 4]));
        Self { device, buffer }
    }

    /// A tensor at a slot, with these values.
    fn place(&self, slot: u64, dims: &[usize], values: &[f32]) -> Tensor {
        let mut tensor = self.device.wrap(self.buffer.clone(), slot * STRIDE, dims).unwrap();
        tensor.write(values).unwrap();
        tensor
    }

    /// Everything behind the values of each slot is still the mark.
    fn assert_marks(&self, lengths: &[usize], what: &str) {
        let words = self.buffer.size() as usize / 4;
        let all = block_on(self.device.wrap(self.buffer.clone(), 0, &[1, words]).unwrap().to_vec())
            .unwrap();
        for (slot, (slice, &length)) in all.chunks(STRIDE as usize / 4).zip(lengths).enumerate() {
            assert!(
                slice[length..].iter().all(|&value| value == MARK),
                "{what}: behind slot {slot}"
            );
        }
    }
}

#[test]
fn all_tensors_of_a_call_in_one_buffer_give_the_bits_of_separate_buffers() {
    for place in [Place::Synchronized(Kind::Gpu), Place::OnDevice] {
        let problem = Problem::random(&[&DIMS], 100);
        let mut layer = Layer::new(&problem, place);
        let before = [101, 102].map(|seed| Random::new(seed).values(CHANNELS));
        let expected = Call::new(&layer, &problem).gradients(&layer);
        let expected = [0, 1].map(|at| {
            let once = sums(std::slice::from_ref(&before[at]), &expected[at]);
            sums(&once, &expected[at])
        });

        let page = Page::new(6);
        let vector = |slot, values: &[f32]| page.place(slot, &[CHANNELS], values);
        let weight = vector(0, &problem.parameters.weight);
        let bias = vector(3, &problem.parameters.bias);
        match &mut layer {
            Layer::Synchronized(layer) => {
                layer.set_parameter_tensors(Some(weight), Some(bias)).unwrap()
            }
            Layer::OnDevice(norm) => norm.set_parameter_tensors(Some(weight), Some(bias)).unwrap(),
        }
        let x = page.place(5, &DIMS, &problem.batches[0].values);
        let g = page.place(1, &DIMS, &problem.grad_outputs[0].values);
        let mut dw = vector(4, &before[0]);
        let mut db = vector(2, &before[1]);
        let saved = layer.train(&x);
        for _ in 0..2 {
            let request = Backward::of(&x, &g).weight_gradient(&mut dw).bias_gradient(&mut db);
            layer.backward(&saved, request.accumulate());
        }
        let what = format!("{place:?}");
        assert_same(&what, &read(&[dw]), &expected[0]);
        assert_same(&what, &read(&[db]), &expected[1]);
        let values = DIMS.iter().product();
        page.assert_marks(&[CHANNELS, values, CHANNELS, CHANNELS, CHANNELS, values], &what);
    }
}

#[test]
fn several_calls_of_one_encoder_add_one_after_the_other() {
    let device = virtual_gpus()[0].clone();
    let (gpu, queue) = device.wgpu().unwrap();
    let problem = Problem::random(&[&DIMS, &[2, CHANNELS, 9]], 110);
    let layer = Layer::new(&problem, Place::OnDevice);
    let Layer::OnDevice(norm) = &layer else { panic!("another kind of layer") };
    let norm: &BatchNorm = norm;
    let calls = [111, 112, 113].map(|seed| {
        let next = Problem {
            parameters: problem.parameters.clone(),
            ..Problem::random(&[&DIMS, &[2, CHANNELS, 9]], seed)
        };
        Call::new(&layer, &next)
    });
    let before = [114, 115].map(|seed| {
        vec![Random::new(seed).values(CHANNELS), Random::new(seed + 10).values(CHANNELS)]
    });
    let mut expected = before.clone();
    for _ in 0..2 {
        for gradients in calls.each_ref().map(|call| call.gradients(&layer)) {
            expected = [sums(&expected[0], &gradients[0]), sums(&expected[1], &gradients[1])];
        }
    }
    let [mut dw, mut db] = before.each_ref().map(|values| layer.vectors(values));
    let mut workspace = Workspace::new(&device);
    // Two steps of an application: what the first has left in the workspace, the second uses again.
    for _ in 0..2 {
        let mut encoder = gpu.create_command_encoder(&Default::default());
        for Call { x, g, .. } in &calls {
            let forward =
                norm.forward_train(Forward::of(x).encode(&mut encoder, &mut workspace)).unwrap();
            let request =
                Backward::of(x, g).weight_gradient(&mut dw).bias_gradient(&mut db).accumulate();
            norm.backward(&forward.saved, request.encode(&mut encoder, &mut workspace)).unwrap();
        }
        queue.submit([encoder.finish()]);
    }
    assert_same("weight", &read(&dw), &expected[0]);
    assert_same("bias", &read(&db), &expected[1]);
}
