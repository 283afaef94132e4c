//! Each of the ways of a GPU: quads and single values, windows of tensors beyond one binding,
//! inputs and outputs in one buffer.

use pollster::block_on;
use syncbn::device::FastPaths;
use syncbn::{Device, DoubleBackward, Layout};

use super::LAYOUTS;
use super::common::epilogue::problem::{EPILOGUES, Problem, Uses};
use super::common::storage::{DTYPES, Types};
use super::common::*;
use super::double::{Case, Found};

/// Several windows: whole samples or runs of values, an odd number of samples, long rows, short
/// rows, a matrix.
const SHAPES: [&[usize]; 4] = [&[201, 5, 301], &[41, 2, 3_001], &[4_801, 9, 7], &[9_001, 36]];
/// Bytes of a binding that holds several samples of these.
const FEW: u64 = 384 << 10;

fn on(case: &Case, device: &Device, layout: Layout, uses: Uses) -> Found {
    let layer = case.problem.layer(vec![device.clone(); case.problem.x.len()]);
    case.found(&case.call(&layer, layout, uses).unwrap())
}

fn cases() -> impl Iterator<Item = (Case, Layout)> {
    let of_shape = |(i, dims): (usize, &'static [usize])| {
        DTYPES.into_iter().enumerate().map(move |(j, dtype)| {
            let seed = (3 * i + j) as u64;
            let types = [Types { x: dtype, other: dtype }];
            let epilogue = EPILOGUES[(3 * i + j) % EPILOGUES.len()];
            let dims = [dims.to_vec()];
            let problem = Problem::random(&dims, &types, epilogue, [true, true], seed);
            let masked = problem.config.clone().with_activation_mask(seed.is_multiple_of(2));
            (Case::new(Problem { config: masked, ..problem }, seed), LAYOUTS[(i + j) % 2])
        })
    };
    SHAPES.into_iter().enumerate().flat_map(of_shape)
}

#[test]
fn windows_do_not_change_a_bit() {
    let (device, queue) = own_device(&adapter(), |limits| {
        limits.max_storage_buffer_binding_size = FEW;
    });
    let small = Device::from_wgpu(device, queue).unwrap();
    let (device, queue) = own_device(&adapter(), |_| {});
    let whole = Device::from_wgpu(device, queue).unwrap();
    for (case, layout) in cases() {
        for uses in Uses::ALL {
            let found = on(&case, &small, layout, uses);
            let what = format!("{layout:?}, {uses:?}, {:?}", case.problem.x[0].dims);
            assert_eq!(found, on(&case, &whole, layout, uses), "{what}");
            case.compare(uses, &found).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn every_fast_path_follows_the_definition() {
    let ways = [FastPaths::ALL, FastPaths::ALL.with_quads(false), FastPaths::NONE];
    let ways = ways.map(|paths| block_on(Device::from_adapter_with(&adapter(), paths)).unwrap());
    for (case, layout) in cases() {
        for way in &ways {
            let found = on(&case, way, layout, Uses::Group);
            let what = format!("{:?}, {layout:?}, {:?}", way.fast_paths(), case.problem.x[0].dims);
            case.compare(Uses::Group, &found).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn slices_of_one_buffer_give_the_same_bits() {
    let (device, queue) = own_device(&adapter(), |_| {});
    let handle = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
    let dims = [6, 4, 32];
    let case = Case::new(Problem::plain(&[dims.to_vec()], EPILOGUES[1], 3), 3);
    let expected = on(&case, &handle, Layout::ChannelsFirst, Uses::Group);
    let v = &case.v.as_ref().unwrap()[0];
    let values = [&case.problem.x[0].values, &case.problem.g[0].values, &v.values];
    let stride = 4 * values[0].len() as u64;
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 3 * stride,
        usage,
        mapped_at_creation: false,
    });
    let slices: Vec<_> = (0..3)
        .map(|slot| {
            let values = bytemuck::cast_slice(values[slot as usize]);
            queue.write_buffer(&buffer, slot * stride, values);
            handle.wrap(buffer.clone(), slot * stride, &dims).unwrap()
        })
        .collect();
    let layer = case.problem.layer(vec![handle.clone()]);
    let saved = block_on(layer.forward_train(&slices[0])).unwrap().saved;
    let vector = |of: &Option<Vec<Vec<f32>>>| {
        let values = &of.as_ref().unwrap()[0];
        handle.upload(&[values.len()], values).unwrap()
    };
    let u = vector(&case.u);
    let q = vector(&case.q);
    let request = DoubleBackward::of(&slices[0], &slices[1])
        .input_cotangent(&slices[2])
        .weight_cotangent(&u)
        .bias_cotangent(&q);
    let second = block_on(layer.double_backward(&saved, request)).unwrap();
    assert_eq!(read(&[second.input]), expected.inputs);
    assert_eq!(read(&[second.grad_output]), expected.grad_outputs);
    assert_eq!(Some(read(&[second.weight.unwrap()])), expected.weights);
}
