//! The faster ways of a GPU beside the portable one, on the same inputs: both follow the
//! definition, and they are two.

use pollster::block_on;
use syncbn::low_level::plan::{Activation, DeviceCaps, SumsPlan};
use syncbn::low_level::shaders::Elements;
use syncbn::{DType, Device, Layout, device::FastPaths, low_level::Shape};

use super::bounds::Expected;
use super::common::adapter;
use super::devices::{native, portable};
use super::problem::{EPILOGUES, Problem, Uses};
use super::stored::{Layouts, Types};
use super::{AFFINE, common};

/// A GPU that takes these of its ways.
fn device(paths: FastPaths) -> Device {
    block_on(Device::from_adapter_with(&adapter(), paths)).expect("a device")
}

/// Shapes that go by fours in one layout or the other: several tiles of a channel, of which the
/// last is not whole; few values of many channels; no position but one; a rank without values.
fn shapes() -> [Vec<Vec<usize>>; 4] {
    [
        vec![vec![9, 4, 44, 52], vec![2, 4, 6, 6], vec![1, 4, 2, 2]],
        vec![vec![3, 132, 2, 2], vec![5, 132, 4, 4], vec![1, 132, 1, 4]],
        vec![vec![700, 12], vec![33, 12], vec![5, 12]],
        vec![vec![4, 8, 12], vec![0, 8, 12], vec![7, 8, 20]],
    ]
}

#[test]
fn quads_and_single_values_both_follow_the_definition_on_the_same_inputs() {
    let ways =
        [device(FastPaths::ALL), device(FastPaths::ALL.with_quads(false)), device(FastPaths::NONE)];
    let mut seed = 0;
    for (number, epilogue) in EPILOGUES.into_iter().enumerate() {
        for (kind, types) in Types::all().into_iter().enumerate() {
            for (form, layouts) in Layouts::all().into_iter().enumerate() {
                // Of the layouts, half in each turn: each type meets all, and so does each
                // epilogue.
                if !(number + kind + form).is_multiple_of(2) {
                    continue;
                }
                let dims = &shapes()[seed % 4];
                let plain = Problem::random(
                    dims,
                    &[types],
                    epilogue,
                    AFFINE[seed % AFFINE.len()],
                    seed as u64,
                );
                // What reads one value at a time keeps no mask of a 16-bit input with an f32
                // output.
                let has_mask =
                    seed % 3 == 0 && (types.x == DType::F32 || types.other != DType::F32);
                let config = plain.config.clone().with_activation_mask(has_mask);
                let problem = Problem { config, ..plain };
                let expected = Uses::ALL.map(|uses| Expected::of(&problem, uses));
                for way in &ways {
                    let what = format!(
                        "seed {seed}: {epilogue:?}, {types:?}, {layouts:?}, {:?}",
                        way.fast_paths()
                    );
                    let passes =
                        problem.run(vec![way.clone(); 3], &[layouts]).expect("three ranks");
                    for ((_, pass), expected) in passes.iter().zip(&expected) {
                        expected
                            .compare(&problem, pass)
                            .unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
                    }
                }
                seed += 1;
            }
        }
    }
}

#[test]
fn merging_within_subgroups_gives_the_bits_of_merging_in_memory() {
    assert!(
        adapter().features().contains(wgpu::Features::SUBGROUP),
        "the software driver has subgroups"
    );
    for paths in [FastPaths::ALL, FastPaths::ALL.with_quads(false)] {
        let [with, without] = [paths, paths.with_subgroups(false)].map(device);
        for seed in 0..40 {
            // Tiles of every number of lanes, full and not, single values and quads.
            let mut random = common::Random::new(9000 + seed);
            let mut below = |end: usize| random.below(end);
            let channels = 1 + below(7);
            let most = [3, 40, 700, 9_000, 70_000][seed as usize % 5];
            let mut types = Types::all()[0];
            let mut dims: Vec<_> =
                (0..3).map(|_| vec![1 + below(3), channels, 4 * (1 + below(most) / 4)]).collect();
            // Planes of odd sizes, by the quads that cover them.
            if seed % 4 == 1 {
                types = Types { x: DType::F16, other: DType::F16 };
                dims = (0..3).map(|_| vec![4, channels, 13 + below(most)]).collect();
            }
            let dims = if seed % 3 == 0 {
                dims.iter().map(|d| vec![d[0] * d[2], channels]).collect()
            } else {
                dims
            };
            let problem =
                Problem::random(&dims, &[types], EPILOGUES[seed as usize % 8], [true, true], seed);
            let layouts = Layouts::all()[seed as usize % 4];
            let run =
                |on: &Device| problem.run(vec![on.clone(); 3], &[layouts]).expect("three ranks");
            for ((uses, found), (_, expected)) in run(&with).iter().zip(&run(&without)) {
                assert_eq!(
                    found.bits(),
                    expected.bits(),
                    "seed {seed}, {paths:?}, {layouts:?}, {uses:?}: {dims:?}"
                );
            }
        }
    }
}

#[test]
fn subgroups_are_used_where_four_rows_are_neighbours_and_the_device_has_them() {
    let merges = |dims: &[usize], layout, subgroups| {
        let shape = Shape::new(dims, layout).expect("a shape");
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let caps = DeviceCaps { subgroups, ..DeviceCaps::PORTABLE };
        SumsPlan::statistics(x, &caps).expect("a plan").expect("values").partials[0]
            .variant
            .needs_subgroups()
    };
    for dims in [[32, 128, 28, 28], [32, 2048, 7, 7], [8, 16, 8, 8]] {
        assert!(merges(&dims, Layout::ChannelsFirst, true), "{dims:?}");
        assert!(!merges(&dims, Layout::ChannelsFirst, false), "{dims:?}");
    }
    // Neighbours are other channels here.
    assert!(!merges(&[32, 28, 28, 128], Layout::ChannelsLast, true));
}

#[test]
fn a_device_takes_every_way_that_it_has_unless_told_otherwise() {
    let ways = |device: &Device| device.fast_paths().expect("a GPU");
    let has_subgroups = common::adapter().features().contains(wgpu::Features::SUBGROUP);
    assert_eq!(ways(native()), FastPaths::default().with_subgroups(has_subgroups));
    assert_eq!(ways(portable()), FastPaths::ALL.with_native_f16(false).with_subgroups(false));
    assert_eq!(ways(&device(FastPaths::NONE)), FastPaths::NONE);
    assert_eq!(Device::host().fast_paths(), None);
}

#[test]
fn the_shapes_of_these_tests_have_kernels_of_both_kinds() {
    // Otherwise they compare one kernel with itself.
    for dims in shapes() {
        let found = [Layout::ChannelsFirst, Layout::ChannelsLast].map(|layout| {
            let shape =
                Shape::new(&super::stored::dims_in(layout, &dims[0]), layout).expect("a shape");
            let quads = |quads| {
                let caps = DeviceCaps { quads, ..DeviceCaps::PORTABLE };
                let x = Activation { shape: &shape, dtype: DType::F32 };
                SumsPlan::statistics(x, &caps).expect("a plan").expect("values").partials[0]
                    .variant
                    .kernel
                    .elements()
                    != Elements::Single
            };
            assert!(!quads(false));
            quads(true)
        });
        assert!(found.contains(&true), "{dims:?}");
    }
}
