//! Slices of the application's buffers: gradients in one page, and refused overlaps.
//!
//! `parameters` has weight and bias that an optimizer writes.

mod parameters;

use pollster::block_on;
use syncbn::{Backward, Device, Error, SyncBatchNorm, Tensor, error::ArgumentError};
use wgpu::BufferUsages;

use super::common::*;
use super::problem::{Found, Problem};

const CHANNELS: usize = 3;

/// A device of the test's own, and what it needs to allocate on it.
struct Application {
    device: wgpu::Device,
    queue: wgpu::Queue,
    handle: Device,
}

impl Application {
    fn new() -> Self {
        let (device, queue) = own_device(&adapter(), |_| {});
        let handle = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
        Self { device, queue, handle }
    }

    fn alignment(&self) -> u64 {
        self.device.limits().min_storage_buffer_offset_alignment.into()
    }

    fn page(&self, slots: u64, slot_bytes: u64) -> Page<'_> {
        let stride = slot_bytes.next_multiple_of(self.alignment()) + self.alignment();
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: slots * stride,
            usage,
            mapped_at_creation: false,
        };
        let buffer = self.device.create_buffer(&descriptor);
        self.queue.write_buffer(
            &buffer,
            0,
            &MARK.to_le_bytes().repeat((slots * stride) as usize / 4),
        );
        Page { app: self, buffer, stride }
    }
}

/// Fills what no tensor owns, so that writing too far shows.
const MARK: f32 = 12345.0;

/// One buffer cut into slots with a gap behind each.
struct Page<'a> {
    app: &'a Application,
    buffer: wgpu::Buffer,
    stride: u64,
}

impl Page<'_> {
    fn slice(&self, slot: u64, dims: &[usize]) -> Tensor {
        self.app.handle.wrap(self.buffer.clone(), slot * self.stride, dims).unwrap()
    }

    fn write(&self, slot: u64, values: &[f32]) {
        self.app.queue.write_buffer(&self.buffer, slot * self.stride, bytemuck::cast_slice(values));
    }

    fn values(&self) -> Vec<f32> {
        let words = self.buffer.size() as usize / 4;
        block_on(self.app.handle.wrap(self.buffer.clone(), 0, &[1, words]).unwrap().to_vec())
            .unwrap()
    }
}

fn trained(problem: &Problem, device: &Device) -> SyncBatchNorm {
    let devices = vec![device.clone(); problem.batches.len()];
    let mut layer = SyncBatchNorm::new(problem.config.clone(), devices).unwrap();
    problem.parameters.set(&mut layer);
    layer
}

#[test]
fn all_tensors_of_a_call_in_one_buffer_give_the_bits_of_separate_buffers() {
    let app = Application::new();
    // One tile, many tiles, tiles of few lanes.
    for dims in [vec![2, CHANNELS, 5], vec![3, CHANNELS, 4099], vec![701, CHANNELS]] {
        let problem = Problem::random(&[&dims, &dims], 600);
        let separate = {
            let layer = trained(&problem, &app.handle);
            let x = problem.inputs(&layer);
            let g = problem.upstream(&layer);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            Found::read(&block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap())
        };

        let values = problem.batches[0].values.len();
        let page = app.page(14, 4 * values as u64);
        // x, g, dx, dw, db, weight, bias of both ranks, mixed up.
        let [x, g, dx, dw, db, w, b] = [[0, 13], [4, 1], [2, 3], [5, 9], [8, 6], [7, 10], [12, 11]];
        for rank in 0..2 {
            page.write(x[rank], &problem.batches[rank].values);
            page.write(g[rank], &problem.grad_outputs[rank].values);
            page.write(w[rank], &problem.parameters.weight);
            page.write(b[rank], &problem.parameters.bias);
        }
        let activations = |slots: [u64; 2]| slots.map(|slot| page.slice(slot, &dims));
        let vectors = |slots: [u64; 2]| slots.map(|slot| page.slice(slot, &[CHANNELS]));
        let mut layer =
            SyncBatchNorm::new(problem.config.clone(), vec![app.handle.clone(); 2]).unwrap();
        layer.set_parameter_tensors(vectors(w), vectors(b)).unwrap();
        let inputs = activations(x);
        let grad_outputs = activations(g);
        let mut grad_inputs = activations(dx);
        let mut grad_weights = vectors(dw);
        let mut grad_biases = vectors(db);
        let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
        // A framework wraps the same slices anew for every call.
        drop(inputs);
        let inputs = activations(x);
        let request = Backward::of(&inputs, &grad_outputs)
            .input_gradient(&mut grad_inputs)
            .weight_gradient(&mut grad_weights)
            .bias_gradient(&mut grad_biases);
        block_on(layer.backward(&saved, request)).unwrap();
        let found = Found {
            grad_inputs: read(&grad_inputs),
            grad_weights: Some(read(&grad_weights)),
            grad_biases: Some(read(&grad_biases)),
        };
        assert_eq!(found.bits(), separate.bits(), "{dims:?}");
        assert_eq!(
            read(&activations(x)),
            [&problem.batches[0].values[..], &problem.batches[1].values[..]]
        );
        assert_eq!(
            read(&grad_outputs),
            [&problem.grad_outputs[0].values[..], &problem.grad_outputs[1].values[..]]
        );

        for (word, value) in page.values().into_iter().enumerate() {
            let slot = 4 * word as u64 / page.stride;
            let used = if [x, g, dx].concat().contains(&slot) { values } else { CHANNELS };
            let inside = (4 * word as u64 % page.stride) < 4 * used as u64;
            assert!(
                inside || value == MARK,
                "{dims:?}: word {word} of slot {slot}, outside every slice, is {value}"
            );
        }
    }
}

#[test]
fn a_slice_of_other_dims_or_at_another_place_is_not_the_saved_input() {
    let app = Application::new();
    let problem = Problem::random(&[&[4, CHANNELS, 5]], 601);
    let page = app.page(2, 240);
    for slot in 0..2 {
        page.write(slot, &problem.batches[0].values);
    }
    let layer = trained(&problem, &app.handle);
    let saved = block_on(layer.forward_train(&page.slice(0, &[4, CHANNELS, 5]))).unwrap().saved;
    let backward = |input: Tensor| {
        let upstream = app.handle.upload(input.dims(), &problem.grad_outputs[0].values).unwrap();
        block_on(layer.backward(&saved, Backward::of(&input, &upstream))).map(drop)
    };
    for input in [
        page.slice(1, &[4, CHANNELS, 5]),
        page.slice(0, &[2, CHANNELS, 10]),
        page.slice(0, &[20, CHANNELS]),
    ] {
        let error = backward(input).unwrap_err();
        assert!(matches!(error, Error::Argument(ArgumentError::NotSaved { .. })), "{error:?}");
    }
    backward(page.slice(0, &[4, CHANNELS, 5])).unwrap();
}

#[test]
fn targets_that_share_bytes_with_anything_are_refused() {
    let app = Application::new();
    let dims = [2, CHANNELS, 4];
    let page = app.page(16, 96);
    let at = |slot: u64| page.slice(slot, &dims);
    let vector = |slot: u64| page.slice(slot, &[CHANNELS]);
    let problem = Problem::random(&[&dims, &dims], 602);
    let layer = trained(&problem, &app.handle);
    let inputs = [at(0), at(1)];
    let grad_outputs = [at(2), at(3)];
    let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
    // Slots of the gradients of x, weight and bias, and what is refused for whom.
    type Slots = [u64; 2];
    let fine: [Slots; 3] = [[4, 5], [6, 7], [8, 9]];
    let cases: [([Slots; 3], &'static str, usize, &'static str, usize); 10] = [
        ([[0, 5], fine[1], fine[2]], "input_gradient", 0, "x", 0),
        ([[4, 0], fine[1], fine[2]], "input_gradient", 1, "x", 0),
        ([[3, 5], fine[1], fine[2]], "input_gradient", 0, "grad_output", 1),
        ([[4, 4], fine[1], fine[2]], "input_gradient", 1, "input_gradient", 0),
        ([fine[0], [1, 7], fine[2]], "weight_gradient", 0, "x", 1),
        ([fine[0], [6, 2], fine[2]], "weight_gradient", 1, "grad_output", 0),
        ([fine[0], [5, 7], fine[2]], "weight_gradient", 0, "input_gradient", 1),
        ([fine[0], [6, 6], fine[2]], "weight_gradient", 1, "weight_gradient", 0),
        ([fine[0], fine[1], [7, 9]], "bias_gradient", 0, "weight_gradient", 1),
        ([fine[0], fine[1], [8, 4]], "bias_gradient", 1, "input_gradient", 0),
    ];
    let run = |[dx, dw, db]: [Slots; 3]| {
        let mut dx = dx.map(at);
        let mut dw = dw.map(vector);
        let mut db = db.map(vector);
        let request = Backward::of(&inputs, &grad_outputs).input_gradient(&mut dx);
        block_on(layer.backward(&saved, request.weight_gradient(&mut dw).bias_gradient(&mut db)))
    };
    for (slots, argument, rank, other, other_rank) in cases {
        let error = run(slots).unwrap_err();
        assert_eq!(
            error,
            Error::Argument(ArgumentError::Overlap {
                argument,
                rank: Some(rank),
                other,
                other_rank: Some(other_rank)
            })
        );
    }
    run(fine).unwrap();
}
