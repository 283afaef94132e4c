//! Large means and ranks far apart where kernels take four values at a time, in both layouts, and
//! where merging them is up to subgroups or memory.

use pollster::block_on;
use syncbn::{BatchNorm, BatchNormConfig, DType, Device, Layout, SyncBatchNorm};

use super::common::normal;
use super::common::*;
use super::resident::RESIDENT_ULP;
use super::stored::{read_as, upload_as};

/// Channels and positions in fours: one tile, several tiles, and several of one position.
const SHAPES: [[&[usize]; 3]; 3] = [
    [&[8, 8, 11, 8], &[3, 8, 11, 4], &[1, 8, 4]],
    [&[4, 4, 9000], &[1, 4, 76], &[1, 4, 4]],
    [&[2001, 8, 4], &[900, 8, 4], &[0, 8, 4]],
];
const EPS: f64 = 1e-5;

/// A training step in both layouts, on each of the devices, of a layer that merges on the host and
/// of one that merges on the device.
pub fn check(name: &str, batches: &[Batch], devices: &[Device]) -> Result<(), String> {
    let expected = definition(batches, None, EPS);
    let config = || BatchNormConfig::torch(batches[0].dims[1]).with_affine(false);
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        for (number, device) in devices.iter().enumerate() {
            let failed = |error| format!("{name}, {layout:?}, device {number}: {error}");
            let inputs: Vec<_> =
                batches.iter().map(|batch| upload_as(device, batch, DType::F32, layout)).collect();
            let read = |outputs: &[syncbn::Tensor]| -> Vec<Vec<f32>> {
                outputs.iter().zip(batches).map(|(output, batch)| read_as(output, batch)).collect()
            };
            let layer = SyncBatchNorm::new(config(), vec![device.clone(); batches.len()]).unwrap();
            let forward = block_on(layer.forward_train(&inputs)).unwrap();
            compare_statistics(forward.saved.statistics().unwrap(), &expected.statistics)
                .map_err(failed)?;
            let norm = BatchNorm::new(config(), device).unwrap();
            let resident = norm.forward_train(&inputs).unwrap();
            for (outputs, allowed) in
                [(forward.output, TOLERANCE_ULP), (resident.output, RESIDENT_ULP)]
            {
                compare(batches, &read(&outputs), &expected.outputs, allowed).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// The same on every virtual GPU, whose kernels have their barriers.
fn assert_within_bounds(name: &str, batches: &[Batch]) {
    check(name, batches, virtual_gpus()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_mean_of_a_million_deviations_costs_little_by_fours() {
    for (i, dims) in SHAPES.iter().enumerate() {
        assert_within_bounds(
            &format!("mean 1e4, deviation 1e-2, {dims:?}"),
            &normal(dims, 171 + i as u64, |_, _| (1e4, 1e-2)),
        );
        assert_within_bounds(
            &format!("mean -1e6, deviation 1, {dims:?}"),
            &normal(dims, 181 + i as u64, |_, _| (-1e6, 1.0)),
        );
    }
}

#[test]
fn ranks_a_million_deviations_apart_cost_little_by_fours() {
    for (i, dims) in SHAPES.iter().enumerate() {
        let batches = normal(dims, 191 + i as u64, |rank, _| (1e6 * (rank as f64 - 1.0), 1.0));
        assert_within_bounds(&format!("ranks at -1e6, 0, 1e6, {dims:?}"), &batches);
    }
}

#[test]
fn a_constant_channel_is_exactly_0_by_fours() {
    let batches = SHAPES[0].map(|dims| Batch::new(dims, |_| 10_000.1));
    for device in virtual_gpus() {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let inputs: Vec<_> =
                batches.iter().map(|batch| upload_as(device, batch, DType::F32, layout)).collect();
            let config = BatchNormConfig::torch(8).with_affine(false);
            let layer = SyncBatchNorm::new(config, vec![device.clone(); 3]).unwrap();
            let outputs = block_on(layer.forward_train(&inputs)).unwrap().output;
            assert!(read(&outputs).concat().iter().all(|&y| y == 0.0), "{layout:?}");
        }
    }
}
