//! Local and global statistics as plain values.

use super::*;
use syncbn::stats::RunningStats;

fn local(values: &[&[f64]]) -> LocalStatistics {
    Local::of_rank(values.iter().map(|channel| Moments::from_values(channel.iter().copied())))
}

#[test]
fn merged_statistics_are_those_of_all_values() {
    let mut merged = LocalStatistics::empty(2);
    merged.merge(&local(&[&[1.0, 3.0], &[0.0, 4.0]])).unwrap();
    merged.merge(&LocalStatistics::empty(2)).unwrap();
    merged.merge(&local(&[&[5.0, 7.0], &[8.0, 12.0]])).unwrap();
    // Every number on the way is a sum of powers of two.
    assert_eq!(merged, local(&[&[1.0, 3.0, 5.0, 7.0], &[0.0, 4.0, 8.0, 12.0]]));
}

#[test]
fn what_does_not_fit_is_not_merged() {
    let mut merged = local(&[&[1.0, 2.0]]);
    let before = merged.clone();
    let error = merged.merge(&local(&[&[1.0], &[2.0]])).unwrap_err();
    assert_eq!(error, ArgumentError::Length { argument: "other", found: 2, expected: 1 }.into());
    let mut two = before.clone();
    two.append(before.clone()).unwrap();
    let error = merged.merge(&two).unwrap_err();
    assert_eq!(error, ArgumentError::RankCount { argument: "other", found: 2, expected: 1 }.into());
    assert_eq!(merged, before);
}

#[test]
fn statistics_go_through_serde_and_what_was_spoilt_on_the_way_is_refused() {
    let statistics = local(&[&[1.0, 2.5], &[-3.0, 1024.0]]);
    let text = serde_json::to_string(&statistics).unwrap();
    assert_eq!(serde_json::from_str::<LocalStatistics>(&text).unwrap(), statistics);
    let global = GlobalStatistics::new(statistics.ranks()[0].clone());
    let text_of_global = serde_json::to_string(&global).unwrap();
    assert_eq!(serde_json::from_str::<GlobalStatistics>(&text_of_global).unwrap(), global);
    // A rank of one channel that claims to have two.
    let spoilt = text.replace("\"channels\":2", "\"channels\":3");
    let spoilt: LocalStatistics = serde_json::from_str(&spoilt).unwrap();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(3), [Device::host()]).unwrap();
    assert!(matches!(block_on(bn.synchronize(spoilt)).unwrap_err(), Error::Argument(_)));
}

#[test]
fn statistics_of_a_data_set_become_running_statistics() {
    let host = Device::host();
    // Mean 3, squares 4 + 1 + 0 + 9 = 14 over 3, or 4.
    for (variance, expected) in [(RunningVariance::Unbiased, 3.0), (RunningVariance::Biased, 4.0)] {
        let config = BatchNormConfig::torch(1).with_running_variance(variance);
        let mut bn = SyncBatchNorm::new(config, [host.clone()]).unwrap();
        let nothing = block_on(bn.set_population_statistics(LocalStatistics::empty(1))).unwrap();
        assert_eq!((nothing.count(), bn.running_stats()), (0, Some(RunningStats::new(1))));
        let mut all = LocalStatistics::empty(1);
        for values in [[1.0f32, 2.0], [3.0, 6.0]] {
            let x = host.upload(&[2, 1], &values).unwrap();
            all.merge(&block_on(bn.local_statistics(&x)).unwrap()).unwrap();
        }
        let global = block_on(bn.set_population_statistics(all)).unwrap();
        assert_eq!(global.count(), 4);
        let var = vec![(14.0f64 / expected) as f32];
        let expected = RunningStats { mean: vec![3.0], var, num_batches_tracked: 1 };
        assert_eq!(bn.running_stats(), Some(expected));
    }
}

#[test]
fn a_layer_without_running_statistics_refuses_those_of_a_data_set() {
    let config = BatchNormConfig::torch(1).with_track_running_stats(false);
    let mut bn = SyncBatchNorm::new(config, [Device::host()]).unwrap();
    let error = block_on(bn.set_population_statistics(local(&[&[1.0, 2.0]]))).unwrap_err();
    let argument = "running statistics";
    let setting = "with_track_running_stats";
    assert_eq!(error, ArgumentError::NoSuchParameter { argument, setting }.into());
}

#[test]
fn sums_that_another_kernel_left_in_tiles_are_those_of_the_values() {
    for device in devices() {
        // Two tiles of two channels: values 1, 2 and 6 about pivot 2, values 0, 4 and 8 about 0;
        // one tile of no value.
        let tiles = [
            [2.0f32, -1.0, 1.0, 0.0, 0.0, 4.0, 16.0, 0.0],
            [2.0, 4.0, 16.0, 0.0, 0.0, 8.0, 64.0, 0.0],
            [f32::NAN, f32::NAN, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        ];
        let tensor = device.upload(&[3, 2, 4], &tiles.concat()).unwrap();
        let found = block_on(LocalStatistics::from_tiles(&tensor, &[2, 1, 0])).unwrap();
        assert_eq!(found, local(&[&[1.0, 2.0, 6.0], &[0.0, 4.0, 8.0]]), "{device}");
        // A flag makes its channel NaN, and no other.
        let found = block_on(LocalStatistics::from_tiles(&tensor, &[2, 1, 1])).unwrap();
        assert!(found.ranks()[0][0].mean.is_nan() && found.ranks()[0][1].count == 4);
        let error = block_on(LocalStatistics::from_tiles(&tensor, &[2, 1])).unwrap_err();
        assert_eq!(
            error,
            ArgumentError::Length { argument: "counts", found: 2, expected: 3 }.into()
        );
        let error = block_on(LocalStatistics::from_tiles(&device.zeros(&[3, 8]).unwrap(), &[1; 3]))
            .unwrap_err();
        assert!(
            matches!(error, Error::Argument(ArgumentError::Dims { argument: "tiles", .. })),
            "{error}"
        );
    }
}

#[test]
fn statistics_that_no_batch_has_are_refused_by_their_channel() {
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(2), [Device::host()]).unwrap();
    let of = |count, mean, m2| Moments { count, mean, m2 };
    let refused = |result: Result<(), Error>| match result.unwrap_err() {
        Error::Argument(ArgumentError::Statistics { argument, channel, reason, .. }) => {
            (argument, channel, reason)
        }
        other => panic!("{other}"),
    };
    for (second, reason) in [
        (of(5, 0.0, 1.0), "it has 5 value(s), expected 4, as the first channel"),
        (of(4, 0.0, -1.0), "its m2 is -1, expected at least 0"),
    ] {
        let channels = [of(4, 1.0, 2.0), second];
        let found = refused(block_on(bn.synchronize(Local::of_rank(channels))).map(drop));
        assert_eq!(found, ("local", 1, reason.to_owned()));
        let x = Device::host().zeros(&[2, 2]).unwrap();
        let found = refused(block_on(bn.normalize(&x, &GlobalStatistics::new(channels))).map(drop));
        assert_eq!(found, ("global", 1, reason.to_owned()));
    }
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0);
    // What is not finite makes its channel NaN, as a value of a batch does.
    let global =
        block_on(bn.synchronize(Local::of_rank([of(4, 1.0, 2.0), of(4, f64::INFINITY, 1.0)])))
            .unwrap();
    assert!(global.channels()[1].mean.is_nan() && global.channels()[0].mean == 1.0);
    assert!(bn.running_stats().unwrap().mean[1].is_nan());
}
