//! Plans as plain data: covering, workgroups, limits, without a GPU.

use super::grid::Grid;
use super::*;
use crate::error::LimitError;
use crate::shaders::{Elements, SUMMED_PER_LANE, WORKGROUP_SIZE};
use crate::shape::Layout::{ChannelsFirst, ChannelsLast};

pub(super) fn f32s(shape: &Shape) -> Activation<'_> {
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
pub(super) fn walked(
    params: &TileParams,
    values_per_lane: u32,
    tile: u32,
    channel: u32,
    at: u32,
) -> u32 {
    let start =
        (tile % params.segment_tiles) * params.lanes_per_tile * values_per_lane + params.start + at;
    let sample = tile / params.segment_tiles + start / params.inner;
    let terms = [
        params.x_origin,
        sample.wrapping_mul(params.x_sample),
        channel.wrapping_mul(params.x_channel),
        (start % params.inner).wrapping_mul(params.x_inner),
    ];
    let address = terms.into_iter().fold(0, u32::wrapping_add);
    // Where quads cover planes, it is that of the plane.
    if params.run > 0 { address / 4 + start % params.inner } else { address }
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
        let runs = run::runs(&shape, 2_048, None).expect("words fit");
        let strides = shape.strides();
        let mut next = 0;
        for run in &runs {
            let first = run.span.elements.start;
            assert_eq!((first, first % 2, run.first_element), (next, 0, 0));
            next += u64::from(run.end_element);
            let params = run.params(&shape, &shape);
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

#[test]
fn runs_of_padded_samples_find_the_sample_of_every_address() {
    for (dims, layout) in [
        (&[9_000, 3, 7][..], ChannelsFirst),
        (&[9_000, 5, 3], ChannelsLast),
        (&[5, 3, 7_001], ChannelsFirst),
    ] {
        let shape = Shape::new(dims, layout).expect("a valid shape");
        let shape = shape.with_lengths(&vec![1; dims[0]]);
        let strides = shape.strides();
        for runs in [run::runs(&shape, 65_536, None), run::sample_runs(&shape, 65_536)] {
            let mut next = 0;
            for run in runs.expect("words fit") {
                let params = run.params(&shape, &shape);
                let bound_from = super::lengths_from(run.span.first_sample) / 4;
                for address in run.first_element..run.end_element {
                    let from = address.wrapping_add(params.run_start);
                    let sample = from / params.x_sample;
                    let number = u64::from(params.first_length + sample);
                    let at = run.span.elements.start + u64::from(address);
                    assert_eq!(bound_from + number, at / strides.sample as u64, "{dims:?}");
                    assert!(number < crate::shaders::LENGTHS);
                    let in_sample = u64::from(from % params.x_sample);
                    assert_eq!(in_sample, at % strides.sample as u64, "{dims:?}");
                    next += 1;
                }
            }
            assert_eq!(next, shape.elements());
        }
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
        let lanes_log2 = params.lanes_per_run_log2;
        let tiles_log2 = params.tiles_per_workgroup_log2;
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

#[test]
fn words_of_tiles_that_exceed_a_binding_are_refused_where_f32_sums_fit() {
    let shape = Shape::new(&[32, 256, 16_384], ChannelsFirst).expect("a valid shape");
    let caps = DeviceCaps { max_binding_bytes: 256 << 10, ..DeviceCaps::PORTABLE };
    // 32 tiles of 256 channels: 16 bytes each, or 48.
    let plan = SumsPlan::statistics(f32s(&shape), &caps).expect("within the limits");
    assert_eq!(plan.map(|plan| plan.tiles_bytes), Some(128 << 10));
    let refused = LimitError::Binding {
        what: "scratch for the tiles",
        dims: vec![32, 256, 16_384],
        found_bytes: 384 << 10,
        allowed_bytes: 256 << 10,
    };
    assert_eq!(SumsPlan::integers(f32s(&shape), &caps), Err(refused));
}
