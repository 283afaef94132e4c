//! Storage types and layouts that do not go together: typed errors that name the argument and both
//! sides.

use half::{bf16, f16};
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNormConfig, DType, Device, Error, Forward, Gradients, Layout, Saved,
    SyncBatchNorm, Tensor, error::ArgumentError,
};

use super::common::*;
use super::devices::{On, portable};
use super::stored::*;

const CHANNELS: usize = 3;

fn batch() -> Batch {
    Batch::random(&[4, CHANNELS, 5], &mut Random::new(5400))
}

/// A layer of two ranks.
struct Ranks {
    layer: SyncBatchNorm,
}

impl Ranks {
    fn new(on: On) -> Self {
        let config = BatchNormConfig::torch(CHANNELS);
        Self { layer: SyncBatchNorm::new(config, on.devices(2)).unwrap() }
    }

    /// A tensor per rank, the second in a type and layout of its own.
    fn tensors(&self, dtype: DType, second: (DType, Layout)) -> [Tensor; 2] {
        let stored = [(dtype, Layout::ChannelsFirst), second];
        [0, 1].map(|rank| {
            upload_as(&self.layer.devices()[rank], &batch(), stored[rank].0, stored[rank].1)
        })
    }

    fn alike(&self, dtype: DType) -> [Tensor; 2] {
        self.tensors(dtype, (dtype, Layout::ChannelsFirst))
    }

    fn trained(&self, inputs: &[Tensor]) -> Saved {
        block_on(self.layer.forward_train(inputs)).unwrap().saved
    }

    /// The running statistics have not moved.
    fn assert_unchanged(&self) {
        assert_eq!(self.layer.running_stats(), Some(RunningStats::new(CHANNELS)));
    }
}

/// What an error of storage types says.
fn dtype_error(argument: &str, found: DType, expected: &str) -> Error {
    Error::Argument(ArgumentError::DType {
        argument: argument.into(),
        found,
        expected: expected.into(),
    })
}

fn assert_names(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in {message:?}");
    }
}

const EACH: [On; 3] = [On::Portable, On::Host, On::Mixed];

#[test]
fn one_call_has_one_16_bit_type() {
    for on in EACH {
        for types in Types::pairs().filter(|types| !types.is_supported()) {
            let ranks = Ranks::new(on);
            let inputs = ranks.alike(types.x);
            let before = bits(&read(&inputs));
            let expected = format!("{} or f32, as x is {}", types.x, types.x);

            let mut outputs = ranks.tensors(types.x, (types.other, Layout::ChannelsFirst));
            let values = bits(&read(&outputs));
            for mode in ["train", "eval"] {
                let error = match mode {
                    "train" => block_on(
                        ranks.layer.forward_train(Forward::of(&inputs).write_to(&mut outputs)),
                    )
                    .unwrap_err(),
                    _ => block_on(
                        ranks.layer.forward_eval(Forward::of(&inputs).write_to(&mut outputs)),
                    )
                    .unwrap_err(),
                };
                assert_eq!(
                    error,
                    dtype_error("output[1]", types.other, &expected),
                    "{on:?}, {mode}"
                );
                assert_names(
                    &error,
                    &["output[1]", &types.x.to_string(), &types.other.to_string()],
                );
            }
            assert_eq!(bits(&read(&outputs)), values);
            ranks.assert_unchanged();

            let saved = ranks.trained(&inputs);
            let grad_outputs = ranks.tensors(types.x, (types.other, Layout::ChannelsFirst));
            let error =
                block_on(ranks.layer.backward(&saved, Backward::of(&inputs, &grad_outputs)))
                    .unwrap_err();
            assert_eq!(error, dtype_error("grad_output[1]", types.other, &expected), "{on:?}");
            assert_eq!(bits(&read(&inputs)), before);
        }
    }
}

#[test]
fn the_gradient_of_the_input_is_stored_as_the_input() {
    for on in EACH {
        for types in Types::pairs().filter(|types| types.x != types.other) {
            let ranks = Ranks::new(on);
            let inputs = ranks.alike(types.x);
            let saved = ranks.trained(&inputs);
            let grad_outputs = ranks.alike(types.x);
            let mut grad_inputs = ranks.tensors(types.x, (types.other, Layout::ChannelsFirst));
            let values = bits(&read(&grad_inputs));
            let request = Backward::of(&inputs, &grad_outputs).input_gradient(&mut grad_inputs);
            let error = block_on(ranks.layer.backward(&saved, request)).unwrap_err();
            assert_eq!(
                error,
                dtype_error("input_gradient[1]", types.other, &format!("{}, as x is", types.x)),
                "{on:?}"
            );
            assert_names(
                &error,
                &["input_gradient[1]", &types.x.to_string(), &types.other.to_string()],
            );
            assert_eq!(bits(&read(&grad_inputs)), values);
        }
    }
}

#[test]
fn outputs_and_gradients_of_inputs_have_the_layout_of_their_inputs() {
    let both = [Layout::ChannelsFirst, Layout::ChannelsLast];
    for on in EACH {
        for dtype in DTYPES {
            for [found, expected] in [both, [both[1], both[0]]] {
                let ranks = Ranks::new(on);
                // Positions and channels of the same number, so that dimensions do not tell the
                // layouts apart.
                let square = Batch::random(&[4, CHANNELS, CHANNELS], &mut Random::new(5401));
                let stored = |layouts: [Layout; 2]| {
                    [0, 1].map(|rank| {
                        upload_as(&ranks.layer.devices()[rank], &square, dtype, layouts[rank])
                    })
                };
                let inputs = stored([expected; 2]);
                let grad_outputs = stored([found; 2]);
                let mut outputs = stored([expected, found]);
                let mut grad_inputs = stored([expected, found]);
                let layout_error = |argument| {
                    Error::Argument(ArgumentError::Layout {
                        argument,
                        rank: Some(1),
                        found,
                        expected,
                    })
                };
                let error = block_on(
                    ranks.layer.forward_train(Forward::of(&inputs).write_to(&mut outputs)),
                )
                .unwrap_err();
                assert_eq!(error, layout_error("output"), "{on:?}");
                assert_names(
                    &error,
                    &["output[1]", &format!("{found:?}"), &format!("{expected:?}")],
                );
                ranks.assert_unchanged();

                let saved = ranks.trained(&inputs);
                let request = Backward::of(&inputs, &grad_outputs).input_gradient(&mut grad_inputs);
                let error = block_on(ranks.layer.backward(&saved, request)).unwrap_err();
                assert_eq!(error, layout_error("input_gradient"), "{on:?}");
                // The upstream gradient's layout is its own affair.
                block_on(ranks.layer.backward(&saved, Backward::of(&inputs, &grad_outputs)))
                    .unwrap();
            }
        }
    }
}

#[test]
fn dimensions_are_read_in_the_layout_of_their_tensor() {
    for on in EACH {
        let ranks = Ranks::new(on);
        // (4, 3, 5) channels last has 5 channels.
        let inputs = ranks.alike(DType::F16).map(|tensor| tensor.with_layout(Layout::ChannelsLast));
        let error = block_on(ranks.layer.forward_train(&inputs)).unwrap_err();
        let dims = vec![4, CHANNELS, 5];
        let channels = ArgumentError::Channels {
            argument: "x",
            rank: Some(0),
            dims,
            found: 5,
            expected: CHANNELS,
        };
        assert_eq!(error, Error::Argument(channels), "{on:?}");
    }
}

#[test]
fn saved_inputs_are_recognized_by_their_storage_type_and_layout() {
    let (device, queue) = own_device(&adapter(), |_| {});
    let page = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1024,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let device = Device::from_wgpu(device, queue).unwrap();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()]).unwrap();
    let dims = [4, CHANNELS, CHANNELS];
    let wrapped =
        |dtype, layout| device.wrap_as(page.clone(), 0, &dims, dtype).unwrap().with_layout(layout);
    let saved =
        block_on(layer.forward_train(&wrapped(DType::F16, Layout::ChannelsFirst))).unwrap().saved;
    let backward = |dtype, layout| -> Result<Gradients, Error> {
        let g = device.zeros(&dims).unwrap();
        block_on(layer.backward(&saved, Backward::of(&wrapped(dtype, layout), &g)))
    };
    backward(DType::F16, Layout::ChannelsFirst).unwrap();
    for (dtype, layout) in
        [(DType::BF16, Layout::ChannelsFirst), (DType::F16, Layout::ChannelsLast)]
    {
        let error = backward(dtype, layout).unwrap_err();
        assert!(
            matches!(error, Error::Argument(ArgumentError::NotSaved { .. })),
            "{dtype}, {layout:?}: {error:?}"
        );
    }
}

#[test]
fn values_are_written_and_read_as_they_are_stored() {
    for device in [portable().clone(), Device::host()] {
        let mut tensor = device.upload(&[1, 3], &[1.0, 2.0, 3.0].map(f16::from_f32)).unwrap();
        let error = tensor.write(&[1f32; 3]).unwrap_err();
        assert_eq!(error, dtype_error("values", DType::F32, "f16"));
        let error = block_on(tensor.to_vec_of::<bf16>()).unwrap_err();
        let asked = "bf16, as to_vec_of was asked for; to_vec widens";
        assert_eq!(error, dtype_error("the tensor", DType::F16, asked));
        assert_eq!(block_on(tensor.to_vec()).unwrap(), [1.0, 2.0, 3.0]);
        tensor.write(&[4.0, 5.0, 6.0].map(f16::from_f32)).unwrap();
        assert_eq!(
            block_on(tensor.to_vec_of::<f16>()).unwrap(),
            [4.0, 5.0, 6.0].map(f16::from_f32)
        );
        assert_eq!((tensor.dtype(), tensor.element_count()), (DType::F16, 3));
    }
}

#[test]
fn parameters_are_f32() {
    for on in EACH {
        for dtype in [DType::F16, DType::BF16] {
            let mut ranks = Ranks::new(on);
            let vectors = |dtypes: [DType; 2]| {
                let zeros = |rank: usize| {
                    ranks.layer.devices()[rank].zeros_of(&[CHANNELS], dtypes[rank]).unwrap()
                };
                Vec::from([0, 1].map(zeros))
            };
            let right = || vectors([DType::F32; 2]);
            let wrong = || vectors([DType::F32, dtype]);
            let cases = [("weight[1]", wrong(), Vec::new()), ("bias[1]", right(), wrong())];
            for (argument, weights, biases) in cases {
                let error = ranks.layer.set_parameter_tensors(weights, biases).unwrap_err();
                assert_eq!(error, dtype_error(argument, dtype, "f32"), "{on:?}");
            }
        }
    }
}

#[test]
fn gradients_of_parameters_are_f32_and_refused_before_anything_is_written() {
    for on in EACH {
        for dtype in [DType::F16, DType::BF16] {
            let ranks = Ranks::new(on);
            let inputs = ranks.alike(DType::F32);
            let saved = ranks.trained(&inputs);
            for argument in ["weight_gradient[1]", "bias_gradient[1]"] {
                let mut grad_inputs = ranks.alike(DType::F32);
                let before = bits(&read(&grad_inputs));
                let vector = |rank: usize| {
                    let dtype = if rank == 1 { dtype } else { DType::F32 };
                    ranks.layer.devices()[rank].zeros_of(&[CHANNELS], dtype).unwrap()
                };
                let mut vectors = [0, 1].map(vector);
                let request = Backward::of(&inputs, &inputs).input_gradient(&mut grad_inputs);
                let request = match argument {
                    "weight_gradient[1]" => request.weight_gradient(&mut vectors),
                    _ => request.bias_gradient(&mut vectors),
                };
                let error = block_on(ranks.layer.backward(&saved, request)).unwrap_err();
                assert_eq!(error, dtype_error(argument, dtype, "f32"), "{on:?}");
                assert_eq!(bits(&read(&grad_inputs)), before, "{on:?}: written before the refusal");
            }
        }
    }
}
