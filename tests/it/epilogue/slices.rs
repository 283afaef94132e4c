//! Slices of the application's buffers: every tensor of a call in one buffer, and outputs that
//! overlap a residual.

use pollster::block_on;
use syncbn::{
    Backward, DType, Device, Error, Forward, Layout, SyncBatchNorm, Tensor, error::ArgumentError,
    low_level::Epilogue,
};
use wgpu::BufferUsages;

use super::common::*;
use super::problem::{Problem, Tensors};
use super::stored::{Layouts, Types, bytes_of, dims_in, upload_as, zeros_as};

/// A buffer of the test's own device, cut into slots with a gap behind each.
struct Page {
    queue: wgpu::Queue,
    handle: Device,
    buffer: wgpu::Buffer,
    stride: u64,
}

/// Fills what no tensor owns, so that writing too far shows.
const MARK: u8 = 0xa5;

impl Page {
    fn new(slots: u64, slot_bytes: u64) -> Self {
        let (device, queue) = own_device(&adapter(), |_| {});
        let handle = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
        let align = u64::from(device.limits().min_storage_buffer_offset_alignment);
        let stride = slot_bytes.next_multiple_of(align) + align;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: slots * stride,
            usage,
            mapped_at_creation: false,
        };
        let buffer = device.create_buffer(&descriptor);
        queue.write_buffer(&buffer, 0, &vec![MARK; (slots * stride) as usize]);
        Self { queue, handle, buffer, stride }
    }

    fn slice(&self, slot: u64, dims: &[usize], dtype: DType) -> Tensor {
        self.handle.wrap_as(self.buffer.clone(), slot * self.stride, dims, dtype).unwrap()
    }

    /// Whole words; what follows the bytes in the last one is the mark.
    fn write(&self, slot: u64, bytes: &[u8]) {
        let mut words = bytes.to_vec();
        words.resize(bytes.len().next_multiple_of(4), MARK);
        self.queue.write_buffer(&self.buffer, slot * self.stride, &words);
    }

    fn bytes(&self) -> Vec<u8> {
        let words = self.buffer.size() as usize / 4;
        let values = block_on(self.slice(0, &[1, words], DType::F32).to_vec_of::<f32>()).unwrap();
        bytemuck::cast_slice(&values).to_vec()
    }
}

/// Slots of both ranks, mixed up.
const X: [u64; 2] = [0, 17];
const Z: [u64; 2] = [5, 2];
const G: [u64; 2] = [4, 1];
const Y: [u64; 2] = [3, 8];
const DX: [u64; 2] = [12, 13];
const DZ: [u64; 2] = [6, 15];
const DW: [u64; 2] = [7, 9];
const DB: [u64; 2] = [14, 19];
const W: [u64; 2] = [10, 16];
const B: [u64; 2] = [11, 18];

#[test]
fn all_tensors_of_a_call_in_one_buffer_give_the_bits_of_separate_buffers() {
    // Odd numbers of elements: half of the last 16-bit word is not the tensor's.
    for (seed, dims) in (1200..).zip([vec![3, 3, 5], vec![701, 3], vec![3, 3, 1501]]) {
        for types in Types::all() {
            for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
                let layouts = Layouts::all()[(seed as usize + types.x as usize) % 4];
                let problem = Problem::random(
                    &[dims.clone(), dims.clone()],
                    &[types],
                    epilogue,
                    [true, true],
                    seed,
                );
                check_page(
                    &problem,
                    layouts,
                    &format!("{dims:?}, {types:?}, {layouts:?}, {epilogue:?}"),
                );
            }
        }
    }
}

fn check_page(problem: &Problem, layouts: Layouts, what: &str) {
    let Types { x, other } = problem.types[0];
    let residuals = problem.residuals.as_ref().unwrap();
    let page = Page::new(20, 4 * problem.x[0].values.len() as u64);

    // In buffers of their own, on the same device.
    let make = |batches: &[Batch], dtype, layout| -> Vec<Tensor> {
        batches.iter().map(|batch| upload_as(&page.handle, batch, dtype, layout)).collect()
    };
    let tensors = Tensors {
        x: make(&problem.x, x, layouts.x),
        residuals: Some(make(residuals, x, layouts.x)),
        g: make(&problem.g, other, layouts.g),
    };
    let layer = problem.layer(vec![page.handle.clone(); 2]);
    let mut outputs: Vec<Tensor> =
        problem.x.iter().map(|batch| zeros_as(&page.handle, batch, other, layouts.x)).collect();
    let saved =
        block_on(layer.forward_train(tensors.forward().write_to(&mut outputs))).unwrap().saved;
    let backward = block_on(layer.backward(&saved, tensors.backward())).unwrap();
    let expected = problem.pass(problem.read(&outputs), &backward);

    // All of them in one.
    let [dims, g_dims] = [layouts.x, layouts.g].map(|layout| dims_in(layout, &problem.x[0].dims));
    let slices = |slots: [u64; 2], dims: &[usize], dtype, layout| {
        slots.map(|slot| page.slice(slot, dims, dtype).with_layout(layout))
    };
    let like_x = |slots, dtype| slices(slots, &dims, dtype, layouts.x);
    let vectors =
        |slots| slices(slots, &[problem.config.num_features], DType::F32, Layout::ChannelsFirst);
    for rank in 0..2 {
        page.write(X[rank], &bytes_of(&problem.x[rank], x, layouts.x));
        page.write(Z[rank], &bytes_of(&residuals[rank], x, layouts.x));
        page.write(G[rank], &bytes_of(&problem.g[rank], other, layouts.g));
        page.write(W[rank], bytemuck::cast_slice(&problem.parameters.weight));
        page.write(B[rank], bytemuck::cast_slice(&problem.parameters.bias));
    }
    let mut layer =
        SyncBatchNorm::new(problem.config.clone(), vec![page.handle.clone(); 2]).unwrap();
    layer.set_parameter_tensors(vectors(W), vectors(B)).unwrap();
    let mut y = like_x(Y, other);
    let mut dx = like_x(DX, x);
    let mut dz = like_x(DZ, x);
    let mut dw = vectors(DW);
    let mut db = vectors(DB);
    let saved = {
        let [inputs, residual] = [X, Z].map(|slots| like_x(slots, x));
        let request = Forward::of(&inputs).residual(&residual).write_to(&mut y);
        block_on(layer.forward_train(request)).unwrap().saved
    };
    // A framework wraps the same slices anew for every call.
    let [inputs, residual] = [X, Z].map(|slots| like_x(slots, x));
    let upstream = slices(G, &g_dims, other, layouts.g);
    let request = Backward::of(&inputs, &upstream)
        .residual(&residual)
        .input_gradient(&mut dx)
        .weight_gradient(&mut dw)
        .bias_gradient(&mut db)
        .residual_gradient(&mut dz);
    block_on(layer.backward(&saved, request)).unwrap();
    let found = super::problem::Pass {
        y: problem.read(&y),
        grad_inputs: problem.read(&dx),
        grad_residuals: Some(problem.read(&dz)),
        grad_weights: Some(read(&dw)),
        grad_biases: Some(read(&db)),
    };
    assert_eq!(found.bits(), expected.bits(), "{what}");

    // What is read has kept its bytes, and nothing was written beside what is written.
    let bytes = page.bytes();
    let of_slot =
        |slot: u64| &bytes[(slot * page.stride) as usize..((slot + 1) * page.stride) as usize];
    for rank in 0..2 {
        let read = [
            (X[rank], bytes_of(&problem.x[rank], x, layouts.x)),
            (Z[rank], bytes_of(&residuals[rank], x, layouts.x)),
            (G[rank], bytes_of(&problem.g[rank], other, layouts.g)),
            (W[rank], bytemuck::cast_slice(&problem.parameters.weight).to_vec()),
            (B[rank], bytemuck::cast_slice(&problem.parameters.bias).to_vec()),
        ];
        for (slot, expected) in read {
            let (own, gap) = of_slot(slot).split_at(expected.len());
            assert!(own == expected && gap.iter().all(|&byte| byte == MARK), "{what}: slot {slot}");
        }
        let vector = 4 * problem.config.num_features as u64;
        let count = problem.x[rank].values.len() as u64;
        for (slot, length) in [
            (Y[rank], count * other.size_bytes()),
            (DX[rank], count * x.size_bytes()),
            (DZ[rank], count * x.size_bytes()),
            (DW[rank], vector),
            (DB[rank], vector),
        ] {
            let gap = &of_slot(slot)[length as usize..];
            assert!(gap.iter().all(|&byte| byte == MARK), "{what}: behind slot {slot}");
        }
    }
}

#[test]
fn outputs_that_overlap_a_residual_are_refused() {
    for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
        let page = Page::new(8, 4 * 24);
        let dims = [2, 3, 4];
        let at = |slots: [u64; 2]| slots.map(|slot| page.slice(slot, &dims, DType::F32));
        let config = syncbn::BatchNormConfig::torch(3)
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation);
        let layer = SyncBatchNorm::new(config, vec![page.handle.clone(); 2]).unwrap();
        let x = at([0, 1]);
        let z = at([2, 3]);
        let overlap = |argument, rank, other, other_rank| {
            let [rank, other_rank] = [rank, other_rank].map(Some);
            Error::Argument(ArgumentError::Overlap { argument, rank, other, other_rank })
        };
        for (y, rank, other_rank) in
            [([2, 4], 0, 0), ([4, 3], 1, 1), ([3, 4], 0, 1), ([4, 2], 1, 0)]
        {
            let mut outputs = at(y);
            let expected = overlap("output", rank, "residual", other_rank);
            let request = Forward::of(&x).residual(&z).write_to(&mut outputs);
            assert_eq!(block_on(layer.forward_train(request)).unwrap_err(), expected);
            let request = Forward::of(&x).residual(&z).write_to(&mut outputs);
            assert_eq!(block_on(layer.forward_eval(request)).unwrap_err(), expected);
        }
        let mut y = at([4, 5]);
        let saved = block_on(layer.forward_train(Forward::of(&x).residual(&z).write_to(&mut y)))
            .unwrap()
            .saved;
        // g where y was, which backward does not need.
        let g = at([4, 5]);
        let vectors = |slots: [u64; 2]| slots.map(|slot| page.slice(slot, &[3], DType::F32));
        let request = || Backward::of(&x, &g).residual(&z);
        let refused =
            |request: Backward<'_, ()>| block_on(layer.backward(&saved, request)).unwrap_err();
        let of_inputs = |slots| refused(request().input_gradient(&mut at(slots)));
        let of_residuals = |slots| refused(request().residual_gradient(&mut at(slots)));
        assert_eq!(of_inputs([6, 2]), overlap("input_gradient", 1, "residual", 0));
        assert_eq!(of_residuals([6, 1]), overlap("residual_gradient", 1, "x", 1));
        assert_eq!(of_residuals([3, 6]), overlap("residual_gradient", 0, "residual", 1));
        assert_eq!(of_residuals([6, 4]), overlap("residual_gradient", 1, "grad_output", 0));
        assert_eq!(of_residuals([6, 6]), overlap("residual_gradient", 1, "residual_gradient", 0));
        let mut dx = at([6, 7]);
        let mut dz = at([7, 6]);
        let both = request().input_gradient(&mut dx).residual_gradient(&mut dz);
        assert_eq!(refused(both), overlap("residual_gradient", 0, "input_gradient", 1));
        let mut dz = at([6, 7]);
        let mut dw = vectors([7, 3]);
        let both = request().residual_gradient(&mut dz).weight_gradient(&mut dw);
        assert_eq!(refused(both), overlap("weight_gradient", 0, "residual_gradient", 1));
        let mut db = vectors([6, 3]);
        assert_eq!(
            refused(request().bias_gradient(&mut db)),
            overlap("bias_gradient", 1, "residual", 1)
        );

        // A residual that backward is not given may take the gradients.
        if epilogue == Epilogue::ADD {
            let mut dx = at([6, 7]);
            let mut dz = at([2, 3]);
            let request = Backward::of(&x, &g).input_gradient(&mut dx).residual_gradient(&mut dz);
            block_on(layer.backward(&saved, request)).unwrap();
            assert_eq!(bits(&read(&dz)), bits(&read(&g)));
        }
    }
}
