//! Slices of the application's buffers: which ones are refused, and that the others give the same
//! bits as own buffers.

use approx::assert_abs_diff_eq;
use pollster::block_on;
use syncbn::{
    BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor,
    error::{ArgumentError, GpuError},
};
use wgpu::BufferUsages;

use super::common::*;
use super::{CHANNELS, assert_says, refused_into, trained};

/// A device of the test's own, and what it needs to allocate on it.
struct Application {
    device: wgpu::Device,
    queue: wgpu::Queue,
    handle: Device,
}

impl Application {
    fn new() -> Self {
        Self::on(&adapter())
    }

    fn on(adapter: &wgpu::Adapter) -> Self {
        let (device, queue) = own_device(adapter, |_| {});
        let handle = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
        Self { device, queue, handle }
    }

    fn buffer(&self, size: u64, usage: BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    fn page(&self, size: u64) -> wgpu::Buffer {
        self.buffer(size, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST)
    }

    fn alignment(&self) -> u64 {
        self.device.limits().min_storage_buffer_offset_alignment.into()
    }
}

#[test]
fn inputs_and_outputs_in_one_buffer_give_the_bits_of_separate_buffers() {
    let app = Application::new();
    // One tile, many tiles, tiles of few lanes; sizes that leave a gap behind each slice, so that
    // writing too far shows.
    for dims in [vec![2, CHANNELS, 5], vec![3, CHANNELS, 4099], vec![701, CHANNELS]] {
        let mut random = Random::new(60);
        let batches = [Batch::random(&dims, &mut random), Batch::random(&dims, &mut random)];
        let separate = trained(vec![app.handle.clone(); 2]);
        let expected = block_on(separate.forward_train(&upload(&separate, &batches))).unwrap();
        let expected_eval = block_on(separate.forward_eval(&upload(&separate, &batches))).unwrap();

        let size = 4 * batches[0].values.len() as u64;
        let stride = size.next_multiple_of(app.alignment()) + app.alignment();
        // A gap, then input and output of rank 0, then output and input of rank 1.
        let [x0, y0, y1, x1] = [0, 1, 2, 3].map(|slot| app.alignment() + slot * stride);
        let page_bytes = app.alignment() + 4 * stride;
        let page = app.page(page_bytes);
        let mark = 12345.0f32;
        app.queue.write_buffer(&page, 0, &mark.to_le_bytes().repeat(page_bytes as usize / 4));
        for (offset, batch) in [(x0, &batches[0]), (x1, &batches[1])] {
            app.queue.write_buffer(&page, offset, bytemuck::cast_slice(&batch.values));
        }
        let slice = |offset| app.handle.wrap(page.clone(), offset, &dims).unwrap();
        let inputs = [slice(x0), slice(x1)];
        let mut outputs = [slice(y0), slice(y1)];
        let layer = trained(vec![app.handle.clone(); 2]);
        let saved = block_on(layer.forward_train(Forward::of(&inputs).write_to(&mut outputs)))
            .unwrap()
            .saved;
        assert!(saved.statistics().is_some());
        assert_eq!(saved.statistics(), expected.saved.statistics());
        assert_eq!(bits(&read(&outputs)), bits(&read(&expected.output)), "{dims:?}");
        assert_eq!(layer.running_stats(), separate.running_stats());
        assert_eq!(read(&inputs), [batches[0].values.clone(), batches[1].values.clone()]);
        block_on(layer.forward_eval(Forward::of(&inputs).write_to(&mut outputs))).unwrap();
        assert_eq!(bits(&read(&outputs)), bits(&read(&expected_eval.output)), "{dims:?}");

        let whole = app.handle.wrap(page, 0, &[1, page_bytes as usize / 4]).unwrap();
        for (word, value) in block_on(whole.to_vec()).unwrap().into_iter().enumerate() {
            let at = 4 * word as u64;
            let inside = [x0, y0, y1, x1].iter().any(|&start| (start..start + size).contains(&at));
            assert!(
                inside || value == mark,
                "{dims:?}: byte {at}, outside every slice, is {value}"
            );
        }
    }
}

#[test]
fn one_tensor_s_bytes_may_be_the_input_of_two_ranks() {
    let app = Application::new();
    let page = app.page(4 * 30);
    let batch = Batch::random(&[2, CHANNELS, 5], &mut Random::new(61));
    app.queue.write_buffer(&page, 0, bytemuck::cast_slice(&batch.values));
    let inputs = [0, 1].map(|_| app.handle.wrap(page.clone(), 0, &batch.dims).unwrap());
    let layer = trained(vec![app.handle.clone(); 2]);
    let forward = block_on(layer.forward_train(&inputs)).unwrap();
    let y = read(&forward.output);
    assert_eq!(bits(&y[..1]), bits(&y[1..]));
    assert_eq!(forward.saved.statistics().unwrap().count(), 20);
}

#[test]
fn outputs_that_share_bytes_with_anything_are_refused() {
    let app = Application::new();
    let align = app.alignment();
    let page = app.page(8 * align);
    let dims = [2, CHANNELS, 4]; // 96 bytes
    let at = |offset: u64| app.handle.wrap(page.clone(), offset, &dims).unwrap();
    // One slice long enough to reach into the next two.
    let long = |offset: u64| {
        app.handle.wrap(page.clone(), offset, &[1, CHANNELS, align as usize / 4]).unwrap()
    };
    let mut layer = trained(vec![app.handle.clone(); 2]);
    type Case = ([Tensor; 2], [Tensor; 2], usize, &'static str, usize);
    let cases: [Case; 5] = [
        ([at(0), at(align)], [at(0), at(2 * align)], 0, "x", 0),
        ([at(0), at(align)], [at(2 * align), at(align)], 1, "x", 1),
        ([at(0), at(align)], [at(2 * align), at(0)], 1, "x", 0),
        ([at(0), at(align)], [at(2 * align), at(2 * align)], 1, "output", 0),
        ([long(0), long(3 * align)], [long(4 * align), long(5 * align)], 0, "x", 1),
    ];
    for (inputs, mut outputs, rank, other, other_rank) in cases {
        let error = refused_into(&mut layer, &inputs, &mut outputs);
        let overlap = ArgumentError::Overlap {
            argument: "output",
            rank: Some(rank),
            other,
            other_rank: Some(other_rank),
        };
        assert_eq!(error, Error::Argument(overlap));
        assert_says(&error, &[&format!("output[{rank}]"), &format!("{other}[{other_rank}]")]);
    }
}

#[test]
fn a_slice_that_the_buffer_or_the_device_does_not_allow_is_refused() {
    let app = Application::new();
    let align = app.alignment();
    let page = app.page(4 * align);
    let refused = |buffer: &wgpu::Buffer, offset, dims: &[usize]| match app.handle.wrap(
        buffer.clone(),
        offset,
        dims,
    ) {
        Err(Error::Argument(error)) => error,
        other => panic!("{other:?}"),
    };
    for offset in [1, 2, 4, align - 4, align + 4] {
        let error = refused(&page, offset, &[1, 1]);
        assert_eq!(
            error,
            ArgumentError::Alignment { offset_bytes: offset, alignment_bytes: align }
        );
        assert_says(&error.into(), &[&offset.to_string(), &align.to_string()]);
    }
    // One value too many, past the end, and an end beyond 64 bits.
    for (offset, values) in [
        (3 * align, align / 4 + 1),
        (0, align + 1),
        (4 * align, 1),
        (u64::MAX - (align - 1), align),
    ] {
        let error = refused(&page, offset, &[1, values as usize]);
        let size_bytes = 4 * values;
        let buffer_bytes = 4 * align;
        assert_eq!(
            error,
            ArgumentError::SliceSize { offset_bytes: offset, size_bytes, buffer_bytes }
        );
        assert_says(
            &error.into(),
            &[&offset.to_string(), &size_bytes.to_string(), &buffer_bytes.to_string()],
        );
    }
    app.handle.wrap(page, 3 * align, &[1, align as usize / 4]).unwrap();

    let no_storage = app.buffer(256, BufferUsages::COPY_SRC | BufferUsages::COPY_DST);
    let error = refused(&no_storage, 0, &[1, 4]);
    assert!(matches!(error, ArgumentError::Usage { .. }), "{error:?}");
    assert_says(&error.into(), &["COPY_SRC", "STORAGE"]);

    let error = Device::host().wrap(no_storage, 0, &[1, 4]).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::NotAGpu { .. })), "{error}");
    assert_says(&error, &["Device::wrap needs a GPU, found host", "Device::upload"]);
}

#[test]
fn an_empty_tensor_shares_no_byte_with_anything() {
    let app = Application::new();
    let align = app.alignment();
    let page = app.page(2 * align);
    let layer = trained(vec![app.handle.clone(); 2]);
    // An empty rank's tensors wherever a framework's pool puts them: in the middle of others, or at
    // the end.
    for offset in [0, align, 2 * align] {
        let slice = |offset, dims: &[usize]| app.handle.wrap(page.clone(), offset, dims);
        let inputs = [slice(0, &[2, CHANNELS]).unwrap(), slice(offset, &[0, CHANNELS]).unwrap()];
        let mut outputs =
            [slice(align, &[2, CHANNELS]).unwrap(), slice(offset, &[0, CHANNELS]).unwrap()];
        block_on(layer.forward_train(Forward::of(&inputs).write_to(&mut outputs))).unwrap();
    }
}

#[test]
fn a_buffer_that_cannot_be_copied_from_normalizes_but_cannot_be_read() {
    let app = Application::new();
    let buffer = || app.buffer(120, BufferUsages::STORAGE);
    let dims = [2, CHANNELS, 5];
    let input = app.handle.wrap(buffer(), 0, &dims).unwrap();
    let mut output = app.handle.wrap(buffer(), 0, &dims).unwrap();
    let layer = trained(vec![app.handle.clone()]);
    block_on(layer.forward_train(Forward::of(&input).write_to(&mut output))).unwrap();
    let error = block_on(output.to_vec()).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::Usage { .. })), "{error:?}");
}

#[test]
fn a_buffer_of_another_wgpu_device_is_refused_and_spoils_nothing() {
    // Of one wgpu instance: handles of two instances are something that wgpu itself cannot tell
    // apart.
    let adapter = adapter();
    let app = Application::on(&adapter);
    let other = Application::on(&adapter);
    let dims = [2, CHANNELS, 5];
    let foreign = || app.handle.wrap(other.page(120), 0, &dims).unwrap();
    let own = || app.handle.zeros(&dims).unwrap();
    for rank in 0..2 {
        let pair = |wrong: bool| [0, 1].map(|r| if wrong && r == rank { foreign() } else { own() });
        assert_refused_by_gpu(&app, &pair(true), pair(false), At::Recording);
        assert_refused_by_gpu(&app, &pair(false), pair(true), At::Recording);
    }
    let error = block_on(foreign().to_vec()).unwrap_err();
    assert!(matches!(error, Error::Gpu(GpuError::Refused { .. })), "{error:?}");
}

#[test]
fn a_buffer_that_the_application_destroyed_or_mapped_is_refused_and_spoils_nothing() {
    let app = Application::new();
    let dims = [2, CHANNELS, 5];
    let wrap = |buffer: &wgpu::Buffer| app.handle.wrap(buffer.clone(), 0, &dims).unwrap();
    let destroyed = app.page(120);
    destroyed.destroy();
    let mapped = app.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 120,
        usage: BufferUsages::STORAGE,
        mapped_at_creation: true,
    });
    for (unusable, of_outputs) in [(destroyed, At::Recording), (mapped, At::Submission)] {
        let own = || app.handle.zeros(&dims).unwrap();
        assert_refused_by_gpu(&app, &[own(), wrap(&unusable)], [own(), own()], At::Recording);
        assert_refused_by_gpu(&app, &[own(), own()], [own(), wrap(&unusable)], of_outputs);
    }
}

/// Where a call fails.
#[derive(PartialEq)]
enum At {
    /// Before the exchange: when its kernels are recorded.
    Recording,
    /// After it: when the kernels that write the outputs are submitted.
    Submission,
}

/// Training fails by wgpu's own checks, and the device stays usable. The exchange updates the
/// running statistics.
fn assert_refused_by_gpu(
    app: &Application,
    inputs: &[Tensor; 2],
    mut outputs: [Tensor; 2],
    at: At,
) {
    let mut layer = trained(vec![app.handle.clone(); 2]);
    let before = layer.running_stats().unwrap();
    let error =
        block_on(layer.forward_train(Forward::of(inputs).write_to(&mut outputs))).unwrap_err();
    assert!(matches!(error, Error::Gpu(GpuError::Refused { .. })), "{error:?}");
    assert_says(&error, &[app.handle.name(), "refused"]);
    let sound = trained(layer.devices().to_vec());
    if at == At::Submission {
        block_on(sound.forward_train(inputs)).unwrap();
    }
    assert_eq!(layer.running_stats(), sound.running_stats());
    layer.set_running_stats(before).unwrap();
    super::assert_works(&mut layer);
}

#[test]
fn two_handles_of_one_wgpu_device_are_one_device() {
    let app = Application::new();
    let again = Device::from_wgpu(app.device.clone(), app.queue.clone()).unwrap();
    assert_eq!(again, app.handle);
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [app.handle.clone()]).unwrap();
    let input = again.upload(&[2, 1], &[1.0, 3.0]).unwrap();
    let y = read(&block_on(layer.forward_train(&[input])).unwrap().output);
    assert_abs_diff_eq!(y[0][1], 1.0, epsilon = 1e-4);
}
