//! Plans as plain data: covering, windows, limits, without a GPU.

use super::grid::Grid;
use super::window::windows;
use super::*;
use crate::shaders::{Elements, SUMMED_PER_LANE, WORKGROUP_SIZE};
use crate::shape::Layout::{self, ChannelsFirst, ChannelsLast};

fn f32s(shape: &Shape) -> Activation<'_> {
    Activation { shape, dtype: DType::F32 }
}

/// The grid of single values.
fn singles(shape: &Shape) -> Grid {
    Grid::new(f32s(shape), shape, &DeviceCaps { quads: false, ..DeviceCaps::PORTABLE })
}

fn stats(dims: &[usize]) -> SumsPlan {
    let shape = Shape::new(dims, ChannelsFirst).expect("a valid shape");
    SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE)
        .expect("within the limits")
        .expect("not empty")
}

#[test]
fn a_channel_of_one_tile_needs_no_combination_and_no_scratch() {
    let plan = stats(&[4, 8, 32, 32]);
    assert_eq!((plan.combine.is_none(), plan.tiles_bytes, plan.local_bytes), (true, 0, 128));
}

#[test]
fn tiles_cover_every_value_exactly_once() {
    for dims in [[2, 3, 50_000], [7, 70_001, 1], [4096, 3, 1], [1, 1, 1], [33, 5, 7], [1, 2, 4097]]
    {
        let shape = Shape::new(&dims, ChannelsFirst).expect("a valid shape");
        let partition = Partition::new(&singles(&shape), 4);
        let values = u64::from(partition.tile_values());
        assert!(partition.tiles * values >= partition.values, "{dims:?}: {partition:?}");
        assert!((partition.tiles - 1) * values < partition.values, "{dims:?}: {partition:?}");
        assert!(
            partition.blocks * u64::from(256 / partition.lanes_per_tile) >= shape.channels() as u64,
            "{dims:?}"
        );
    }
}

#[test]
fn more_workgroups_than_one_dimension_holds_go_to_the_second() {
    let shape = Shape::new(&[3, 301, 5_001], ChannelsFirst).expect("a valid shape");
    let caps = DeviceCaps { max_workgroups: 100, ..DeviceCaps::PORTABLE };
    let plan =
        SumsPlan::statistics(f32s(&shape), &caps).expect("within the limits").expect("not empty");
    // Four tiles of each channel.
    assert_eq!(plan.partials[0].workgroups, [93, 13]);
    let caps = DeviceCaps { max_workgroups: 10, ..DeviceCaps::PORTABLE };
    assert_eq!(caps.workgroups(95, &[]), Ok([10, 10]));
    assert_eq!(
        caps.workgroups(101, &[1]),
        Err(LimitError::Workgroups { dims: vec![1], found: 101, allowed: 100 })
    );
}

#[test]
fn an_empty_batch_plans_nothing() {
    let shape = Shape::new(&[0, 3, 5], ChannelsFirst).expect("a valid shape");
    assert_eq!(SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE), Ok(None));
    assert_eq!(
        ApplyPlan::normalize(
            f32s(&shape),
            DType::F32,
            &DeviceCaps::PORTABLE,
            LayerFlags::default(),
            false
        ),
        Ok(None)
    );
}

/// The address in x, counted from where the window is bound, of value `at` of a tile, as the
/// kernel's walk forms it.
fn walked(params: &TileParams, values_per_lane: u32, tile: u32, channel: u32, at: u32) -> u32 {
    let start =
        (tile % params.segment_tiles) * params.lanes_per_tile * values_per_lane + params.start + at;
    let sample = tile / params.segment_tiles + start / params.inner;
    let terms = [
        params.x_origin,
        sample.wrapping_mul(params.x_sample),
        channel.wrapping_mul(params.x_channel),
        (start % params.inner).wrapping_mul(params.x_inner),
    ];
    terms.into_iter().fold(0, u32::wrapping_add)
}

/// Checks windows of one shape, (N, C, spatial…): every tile of every channel is in one window,
/// which binds all of its memory, and the walk finds it there.
fn check_windows(dims: &[usize], layout: Layout, binding_bytes: u64) -> usize {
    let of = |quads, written| check_windows_of(dims, layout, binding_bytes, quads, written);
    of(false, false).max(of(false, true)).max(of(true, false))
}

fn check_windows_of(
    dims: &[usize],
    layout: Layout,
    binding_bytes: u64,
    quads: bool,
    written: bool,
) -> usize {
    let mut dims = dims.to_vec();
    if layout == ChannelsLast {
        dims[1..].rotate_left(1);
    }
    let shape = Shape::new(&dims, layout).expect("a valid shape");
    let (caps, channels) = (DeviceCaps { quads, ..DeviceCaps::PORTABLE }, shape.channels());
    let grid = Grid::new(f32s(&shape), &shape, &caps);
    let partition = Partition::new(&grid, 4);
    let partition = if written { partition.written(&grid) } else { partition };
    let (shape, unit_bytes) = (grid.shape.clone(), 4 * grid.unit);
    let capacity = capacity(binding_bytes, unit_bytes, shape.elements());
    let windows = windows(&partition, &grid, capacity, 65_535 * 65_535)
        .unwrap_or_else(|| panic!("{dims:?} {layout:?} {partition:?} {capacity}: no tile fits"));
    let (strides, inner) = (shape.strides(), shape.spatial_len() as u64);
    let mut covered = 0;
    for window in &windows {
        let what = format!("{dims:?} {layout:?} {partition:?} {window:?}");
        covered += (window.tiles.end - window.tiles.start) as u128
            * (window.channels.end - window.channels.start) as u128;
        let span = &window.span.elements;
        assert!(
            span.start % 256 == 0
                && (span.end - span.start) * unit_bytes <= binding_bytes
                && span.end <= shape.elements(),
            "{what}"
        );
        let params = partition.tile_params(window, &grid, channels);
        for tile in
            [window.tiles.start, (window.tiles.start + window.tiles.end) / 2, window.tiles.end - 1]
        {
            let (segment, in_segment) =
                (tile / partition.segment_tiles, tile % partition.segment_tiles);
            let first = segment * partition.segment_values
                + in_segment * u64::from(partition.tile_values());
            let count = u64::from(partition.tile_values())
                .min((segment + 1) * partition.segment_values - first);
            let local = (tile - window.tiles.start) as u32;
            let is_last = local % params.segment_tiles + 1 == params.segment_tiles;
            assert_eq!(
                if is_last {
                    params.last_values
                } else {
                    params.lanes_per_tile * partition.values_per_lane
                },
                count as u32,
                "{what}"
            );
            for (at, channel) in [
                (0, window.channels.start),
                (count - 1, window.channels.end - 1),
                (count / 2, window.channels.start),
            ] {
                let (sample, position) = ((first + at) / inner, (first + at) % inner);
                let address = sample * strides.sample as u64
                    + channel * strides.channel as u64
                    + position * strides.inner as u64;
                assert!(span.contains(&address), "{what}: {address}");
                assert_eq!(
                    u64::from(walked(
                        &params,
                        partition.values_per_lane,
                        local,
                        channel as u32,
                        at as u32
                    )),
                    address - span.start,
                    "{what}"
                );
            }
        }
    }
    assert_eq!(covered, partition.tiles as u128 * shape.channels() as u128, "{dims:?} {layout:?}");
    // In the order of tiles, none of a channel twice.
    assert!(windows.windows(2).all(|pair| pair[0].tiles.end <= pair[1].tiles.start
        || pair[0].channels.end <= pair[1].channels.start));
    windows.len()
}

#[test]
fn windows_hold_every_tile_once_with_all_its_memory_up_to_two_to_the_forty_elements() {
    const PORTABLE: u64 = 128 << 20;
    let one: &[&[usize]] = &[&[2, 3, 50_000], &[1, 1, 1], &[7, 70_001, 1], &[32, 64, 112, 112]];
    for dims in one {
        for layout in [ChannelsFirst, ChannelsLast] {
            assert_eq!(check_windows(dims, layout, PORTABLE), 1, "{dims:?}");
        }
    }
    let many: &[&[usize]] = &[
        &[64, 256, 80, 80],
        &[1, 3, 1 << 25],
        &[3, 5, 10_000_019],
        &[1, 1, 536_870_911],
        &[2, 70_000, 1_001],
        &[1_000, 70_000, 3],
        &[8_191, 70_000, 1],
        &[1 << 20, 1 << 10, 1 << 10],
        &[1, 1 << 10, 1 << 30],
        &[1, 1, 1 << 40],
        &[1 << 30, 3, 341],
    ];
    for dims in many {
        for layout in [ChannelsFirst, ChannelsLast] {
            assert!(check_windows(dims, layout, PORTABLE) > 1, "{dims:?}");
        }
    }
}

#[test]
fn a_smaller_binding_cuts_more_windows_and_leaves_the_tiles_alone() {
    let shape = Shape::new(&[40, 7, 12_345], ChannelsFirst).expect("a valid shape");
    let plan = |max_binding_bytes| {
        let caps = DeviceCaps { max_binding_bytes, ..DeviceCaps::PORTABLE };
        SumsPlan::statistics(f32s(&shape), &caps).expect("within the limits").expect("not empty")
    };
    let (whole, cut) = (plan(128 << 20), plan(1 << 20));
    assert_eq!((whole.partials.len(), whole.combine.clone()), (1, cut.combine.clone()));
    assert!(cut.partials.len() > 10);
    let tiles =
        |plan: &SumsPlan| plan.partials.iter().map(|partial| partial.params.tiles).sum::<u32>();
    assert_eq!(tiles(&whole), tiles(&cut));
}

#[test]
fn a_tile_that_one_binding_cannot_span_is_refused_with_both_numbers() {
    let shape = Shape::new(&[1, 1, 1 << 20], ChannelsFirst).expect("a valid shape");
    let caps = DeviceCaps { max_binding_bytes: 16_000, ..DeviceCaps::PORTABLE };
    let refused = SumsPlan::statistics(f32s(&shape), &caps);
    let numbers = matches!(refused, Err(LimitError::Binding { found_bytes, allowed_bytes, .. })
        if found_bytes == 4 << 20 && allowed_bytes == 16_000);
    assert!(numbers, "{refused:?}");
}

#[test]
fn words_are_owned_by_one_run_and_channels_are_found_where_they_lie() {
    for (dims, layout) in [
        (&[5, 3, 7][..], ChannelsFirst),
        (&[40, 3, 1_001], ChannelsFirst),
        (&[40, 1_001, 3], ChannelsLast),
        (&[9_000, 37], ChannelsFirst),
    ] {
        let shape = Shape::new(dims, layout).expect("a valid shape");
        let runs = run::runs(&shape, 2_048).expect("words fit");
        let strides = shape.strides();
        let mut next = 0;
        for run in &runs {
            let first = run.span.elements.start;
            assert_eq!((first, first % 2, run.first_element), (next, 0, 0));
            next += u64::from(run.end_element);
            let params = run.word_params(&shape, &shape);
            for address in 0..run.end_element {
                let passed =
                    address.checked_sub(params.run_end).map_or(0, |over| 1 + over / params.run);
                let at = (first + u64::from(address)) as usize;
                let channel = (at % strides.sample) / strides.channel % shape.channels();
                assert_eq!(
                    ((params.run_channel + passed) % params.channels) as usize,
                    channel,
                    "{dims:?} {layout:?} {at}"
                );
            }
        }
        assert_eq!(next, shape.elements());
    }
}

/// Every plan of the statistics of some shapes, (N, C, spatial…), in both layouts.
fn plans_of<'a>(shapes: &'a [&[usize]]) -> impl Iterator<Item = (&'a [usize], Shape, SumsPlan)> {
    shapes.iter().flat_map(|&dims| {
        [ChannelsFirst, ChannelsLast].map(|layout| {
            let mut stored = dims.to_vec();
            if layout == ChannelsLast {
                stored[1..].rotate_left(1);
            }
            let shape = Shape::new(&stored, layout).expect("a valid shape");
            let plan = SumsPlan::statistics(f32s(&shape), &DeviceCaps::PORTABLE)
                .expect("within the limits");
            (dims, shape, plan.expect("not empty"))
        })
    })
}

#[test]
fn few_channels_of_many_values_and_many_channels_of_few_fill_a_device_alike() {
    for (dims, shape, plan) in
        plans_of(&[&[32, 3, 224, 224], &[32, 2048, 7, 7], &[4096, 1024], &[32, 128, 28, 28]])
    {
        let [x, y] = plan.partials[0].workgroups.map(u64::from);
        let unit =
            if plan.partials[0].variant.kernel.elements() != Elements::Single { 4 } else { 1 };
        let held = x * y * u64::from(WORKGROUP_SIZE) * u64::from(SUMMED_PER_LANE) * unit;
        // At most half of the invocations' registers are empty, and no workgroup takes more than
        // they hold.
        assert!(
            (shape.elements()..=2 * shape.elements()).contains(&held),
            "{dims:?}, {:?}: {held}",
            shape.strides()
        );
        assert!(x * y >= 128, "{dims:?}: {x}·{y} workgroups");
    }
}

#[test]
fn neighbouring_invocations_read_next_to_each_other_and_go_on_nearby() {
    for (dims, shape, plan) in
        plans_of(&[&[32, 128, 28, 28], &[4096, 1024], &[32, 2048, 7, 7], &[8, 64, 4096]])
    {
        let params = &plan.partials[0].params;
        let [lanes_log2, tiles_log2] = [params.lanes_per_run_log2, params.tiles_per_workgroup_log2];
        // As the kernel's walk finds them.
        let address = |invocation: u32, step: u32| {
            let in_run = invocation % (1 << lanes_log2);
            let tile_slot = (invocation >> lanes_log2) % (1 << tiles_log2);
            let lane = (invocation >> (lanes_log2 + tiles_log2) << lanes_log2) | in_run;
            let at = (lane - in_run) * params.values_per_lane + in_run + (step << lanes_log2);
            walked(params, params.values_per_lane, 0, tile_slot, at)
        };
        let what = format!("{dims:?}, {:?}: {params:?}", shape.strides());
        assert!((0..8).all(|invocation| address(invocation, 0) == invocation), "{what}");
        let step = address(0, 1);
        assert!([1 << lanes_log2, params.x_step].contains(&step), "{what}: {step}");
    }
}

#[test]
fn what_the_sums_read_last_is_written_first() {
    let shape = Shape::new(&[40, 7, 12_345], ChannelsFirst).expect("a valid shape");
    let caps = DeviceCaps { max_binding_bytes: 1 << 20, ..DeviceCaps::PORTABLE };
    let sums =
        SumsPlan::statistics(f32s(&shape), &caps).expect("within the limits").expect("not empty");
    let apply = ApplyPlan::normalize(f32s(&shape), DType::F32, &caps, LayerFlags::default(), false);
    let apply = apply.expect("within the limits").expect("not empty");
    let ends = |parts: &mut dyn Iterator<Item = &Parts>| {
        parts.map(|parts| parts.x.end).collect::<Vec<_>>()
    };
    let read = ends(&mut sums.partials.iter().map(|dispatch| &dispatch.parts));
    let written = ends(&mut apply.dispatches.iter().map(|dispatch| &dispatch.parts));
    assert!(read.is_sorted() && read.len() > 10);
    assert!(written.iter().rev().is_sorted() && written.len() > 10);
}
