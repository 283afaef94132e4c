//! Errors of storage that the comparison must catch, beside the right thing that it must let pass.

use half::{bf16, f16};
use syncbn::{DType, Device, Layout, low_level::Epilogue};

use super::bounds::Expected;
use super::common::*;
use super::problem::{Pass, Problem, Uses};
use super::shapes::Kind;
use super::stored::*;

/// A problem, its definition in training, and what the host found with outputs in f32 before they
/// are stored as `dtype`.
fn unrounded(dtype: DType) -> (Problem, Expected, Pass) {
    let types = Types { x: dtype, other: dtype };
    let problem =
        Problem::random(&Kind::Odd.dims(4, 5300), &[types], Epilogue::NONE, [true, true], 5300);
    let expected = Expected::of(&problem, Uses::Group);
    let mut wide = problem.clone();
    // An f16 or bf16 is an f32 with the same value.
    wide.types.fill(Types { x: DType::F32, other: DType::F32 });
    let layouts = Layouts { x: Layout::ChannelsFirst, g: Layout::ChannelsFirst };
    let [_, (_, found)] = wide.run(vec![Device::host(); 3], &[layouts]).unwrap();
    (problem, expected, found)
}

fn map(values: &mut [Vec<f32>], change: impl Fn(f32) -> f32) {
    values.iter_mut().flatten().for_each(|value| *value = change(*value));
}

fn stored(mut found: Pass, dtype: DType) -> Pass {
    map(&mut found.y, |y| rounded(y, dtype));
    map(&mut found.grad_inputs, |dx| rounded(dx, dtype));
    found
}

/// Towards 0.
fn truncated(value: f32, dtype: DType) -> f32 {
    let nearest = rounded(value, dtype);
    if nearest.abs() <= value.abs() {
        return nearest;
    }
    match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_bits(f16::from_f32(value).to_bits() - 1).to_f32(),
        DType::BF16 => bf16::from_bits(bf16::from_f32(value).to_bits() - 1).to_f32(),
    }
}

#[test]
fn the_nearest_values_pass_and_truncated_ones_or_the_other_type_s_are_caught() {
    for dtype in [DType::F16, DType::BF16] {
        let (problem, expected, found) = unrounded(dtype);
        expected.compare(&problem, &stored(found.clone(), dtype)).unwrap();

        let mut short = stored(found.clone(), dtype);
        short.y = found.y.clone();
        map(&mut short.y, |y| truncated(y, dtype));
        expected.compare(&problem, &short).unwrap_err();

        let mut short = stored(found.clone(), dtype);
        short.grad_inputs = found.grad_inputs.clone();
        map(&mut short.grad_inputs, |dx| truncated(dx, dtype));
        expected.compare(&problem, &short).unwrap_err();
    }
    // bf16 has 3 bits less than f16.
    let (problem, expected, found) = unrounded(DType::F16);
    expected.compare(&problem, &stored(found, DType::BF16)).unwrap_err();
}

#[test]
fn twice_what_is_allowed_is_caught_at_every_value() {
    for dtype in DTYPES {
        let (problem, expected, found) = unrounded(dtype);
        let right = stored(found, dtype);
        for rank in 0..3 {
            for index in 0..right.y[rank].len() {
                let mut wrong = right.clone();
                // Three times, of which the stored value itself may have used one.
                wrong.y[rank][index] += 3.0 * expected.allowed_y(&problem, rank, index) as f32;
                expected.compare(&problem, &wrong).unwrap_err();
            }
        }
    }
}

#[test]
fn values_of_another_layout_and_swapped_halves_of_a_word_are_caught() {
    for dtype in DTYPES {
        let (problem, expected, found) = unrounded(dtype);
        let right = stored(found, dtype);
        let device = Device::host();
        let mut wrong = right.clone();
        for (values, batch) in wrong.y.iter_mut().zip(&problem.x) {
            let as_first = Batch { dims: batch.dims.clone(), values: values.clone() };
            let tensor = upload_as(&device, &as_first, dtype, Layout::ChannelsLast);
            *values = pollster::block_on(tensor.to_vec()).unwrap();
        }
        expected.compare(&problem, &wrong).unwrap_err();

        let mut wrong = right;
        wrong.grad_inputs[0]
            .as_chunks_mut()
            .0
            .iter_mut()
            .for_each(|pair: &mut [f32; 2]| pair.swap(0, 1));
        expected.compare(&problem, &wrong).unwrap_err();
    }
}

#[test]
fn reading_back_undoes_the_layout_of_an_upload() {
    let batch = Batch::new(&[2, 3, 2, 5], |index| index as f32);
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        for dtype in DTYPES {
            assert_eq!(
                read_as(&upload_as(&Device::host(), &batch, dtype, layout), &batch),
                batch.values
            );
        }
    }
    // (n, c, h, w) = (1, 2, 0, 3) lies at (1, 0, 3, 2) of 2 × 2 × 5 × 3.
    let bytes = bytes_of(&batch, DType::F32, Layout::ChannelsLast);
    let stored: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    assert_eq!(stored[(2 * 5 + 3) * 3 + 2], batch.values[(3 + 2) * 10 + 3]);
    assert_eq!(dims_in(Layout::ChannelsLast, &batch.dims), [2, 2, 5, 3]);
}
