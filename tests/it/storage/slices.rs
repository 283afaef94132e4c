//! 16-bit slices of one buffer: nothing outside a tensor changes, not even the other half of its
//! last word.

use half::f16;
use pollster::block_on;
use syncbn::device::FastPaths;
use syncbn::{
    Backward, BatchNormConfig, DType, Device, Error, Forward, Layout, SyncBatchNorm, Tensor,
    error::ArgumentError, low_level::Epilogue,
};
use wgpu::BufferUsages;

use super::common::*;
use super::problem::Problem;
use super::stored::*;

/// An application's device with the adapter's own limits, and so its least alignment of offsets.
struct Application {
    device: wgpu::Device,
    queue: wgpu::Queue,
    handle: Device,
}

impl Application {
    /// Converting f16 by the device's own instructions, or not.
    fn new(native: bool) -> Self {
        let adapter = adapter();
        let descriptor =
            wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
        let paths = FastPaths::ALL.with_native_f16(native);
        let handle = Device::from_wgpu_with(device.clone(), queue.clone(), paths).unwrap();
        Self { device, queue, handle }
    }

    fn alignment(&self) -> u64 {
        self.device.limits().min_storage_buffer_offset_alignment.into()
    }

    fn buffer(&self, size: u64) -> wgpu::Buffer {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }
}

/// A tensor's place in a page.
#[derive(Clone, Debug)]
struct Place {
    offset: u64,
    bytes: u64,
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
}

/// One buffer with tensors in it, each at the first offset behind the last that the device allows,
/// or at the one after; noise lies between them.
struct Page<'a> {
    app: &'a Application,
    random: Random,
    places: Vec<Place>,
    /// What the page holds before any call.
    image: Vec<u8>,
}

impl<'a> Page<'a> {
    fn new(app: &'a Application, seed: u64) -> Self {
        Self { app, random: Random::new(seed), places: Vec::new(), image: Vec::new() }
    }

    fn noise(&mut self, until: u64) {
        while (self.image.len() as u64) < until {
            self.image.push(self.random.bits() as u8);
        }
    }

    /// Adds a tensor that holds a batch, or room for one; its number in the page.
    fn add(&mut self, batch: &Batch, dtype: DType, layout: Layout, filled: bool) -> usize {
        let gap = self.app.alignment() * self.random.below(2) as u64;
        let offset = (self.image.len() as u64).next_multiple_of(self.app.alignment()) + gap;
        self.noise(offset);
        let bytes = bytes_of(batch, dtype, layout);
        let end = offset + bytes.len() as u64;
        if filled {
            self.image.extend(&bytes)
        } else {
            self.noise(end)
        }
        let dims = dims_in(layout, &batch.dims);
        self.places.push(Place { offset, bytes: bytes.len() as u64, dims, dtype, layout });
        self.places.len() - 1
    }

    /// The buffer, which ends with the word that the last tensor ends in.
    fn build(&mut self) -> wgpu::Buffer {
        self.noise((self.image.len() as u64).next_multiple_of(4));
        let buffer = self.app.buffer(self.image.len() as u64);
        self.app.queue.write_buffer(&buffer, 0, &self.image);
        buffer
    }

    fn tensor(&self, buffer: &wgpu::Buffer, place: usize) -> Tensor {
        let Place { offset, dims, dtype, layout, .. } = &self.places[place];
        self.app.handle.wrap_as(buffer.clone(), *offset, dims, *dtype).unwrap().with_layout(*layout)
    }

    /// Panics where a byte has changed outside the tensors that were written, and where one of
    /// those is as it was.
    fn assert_only_changed(&self, buffer: &wgpu::Buffer, written: &[usize], what: &str) {
        let halves = self.image.len() / 2;
        let whole = self.app.handle.wrap_as(buffer.clone(), 0, &[1, halves], DType::F16).unwrap();
        let found: Vec<f16> = block_on(whole.to_vec_of()).unwrap();
        let found: &[u8] = bytemuck::cast_slice(&found);
        let inside = |at: usize, place: &Place| {
            (place.offset..place.offset + place.bytes).contains(&(at as u64))
        };
        for (at, (found, before)) in found.iter().zip(&self.image).enumerate() {
            let written = written.iter().any(|&place| inside(at, &self.places[place]));
            assert!(
                written || found == before,
                "{what}: byte {at} was {before:#x} and is {found:#x}: {:?}",
                self.places
            );
        }
        for &place in written {
            let Place { offset, bytes, .. } = self.places[place];
            let range = offset as usize..(offset + bytes) as usize;
            assert_ne!(
                found[range.clone()],
                self.image[range],
                "{what}: nothing was written to {place}"
            );
        }
    }
}

/// Odd numbers of elements: half a word, one and a half, few channels, several workgroups of words,
/// several tiles.
const SHAPES: [[usize; 3]; 5] = [[1, 3, 1], [3, 1, 1], [3, 5, 7], [9, 3, 683], [3, 3, 1367]];

#[test]
fn nothing_outside_a_tensor_changes() {
    let mut turn = 0;
    for app in [Application::new(true), Application::new(false)] {
        for types in Types::all() {
            for shape in SHAPES {
                let layouts = Layouts::all()[turn % 4];
                turn += 1;
                let dims = [shape.to_vec(), vec![shape[0] + 2, shape[1], shape[2]]];
                let problem = Problem::random(
                    &dims,
                    &[types],
                    Epilogue::NONE,
                    [true, true],
                    5500 + turn as u64,
                );
                check_page(
                    &app,
                    &problem,
                    types,
                    layouts,
                    &format!("turn {turn}, {types:?}, {layouts:?}, {dims:?}"),
                );
            }
        }
    }
}

/// A training step in one page: only outputs change, and they have the bits that buffers of their
/// own get.
fn check_page(app: &Application, problem: &Problem, types: Types, layouts: Layouts, what: &str) {
    let mut page = Page::new(app, 5501);
    let [x, g] = [&problem.x, &problem.g];
    let room =
        |page: &mut Page<'_>, rank: usize, dtype| page.add(&x[rank], dtype, layouts.x, false);
    let x1 = page.add(&x[1], types.x, layouts.x, true);
    let y0 = room(&mut page, 0, types.other);
    let g0 = page.add(&g[0], types.other, layouts.g, true);
    let dx1 = room(&mut page, 1, types.x);
    let x0 = page.add(&x[0], types.x, layouts.x, true);
    let g1 = page.add(&g[1], types.other, layouts.g, true);
    let y1 = room(&mut page, 1, types.other);
    let dx0 = room(&mut page, 0, types.x);
    let buffer = page.build();

    let devices = vec![app.handle.clone(); 2];
    let [_, (_, expected)] = problem.run(devices.clone(), &[layouts]).unwrap();
    let pair = |a, b| [page.tensor(&buffer, a), page.tensor(&buffer, b)];
    let inputs = pair(x0, x1);
    let grad_outputs = pair(g0, g1);
    let mut outputs = pair(y0, y1);
    let mut grad_inputs = pair(dx0, dx1);
    let layer = problem.layer(devices);
    let saved =
        block_on(layer.forward_train(Forward::of(&inputs).write_to(&mut outputs))).unwrap().saved;
    page.assert_only_changed(&buffer, &[y0, y1], what);
    let request = Backward::of(&inputs, &grad_outputs).input_gradient(&mut grad_inputs);
    block_on(layer.backward(&saved, request)).unwrap();
    page.assert_only_changed(&buffer, &[y0, y1, dx0, dx1], what);
    assert_eq!(bits(&problem.read(&outputs)), bits(&expected.y), "{what}");
    assert_eq!(bits(&problem.read(&grad_inputs)), bits(&expected.grad_inputs), "{what}");
}

#[test]
fn slices_may_touch_but_not_overlap_by_half_a_word() {
    let app = Application::new(true);
    let align = app.alignment();
    let halves = align as usize / 2;
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [app.handle.clone()]).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let buffer = app.buffer(8 * align);
        let at = |slot: u64, elements: usize| {
            app.handle.wrap_as(buffer.clone(), slot * align, &[elements, 1], dtype).unwrap()
        };
        // Elements up to the next slot, one less, and one more, which is the first half of a word
        // of that slot.
        for (elements, fits) in [(halves, true), (halves - 1, true), (halves + 1, false)] {
            let overlap = |argument, other| {
                Error::Argument(ArgumentError::Overlap {
                    argument,
                    rank: None,
                    other,
                    other_rank: None,
                })
            };
            let forward = block_on(
                layer.forward_train(Forward::of(&at(0, elements)).write_to(&mut at(1, elements))),
            )
            .map(|_| ());
            assert_eq!(
                forward,
                if fits { Ok(()) } else { Err(overlap("output", "x")) },
                "{elements}"
            );

            let inputs = at(0, elements);
            let grad_outputs = at(2, elements);
            let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
            for (slot, other) in [(1, "x"), (3, "grad_output")] {
                let mut grad_inputs = at(slot, elements);
                let request = Backward::of(&inputs, &grad_outputs).input_gradient(&mut grad_inputs);
                let backward = block_on(layer.backward(&saved, request)).map(|_| ());
                assert_eq!(
                    backward,
                    if fits { Ok(()) } else { Err(overlap("input_gradient", other)) },
                    "{elements}"
                );
            }
        }
    }
}

#[test]
fn a_slice_ends_with_a_whole_word_that_the_buffer_must_have() {
    let app = Application::new(true);
    let wrap = |buffer_bytes: u64, elements: usize| {
        app.handle.wrap_as(app.buffer(buffer_bytes), 0, &[1, elements], DType::F16).map(|_| ())
    };
    wrap(32, 16).unwrap();
    wrap(32, 15).unwrap();
    let too_short = ArgumentError::SliceSize { offset_bytes: 0, size_bytes: 36, buffer_bytes: 32 };
    assert_eq!(wrap(32, 17), Err(Error::Argument(too_short)));
    let too_short = ArgumentError::SliceSize { offset_bytes: 0, size_bytes: 36, buffer_bytes: 34 };
    assert_eq!(wrap(34, 17), Err(Error::Argument(too_short)));
    let twice = app.alignment() / 2;
    let misaligned =
        ArgumentError::Alignment { offset_bytes: twice, alignment_bytes: app.alignment() };
    let found = app
        .handle
        .wrap_as(app.buffer(4 * app.alignment()), twice, &[1, 1], DType::BF16)
        .map(|_| ());
    assert_eq!(found, Err(Error::Argument(misaligned)));
}

#[test]
fn writing_a_slice_changes_no_other_word() {
    let app = Application::new(true);
    for dtype in [DType::F16, DType::BF16] {
        for elements in 1..6 {
            let mut page = Page::new(&app, 5600);
            let batch = Batch::new(&[1, elements], |_| 0.0);
            let before =
                page.add(&Batch::new(&[1, 3], |_| 1.0), DType::F32, Layout::ChannelsFirst, true);
            let place = page.add(&batch, dtype, Layout::ChannelsFirst, false);
            page.add(&Batch::new(&[1, 3], |_| 1.0), DType::F32, Layout::ChannelsFirst, true);
            let buffer = page.build();
            let mut tensor = page.tensor(&buffer, place);
            match dtype {
                DType::BF16 => tensor.write(&vec![half::bf16::ONE; elements]).unwrap(),
                _ => tensor.write(&vec![f16::ONE; elements]).unwrap(),
            }
            assert_eq!(block_on(tensor.to_vec()).unwrap(), vec![1.0; elements]);
            assert_eq!(block_on(page.tensor(&buffer, before).to_vec()).unwrap(), [1.0; 3]);
            // Copies to a buffer are of whole words.
            page.places[place].bytes = page.places[place].bytes.next_multiple_of(4);
            page.assert_only_changed(&buffer, &[place], "written by the host");
        }
    }
}
