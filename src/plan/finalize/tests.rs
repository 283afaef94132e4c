//! Which ranks merge about which, and how.

use super::*;

pub(super) fn merge(counts: &[u64], per_rank: bool) -> Merge {
    Merge::new(counts.to_vec(), 5, per_rank, &DeviceCaps::PORTABLE).expect("within the limits")
}

#[test]
fn ranks_merge_by_their_weights_about_the_one_with_most_values() {
    let merge = merge(&[0, 10, 30], false);
    let stats = merge.statistics(0, 1e-5, None).params;
    assert_eq!((merge.results(), stats.first_rank, stats.end_rank, stats.pivot_rank), (1, 0, 3, 2));
    assert_eq!((stats.count, stats.tracks), (40.0, 0));
    assert_eq!(
        merge.rank_weights().iter().map(|of_rank| of_rank.weight).collect::<Vec<_>>(),
        [0.0, 0.25, 0.75]
    );
    // 5 quadruples are 80 bytes; a slot starts where a binding may.
    assert_eq!((merge.slot(1), merge.bytes(), stats.rank_stride), (256..336, 768, 16));
}

#[test]
fn ranks_apart_have_a_result_each_of_all_their_values() {
    let merge = merge(&[7, 0], true);
    let stats = merge.statistics(1, 1e-5, None).params;
    assert_eq!((merge.results(), stats.first_rank, stats.end_rank, stats.pivot_rank), (2, 1, 2, 1));
    assert_eq!(
        (merge.rank_weights()[0], stats.count),
        (RankWeight { count: 7.0, weight: 1.0 }, 0.0)
    );
    assert_eq!(merge.gradient(0, true, ParameterGradients::default()).params.count, 7.0);
}

#[test]
fn running_statistics_are_updated_where_there_is_a_value() {
    let running_update = Some(RunningUpdate {
        momentum: Momentum::Decay(0.75),
        variance: RunningVariance::Unbiased,
    });
    let params = merge(&[3, 5], false).statistics(0, 1e-5, running_update).params;
    assert_eq!(
        (params.tracks, params.old_weight, params.batch_weight, params.divisor),
        (1, 0.75, 0.25, 7.0)
    );
    assert_eq!(merge(&[0, 0], false).statistics(0, 1e-5, running_update).params.tracks, 0);
}

#[test]
fn sums_of_more_ranks_than_one_binding_holds_are_refused() {
    // 2¹⁹ slots of 256 bytes are all that one binding spans.
    let merge = |ranks| {
        Merge::new(vec![1; ranks], 5, false, &DeviceCaps::PORTABLE).map(|merge| merge.bytes())
    };
    assert_eq!(merge(1 << 19), Ok(128 << 20));
    let refused = LimitError::Binding {
        what: "sums per rank and channel",
        dims: vec![(1 << 19) + 1, 5],
        found_bytes: (128 << 20) + 256,
        allowed_bytes: 128 << 20,
    };
    assert_eq!(merge((1 << 19) + 1), Err(refused));
}

#[test]
fn one_rank_is_merged_by_the_workgroups_that_would_combine_its_tiles() {
    let shape = crate::shape::Shape::new(&[40, 3, 16_384], crate::Layout::ChannelsFirst).unwrap();
    let x = crate::plan::Activation { shape: &shape, dtype: crate::DType::F32 };
    let plan = crate::plan::SumsPlan::statistics(x, &DeviceCaps::PORTABLE).unwrap().unwrap();
    let combine = plan.combine.unwrap();
    let one = merge(&[shape.values_per_channel()], false);
    assert!(one.takes_tiles() && !merge(&[1, 0], false).takes_tiles());
    let params = one.statistics(0, 1e-5, None).of_tiles(&combine).params;
    assert_eq!((params.tiles, params.lanes_per_channel, params.tile_values), (40, 8, 16_384));
    let of_gradients = one.gradient(0, true, ParameterGradients::default()).of_tiles(&combine);
    assert_eq!((of_gradients.params.tiles, of_gradients.params.lanes_per_channel), (40, 8));
    assert_eq!(of_gradients.workgroups, combine.workgroups);
}
