//! Memory of an application that this crate writes between forward and backward, through whichever
//! tensor: backward knows it by its bytes, since an application wraps the same bytes anew for every
//! call.

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, Saved, SyncBatchNorm, Tensor,
    error::ArgumentError, low_level::Epilogue,
};
use wgpu::BufferUsages;

use super::common::virtual_gpus;

pub const DIMS: [usize; 2] = [64, 2];
/// A tensor of these dimensions, 512 bytes: a multiple of every device's alignment.
const BYTES: u64 = 4 * 64 * 2;
pub const VALUES: [f32; 128] = {
    let mut values = [0.0; 128];
    let mut index = 0;
    while index < 128 {
        values[index] = (index * index % 37) as f32;
        index += 1;
    }
    values
};

/// A page of an application on a GPU.
pub struct Page {
    pub device: Device,
    buffer: wgpu::Buffer,
}

impl Page {
    pub fn new() -> Self {
        let device = virtual_gpus()[0].clone();
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: 8 * BYTES,
            usage,
            mapped_at_creation: false,
        };
        let buffer = device.wgpu().unwrap().0.create_buffer(&descriptor);
        let page = Self { device, buffer };
        (0..8).for_each(|place| page.at(place).write(&VALUES).unwrap());
        page
    }

    /// The tensor at a place, wrapped anew.
    pub fn at(&self, place: u64) -> Tensor {
        self.device.wrap(self.buffer.clone(), place * BYTES, &DIMS).unwrap()
    }

    /// A tensor of another shape: these channels, from an offset in half tensors.
    pub fn half(&self, half: u64, dims: &[usize]) -> Tensor {
        self.device.wrap(self.buffer.clone(), half * BYTES / 2, dims).unwrap()
    }

    pub fn layer(&self, epilogue: Epilogue) -> SyncBatchNorm {
        let config = BatchNormConfig::torch(DIMS[1])
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation);
        SyncBatchNorm::new(config, [self.device.clone()]).unwrap()
    }

    /// Another layer writes its output to a tensor.
    pub fn overwrite(&self, mut y: Tensor) {
        let x = self.device.upload(y.dims(), &vec![1.5; y.element_count()]).unwrap();
        let config = BatchNormConfig::torch(y.dims()[1]);
        let other = SyncBatchNorm::new(config, [self.device.clone()]).unwrap();
        block_on(other.forward_train(Forward::of(&x).write_to(&mut y))).unwrap();
    }
}

/// Backward with x at place 0, wrapped anew, and the gradient at place 7.
fn backward(page: &Page, layer: &SyncBatchNorm, saved: &Saved) -> Result<(), Error> {
    block_on(layer.backward(saved, Backward::of(&page.at(0), &page.at(7)))).map(drop)
}

pub fn assert_refused(result: Result<(), Error>, argument: &str) {
    let Err(Error::Argument(ArgumentError::NotSaved { argument: found, reason })) = result else {
        panic!("{argument}: {result:?}")
    };
    assert!(found == argument && reason.contains("since"), "{found}: {reason}");
}

#[test]
fn x_that_another_layer_wrote_through_another_tensor_is_refused() {
    let page = Page::new();
    let layer = page.layer(Epilogue::NONE);
    let saved = block_on(layer.forward_train(&page.at(0))).unwrap().saved;
    backward(&page, &layer, &saved).expect("nothing was written");
    page.overwrite(page.at(0));
    assert_refused(backward(&page, &layer, &saved), "x");
    assert_refused(backward(&page, &layer, &saved.clone()), "x");
    // Forward once more, and they are the inputs.
    let saved = block_on(layer.forward_train(&page.at(0))).unwrap().saved;
    backward(&page, &layer, &saved).expect("nothing was written");
}

#[test]
fn a_write_counts_by_its_bytes() {
    let half = [DIMS[0] / 2, DIMS[1]];
    type Write = fn(&Page);
    let writes: [(Write, bool); 7] = [
        (|page| page.at(0).write(&VALUES).unwrap(), true),
        (|page| page.overwrite(page.half(0, &[DIMS[0] / 2, DIMS[1]])), true),
        (|page| page.overwrite(page.half(1, &[DIMS[0] / 2, DIMS[1]])), true),
        (|page| page.overwrite(page.half(1, &DIMS)), true),
        (|page| page.overwrite(page.half(2, &DIMS)), false),
        (|page| page.at(1).write(&VALUES).unwrap(), false),
        (|page| page.overwrite(page.device.zeros(&DIMS).unwrap()), false),
    ];
    assert_eq!(Page::new().half(1, &half).element_count() * 4, BYTES as usize / 2);
    for (index, (write, refused)) in writes.into_iter().enumerate() {
        let page = Page::new();
        let layer = page.layer(Epilogue::NONE);
        write(&page);
        let saved = block_on(layer.forward_train(&page.at(0))).unwrap().saved;
        backward(&page, &layer, &saved).expect("written before forward");
        write(&page);
        let result = backward(&page, &layer, &saved);
        if refused {
            assert_refused(result, "x");
        } else {
            result.unwrap_or_else(|error| panic!("write {index} is beside x: {error}"));
        }
    }
}

#[test]
fn residuals_and_parameters_are_known_by_their_bytes_too() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::ADD_RELU);
    let vector = |place| page.device.wrap(page.buffer.clone(), place * BYTES, &[DIMS[1]]).unwrap();
    layer.set_parameter_tensors([vector(2)], [vector(3)]).unwrap();
    for (place, argument) in [(1, "residual"), (2, "weight or bias"), (3, "weight or bias")] {
        let saved = block_on(layer.forward_train(Forward::of(&page.at(0)).residual(&page.at(1))))
            .unwrap()
            .saved;
        let backward = || {
            let x = page.at(0);
            let residual = page.at(1);
            let g = page.at(7);
            block_on(layer.backward(&saved, Backward::of(&x, &g).residual(&residual))).map(drop)
        };
        backward().expect("nothing was written");
        page.at(place).write(&VALUES).unwrap();
        assert_refused(backward(), argument);
    }
}

#[test]
fn ranks_of_a_layer_on_one_gpu_are_known_by_their_bytes_too() {
    let page = Page::new();
    let layer = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), &page.device).unwrap();
    let saved = layer.forward_train(&page.at(0)).unwrap().saved;
    let backward = || layer.backward(&saved, Backward::of(&page.at(0), &page.at(7))).map(drop);
    backward().expect("nothing was written");
    page.overwrite(page.at(0));
    assert_refused(backward(), "x");
}

#[test]
fn a_device_that_is_taken_over_twice_is_one_device() {
    let page = Page::new();
    let layer = page.layer(Epilogue::NONE);
    let saved = block_on(layer.forward_train(&page.at(0))).unwrap().saved;
    let (gpu, queue) = page.device.wgpu().unwrap();
    let again = Device::from_wgpu(gpu.clone(), queue.clone()).unwrap();
    let second = Page { device: again, buffer: page.buffer.clone() };
    second.overwrite(second.at(0));
    assert_refused(backward(&page, &layer, &saved), "x");
}

#[test]
fn a_gradient_that_overwrites_x_ends_the_saved_calls_that_need_it() {
    let page = Page::new();
    let layer = page.layer(Epilogue::NONE);
    let forward = || block_on(layer.forward_train(&page.at(0))).unwrap().saved;
    let first = forward();
    let second = forward();
    // Backward of a call whose x lies elsewhere, with its gradient where x of the others is.
    let elsewhere = block_on(layer.forward_train(&page.at(4))).unwrap().saved;
    let x = page.at(4);
    let g = page.at(7);
    let mut dx = page.at(0);
    block_on(layer.backward(&elsewhere, Backward::of(&x, &g).input_gradient(&mut dx))).unwrap();
    assert_refused(backward(&page, &layer, &first), "x");
    drop(first);
    assert_refused(backward(&page, &layer, &second), "x");
}
