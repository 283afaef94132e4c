//! Memory of an application that this crate writes between forward and backward, through whichever tensor: backward knows
//! it by its bytes, since an application wraps the same bytes anew for every call.

use pollster::block_on;
use syncbn::{ArgumentError, Device, DeviceGroup, Epilogue, Error, Inputs, SavedForward, SyncBatchNormConfig, Tensor};
use wgpu::BufferUsages;

use super::common::virtual_gpus;

const DIMS: [usize; 2] = [64, 2];
/// A tensor of these dimensions, 512 bytes: a multiple of every device's alignment.
const BYTES: u64 = 4 * 64 * 2;
const VALUES: [f32; 128] = {
    let mut values = [0.0; 128];
    let mut index = 0;
    while index < 128 {
        values[index] = (index * index % 37) as f32;
        index += 1;
    }
    values
};

/// A page of an application on a GPU.
struct Page {
    device: Device,
    buffer: wgpu::Buffer,
}

impl Page {
    fn new() -> Self {
        let device = virtual_gpus()[0].clone();
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 8 * BYTES, usage, mapped_at_creation: false };
        let buffer = device.wgpu().unwrap().0.create_buffer(&descriptor);
        let page = Self { device, buffer };
        (0..8).for_each(|place| page.at(place).write(&VALUES).unwrap());
        page
    }

    /// The tensor at a place, wrapped anew.
    fn at(&self, place: u64) -> Tensor {
        self.device.wrap(self.buffer.clone(), place * BYTES, &DIMS).unwrap()
    }

    /// A tensor of another shape: these channels, from an offset in half tensors.
    fn half(&self, half: u64, dims: &[usize]) -> Tensor {
        self.device.wrap(self.buffer.clone(), half * BYTES / 2, dims).unwrap()
    }

    fn layer(&self, epilogue: Epilogue) -> DeviceGroup {
        let config = SyncBatchNormConfig::torch(DIMS[1]).with_epilogue(epilogue);
        DeviceGroup::new(config, vec![self.device.clone()]).unwrap()
    }

    /// Another layer writes its output to a tensor.
    fn overwrite(&self, y: Tensor) {
        let x = [self.device.upload(y.dims(), &vec![1.5; y.element_count()]).unwrap()];
        let config = SyncBatchNormConfig::torch(y.dims()[1]);
        let mut other = DeviceGroup::new(config, vec![self.device.clone()]).unwrap();
        block_on(other.forward_train_into(&x, &mut [y])).unwrap();
    }
}

/// Backward with x at place 0, wrapped anew, and the gradient at place 7.
fn backward(page: &Page, layer: &DeviceGroup, saved: &SavedForward) -> Result<(), Error> {
    block_on(layer.backward(saved, &[page.at(0)], &[page.at(7)])).map(drop)
}

fn assert_refused(result: Result<(), Error>, argument: &str) {
    let Err(Error::Argument(ArgumentError::NotSaved { argument: found, reason })) = result else {
        panic!("{argument}: {result:?}")
    };
    assert!(found == argument && reason.contains("since"), "{found}: {reason}");
}

#[test]
fn x_that_another_layer_wrote_through_another_tensor_is_refused() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::None);
    let saved = block_on(layer.forward_train(&[page.at(0)])).unwrap().saved;
    backward(&page, &layer, &saved).expect("nothing was written");
    page.overwrite(page.at(0));
    assert_refused(backward(&page, &layer, &saved), "inputs[0]");
    assert_refused(backward(&page, &layer, &saved.clone()), "inputs[0]");
    // Forward once more, and they are the inputs.
    let saved = block_on(layer.forward_train(&[page.at(0)])).unwrap().saved;
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
        let mut layer = page.layer(Epilogue::None);
        write(&page);
        let saved = block_on(layer.forward_train(&[page.at(0)])).unwrap().saved;
        backward(&page, &layer, &saved).expect("written before forward");
        write(&page);
        let result = backward(&page, &layer, &saved);
        if refused {
            assert_refused(result, "inputs[0]");
        } else {
            result.unwrap_or_else(|error| panic!("write {index} is beside x: {error}"));
        }
    }
}

#[test]
fn residuals_and_parameters_are_known_by_their_bytes_too() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::AddRelu);
    let vectors = |place| [page.device.wrap(page.buffer.clone(), place * BYTES, &[DIMS[1]]).unwrap()];
    layer.set_parameter_tensors(Some(vectors(2).into()), Some(vectors(3).into())).unwrap();
    for (place, argument) in [(1, "residuals[0]"), (2, "weight or bias"), (3, "weight or bias")] {
        let (x, residual) = ([page.at(0)], [page.at(1)]);
        let saved = block_on(layer.forward_train(Inputs::with_residuals(&x, &residual))).unwrap().saved;
        let backward = || {
            let (x, residual) = ([page.at(0)], [page.at(1)]);
            block_on(layer.backward(&saved, Inputs::with_residuals(&x, &residual), &[page.at(7)])).map(drop)
        };
        backward().expect("nothing was written");
        page.at(place).write(&VALUES).unwrap();
        assert_refused(backward(), argument);
    }
}

#[test]
fn ranks_of_a_resident_group_are_known_by_their_bytes_too() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::None).into_resident().unwrap();
    let saved = layer.forward_train(&[page.at(0)]).unwrap().saved;
    layer.backward(&saved, &[page.at(0)], &[page.at(7)]).expect("nothing was written");
    page.overwrite(page.at(0));
    let refused = layer.backward(&saved, &[page.at(0)], &[page.at(7)]);
    assert_refused(refused.map(drop), "inputs[0]");
}

#[test]
fn a_device_that_is_taken_over_twice_is_one_device() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::None);
    let saved = block_on(layer.forward_train(&[page.at(0)])).unwrap().saved;
    let (gpu, queue) = page.device.wgpu().unwrap();
    let again = Device::from_wgpu(gpu.clone(), queue.clone()).unwrap();
    let second = Page { device: again, buffer: page.buffer.clone() };
    second.overwrite(second.at(0));
    assert_refused(backward(&page, &layer, &saved), "inputs[0]");
}

#[test]
fn a_gradient_written_over_x_ends_the_saved_calls_that_need_it() {
    let page = Page::new();
    let mut layer = page.layer(Epilogue::None);
    let forward = |layer: &mut DeviceGroup| block_on(layer.forward_train(&[page.at(0)])).unwrap().saved;
    let (first, second) = (forward(&mut layer), forward(&mut layer));
    // Backward of a call whose x lies elsewhere, with its gradient where x of the others is.
    let elsewhere = block_on(layer.forward_train(&[page.at(4)])).unwrap().saved;
    let mut grad_inputs = [page.at(0)];
    let targets = syncbn::GradTargets { grad_inputs: Some(&mut grad_inputs), ..Default::default() };
    block_on(layer.backward_into(&elsewhere, &[page.at(4)], &[page.at(7)], targets)).unwrap();
    assert_refused(backward(&page, &layer, &first), "inputs[0]");
    drop(first);
    assert_refused(backward(&page, &layer, &second), "inputs[0]");
}
