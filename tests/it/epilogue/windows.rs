//! Tensors larger than one binding: walked window by window, with the bits of a device that binds
//! them whole.

use std::sync::OnceLock;

use syncbn::{DType, Device, low_level::Epilogue};

use super::common::*;
use super::devices::native;
use super::problem::{EPILOGUES, Problem};
use super::stored::{Layouts, Types};

/// A device whose bindings span so many bytes, opened once.
fn small(binding_bytes: u64) -> Device {
    static DEVICES: OnceLock<[(u64, Device); 2]> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        [FEW, MANY].map(|binding_bytes| (binding_bytes, kept(open(binding_bytes))))
    });
    let device = devices.iter().find(|(bytes, _)| *bytes == binding_bytes);
    device.expect("one of the two").1.clone()
}

fn open(binding_bytes: u64) -> Device {
    let adapter = adapter();
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: wgpu::Limits {
            max_storage_buffer_binding_size: binding_bytes,
            ..adapter.limits()
        },
        ..Default::default()
    };
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    Device::from_wgpu(device, queue).expect("a device")
}

/// Bytes of a binding that holds several samples of a tensor of a few hundred kilobytes.
const FEW: u64 = 384 << 10;
/// Bytes of a binding that holds one channel of one sample of a few megabytes.
const MANY: u64 = 8 << 20;

/// Shapes of several windows of whole samples or runs of values: an odd number of samples each,
/// long rows, short rows, a matrix, an odd number of elements a sample.
const SHAPES: [&[usize]; 5] =
    [&[201, 5, 301], &[41, 2, 3_001], &[4_801, 9, 7], &[9_001, 37], &[601, 8, 7, 7]];

#[test]
fn windows_do_not_change_a_bit() {
    let mut seed = 6000;
    for dims in SHAPES {
        for types in Types::all() {
            let epilogue = EPILOGUES[seed as usize % EPILOGUES.len()];
            let problem = Problem::random(&[dims.to_vec()], &[types], epilogue, [true, true], seed);
            assert_same(
                &problem,
                &problem,
                FEW,
                Layouts::all()[seed as usize % 4],
                &format!("seed {seed}"),
            );
            seed += 1;
        }
    }
}

#[test]
fn a_mask_of_many_windows_is_that_of_the_whole() {
    for (seed, dims) in (6500..).zip(SHAPES) {
        for types in Types::all() {
            let problem =
                Problem::random(&[dims.to_vec()], &[types], Epilogue::ADD_RELU, [true, true], seed);
            let masked = Problem {
                config: problem.config.clone().with_activation_mask(true),
                ..problem.clone()
            };
            assert_same(
                &masked,
                &problem,
                FEW,
                Layouts::all()[seed as usize % 4],
                &format!("seed {seed}"),
            );
        }
    }
}

/// Samples so large that tiles do not go on from one to the next: windows of some channels, and of
/// parts of one.
#[test]
fn windows_within_a_sample_do_not_change_a_bit() {
    let words = Types { x: DType::F16, other: DType::F16 };
    for (seed, dims) in (6600..).zip([&[2, 3, 1_400_009][..], &[1, 1, 4_300_007], &[1, 9_001, 467]])
    {
        for types in [Types::all()[0], words] {
            let problem =
                Problem::random(&[dims.to_vec()], &[types], Epilogue::ADD, [true, true], seed);
            assert_same(&problem, &problem, MANY, Layouts::all()[0], &format!("seed {seed}"));
        }
    }
}

/// Checks that `cut` on the small device has the bits of `whole` on one that binds it at once.
fn assert_same(cut: &Problem, whole: &Problem, binding_bytes: u64, layouts: Layouts, what: &str) {
    let types = cut.types[0];
    let bytes = cut.x[0].values.len() as u64 * types.x.size_bytes().max(types.other.size_bytes());
    assert!(bytes > binding_bytes, "{what}: {bytes} bytes are one window");
    let expected = whole.run(vec![native().clone()], &[layouts]).unwrap();
    let found = cut.run(vec![small(binding_bytes)], &[layouts]).unwrap();
    for ((uses, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(
            found.bits() == expected.bits(),
            "{what}: {:?}, {types:?}, {layouts:?}, {uses:?}",
            cut.x[0].dims
        );
    }
}

#[test]
fn another_layout_of_samples_beyond_one_binding_is_refused_with_both_numbers() {
    let problem = Problem::plain(&[vec![1, 3, 1_400_009]], Epilogue::NONE, 6700);
    let [first, mixed] = [Layouts::all()[0], Layouts::all()[1]];
    problem.run(vec![small(MANY)], &[first]).expect("one layout is cut into windows");
    let error = problem.run(vec![small(MANY)], &[mixed]).unwrap_err();
    assert!(
        matches!(error, syncbn::Error::Limit(syncbn::error::LimitError::Binding { .. })),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("16800108") && text.contains("8388608"), "{text}");
}
