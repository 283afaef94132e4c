//! The ways to a tensor's memory: as a slice on the host, and as another handle of the same memory
//! on a GPU. What is written there between forward and backward is noticed.

use half::f16;
use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, Saved, SyncBatchNorm, Tensor,
    error::ArgumentError, low_level::Epilogue,
};

use super::assert_not_saved;
use super::common::*;

const DIMS: [usize; 3] = [3, 2, 5];

fn layer(device: &Device, epilogue: Epilogue) -> SyncBatchNorm {
    SyncBatchNorm::new(
        BatchNormConfig::torch(DIMS[1])
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation),
        [device.clone()],
    )
    .unwrap()
}

fn tensor(device: &Device, seed: u64) -> Tensor {
    Batch::random(&DIMS, &mut Random::new(seed)).upload(device)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.to_vec()).unwrap()
}

/// x and the gradient of y on the host, and the forward call of a plain layer.
fn on_host() -> (SyncBatchNorm, Tensor, Tensor, Saved) {
    let host = Device::host();
    let layer = layer(&host, Epilogue::NONE);
    let x = tensor(&host, 330);
    let g = tensor(&host, 331);
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    (layer, x, g, saved)
}

#[test]
fn a_tensor_of_the_host_is_a_slice_of_its_storage_type() {
    let host = Device::host();
    let mut x = host.upload(&[1, 3], &[1.0f32, 2.0, 3.0]).unwrap();
    assert_eq!(x.as_slice::<f32>(), Some(&[1.0, 2.0, 3.0][..]));
    assert_eq!(x.as_slice::<f16>(), None);
    assert_eq!(x.as_mut_slice::<f16>(), None);
    x.as_mut_slice::<f32>().unwrap()[1] = 7.0;
    assert_eq!(values(&x), [1.0, 7.0, 3.0]);

    let halves = [1.0, 2.0, 3.0].map(f16::from_f32);
    let mut x = host.upload(&[3, 1], &halves).unwrap();
    assert_eq!(x.as_slice::<f16>(), Some(&halves[..]));
    assert_eq!(x.as_slice::<f32>(), None);
    // As wide, and another type.
    assert_eq!(x.as_slice::<half::bf16>(), None);
    x.as_mut_slice::<f16>().unwrap().fill(f16::ONE);
    assert_eq!(values(&x), [1.0; 3]);

    let empty = host.zeros(&[0, 3]).unwrap();
    assert_eq!(empty.as_slice::<f32>(), Some(&[][..]));
    let mut x = tensor(&virtual_gpus()[0], 332);
    assert_eq!(x.as_slice::<f32>(), None);
    assert_eq!(x.as_mut_slice::<f32>(), None);
}

#[test]
fn what_is_written_through_a_slice_is_what_forward_reads() {
    let host = Device::host();
    let layer = layer(&host, Epilogue::NONE);
    let mut x = tensor(&host, 333);
    let other = tensor(&host, 334);
    let expected = block_on(layer.forward_train(&other)).unwrap().output;
    x.as_mut_slice::<f32>().unwrap().copy_from_slice(other.as_slice().unwrap());
    let found = block_on(layer.forward_train(&x)).unwrap().output;
    assert_eq!(bits(&[values(&found)]), bits(&[values(&expected)]));
}

#[test]
fn backward_refuses_an_x_that_was_written_through_a_slice() {
    let (layer, mut x, g, saved) = on_host();
    let before = block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap().input;
    // Reading it, or asking for it as another type, writes nothing.
    assert!(x.as_slice::<f32>().is_some() && x.as_mut_slice::<f16>().is_none());
    let after = block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap().input;
    assert_eq!(bits(&[values(&after)]), bits(&[values(&before)]));

    x.as_mut_slice::<f32>().unwrap()[4] += 1.0;
    let refused = block_on(layer.backward(&saved, Backward::of(&x, &g)));
    assert_not_saved(
        refused,
        "x",
        "it was written since, as a forward call in place does; run forward again",
    );
    // A forward call after the writing can be differentiated.
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap();
}

#[test]
fn the_gradient_of_y_may_be_written_through_a_slice() {
    let (layer, x, mut g, saved) = on_host();
    let other = tensor(&Device::host(), 335);
    let expected = block_on(layer.backward(&saved, Backward::of(&x, &other))).unwrap().input;
    g.as_mut_slice::<f32>().unwrap().copy_from_slice(other.as_slice().unwrap());
    let found = block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap().input;
    assert_eq!(bits(&[values(&found)]), bits(&[values(&expected)]));
}

#[test]
fn backward_refuses_a_residual_that_was_written_through_a_slice_where_it_needs_it() {
    let host = Device::host();
    for (epilogue, needs) in [(Epilogue::ADD_RELU, true), (Epilogue::ADD, false)] {
        let layer = layer(&host, epilogue);
        let [x, g, mut residual] = [336, 337, 338].map(|seed| tensor(&host, seed));
        let saved =
            block_on(layer.forward_train(Forward::of(&x).residual(&residual))).unwrap().saved;
        assert_eq!(saved.needs_residual(), needs);
        residual.as_mut_slice::<f32>().unwrap()[0] = 9.0;
        let found = block_on(layer.backward(&saved, Backward::of(&x, &g).residual(&residual)));
        match needs {
            true => assert_not_saved(found, "residual", "it was written since; run forward again"),
            false => drop(found.unwrap()),
        }
    }
}

/// An x on a GPU: of its own memory, and a slice of an application's buffer.
fn on_gpu() -> [Tensor; 2] {
    let device = &virtual_gpus()[0];
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 4096, usage, mapped_at_creation: false };
    let mut wrapped =
        device.wrap(device.wgpu().unwrap().0.create_buffer(&descriptor), 1024, &DIMS).unwrap();
    let own = tensor(device, 340);
    wrapped.write(&values(&own)).unwrap();
    [own, wrapped]
}

#[test]
fn a_handle_is_the_same_memory_of_a_gpu() {
    for x in on_gpu() {
        let mut handle = x.handle().expect("a handle on a GPU");
        assert_eq!(
            (handle.dims(), handle.dtype(), handle.device()),
            (x.dims(), x.dtype(), x.device())
        );
        let place = |tensor: &Tensor| {
            tensor.binding().map(|at| (at.buffer.clone(), at.offset, at.size)).unwrap()
        };
        assert_eq!(place(&handle), place(&x));
        assert_eq!(values(&handle), values(&x));
        handle.write(&[2.5; 30]).unwrap();
        assert_eq!(values(&x), [2.5; 30]);
        // It outlives the tensor that it was made of.
        drop(x);
        assert_eq!(values(&handle), [2.5; 30]);
    }
    let error = tensor(&Device::host(), 341).handle().unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::NotAGpu { .. })), "{error}");
    assert!(error.to_string().starts_with("Tensor::handle needs a GPU, found host; "), "{error}");
    assert!(error.to_string().starts_with("Tensor::handle needs a GPU, found host; "), "{error}");
    assert!(error.to_string().starts_with("Tensor::handle needs a GPU, found host; "), "{error}");
}

#[test]
fn forward_and_backward_take_a_handle_for_its_tensor() {
    for x in on_gpu() {
        let layer = layer(x.device(), Epilogue::NONE);
        let g = tensor(x.device(), 342);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let handle = x.handle().unwrap();
        let of_handle = block_on(layer.forward_train(&handle)).unwrap();
        assert_eq!(bits(&[values(&of_handle.output)]), bits(&[values(&forward.output)]));
        let gradient = |saved, x| {
            bits(&read(&[block_on(layer.backward(saved, Backward::of(x, &g))).unwrap().input]))
        };
        let expected = gradient(&forward.saved, &x);
        assert_eq!(gradient(&forward.saved, &handle), expected);
        assert_eq!(gradient(&of_handle.saved, &x), expected);
    }
}

#[test]
fn backward_refuses_an_x_whose_handle_this_crate_has_written() {
    // By a copy from the host, as the output of another layer, over itself, and as a gradient.
    for way in 0..4 {
        for x in on_gpu() {
            let device = x.device().clone();
            let other = layer(&device, Epilogue::RELU);
            let layer = layer(&device, Epilogue::NONE);
            let g = tensor(&device, 343);
            let z = tensor(&device, 344);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            let of_z = block_on(other.forward_train(&z)).unwrap().saved;
            block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap();
            let mut handle = x.handle().unwrap();
            match way {
                0 => handle.write(&values(&z)).unwrap(),
                1 => drop(
                    block_on(other.forward_eval(Forward::of(&z).write_to(&mut handle))).unwrap(),
                ),
                2 => drop(block_on(other.forward_eval(Forward::in_place(&mut handle))).unwrap()),
                _ => {
                    let request = Backward::of(&z, &g).input_gradient(&mut handle);
                    drop(block_on(other.backward(&of_z, request)).unwrap());
                }
            }
            for x in [&x, &handle, &x.handle().unwrap()] {
                let refused = block_on(layer.backward(&saved, Backward::of(x, &g)));
                assert_not_saved(
                    refused,
                    "x",
                    "it was written since, as a forward call in place does; run forward again",
                );
            }
        }
    }
}

#[test]
fn a_handle_of_x_is_no_target() {
    for x in on_gpu() {
        let layer = layer(x.device(), Epilogue::NONE);
        let g = tensor(x.device(), 345);
        let overlap = |argument| {
            Error::Argument(ArgumentError::Overlap {
                argument,
                rank: None,
                other: "x",
                other_rank: None,
            })
        };
        let mut handle = x.handle().unwrap();
        let error =
            block_on(layer.forward_train(Forward::of(&x).write_to(&mut handle))).unwrap_err();
        assert_eq!(error, overlap("output"));
        let saved = block_on(layer.forward_train(&x)).unwrap().saved;
        let request = Backward::of(&x, &g).input_gradient(&mut handle);
        assert_eq!(
            block_on(layer.backward(&saved, request)).unwrap_err(),
            overlap("input_gradient")
        );
    }
}

#[test]
fn what_an_optimizer_writes_through_the_handle_of_a_parameter_holds_for_the_next_call() {
    let device = &virtual_gpus()[0];
    let x = tensor(device, 346);
    let g = tensor(device, 347);
    let mut layer = layer(device, Epilogue::NONE);
    let [mut weight, mut bias] =
        [[0.5f32, -1.0], [0.25, 2.0]].map(|values| device.upload(&[2], &values).unwrap());
    layer.set_parameter_tensors(weight.handle(), bias.handle()).unwrap();
    for parameters in [[[0.5, -1.0], [0.25, 2.0]], [[2.0, 0.125], [0.0, -1.0]]] {
        weight.write(&parameters[0]).unwrap();
        bias.write(&parameters[1]).unwrap();
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let mut fresh = self::layer(device, Epilogue::NONE);
        fresh.set_parameters(Some(&parameters[0]), Some(&parameters[1])).unwrap();
        let expected = block_on(fresh.forward_train(&x)).unwrap().output;
        assert_eq!(bits(&[values(&forward.output)]), bits(&[values(&expected)]));
        block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
        weight.write(&parameters[0]).unwrap();
        let refused = block_on(layer.backward(&forward.saved, Backward::of(&x, &g)));
        assert_not_saved(refused, "weight or bias", "parameters were set since; run forward again");
    }
}
