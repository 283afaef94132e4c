//! Lengths that do not fit: typed errors with both values, and a layer that is as before.

use pollster::block_on;
use syncbn::error::{ArgumentError, LengthsError};
use syncbn::{BatchNorm, BatchNormConfig, Device, Error, Forward, Layout, SyncBatchNorm};

use super::common::virtual_gpus;

/// The error of every way to begin a forward pass.
fn refused(dims: &[usize], layout: Layout, lists: &[Vec<u32>]) -> LengthsError {
    let count: usize = dims.iter().product();
    let channels = if layout == Layout::ChannelsFirst { dims[1] } else { dims[dims.len() - 1] };
    let mut errors = Vec::new();
    for device in [Device::host(), virtual_gpus()[0].clone()] {
        let upload = || device.upload(dims, &vec![1.0f32; count]).unwrap().with_layout(layout);
        let x = [upload(), upload()];
        let config = BatchNormConfig::torch(channels);
        let layer = SyncBatchNorm::new(config.clone(), [device.clone(), device.clone()]).unwrap();
        let before = layer.running_stats();
        let request = || Forward::of(&x).lengths(lists);
        errors.push(block_on(layer.forward_train(request())).unwrap_err());
        errors.push(block_on(layer.forward_eval(request())).unwrap_err());
        errors.push(block_on(layer.local_statistics(request())).unwrap_err());
        assert_eq!(layer.running_stats(), before);
        if !device.is_host() {
            let layer = BatchNorm::new(config, &device).unwrap();
            errors.push(layer.forward_train(request()).unwrap_err());
            errors.push(layer.forward_eval(request()).unwrap_err());
        }
    }
    assert!(errors.windows(2).all(|pair| pair[0] == pair[1]), "{errors:?}");
    match errors.remove(0) {
        Error::Argument(ArgumentError::Lengths(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_with_rank_sample_found_and_allowed() {
    const FIRST: Layout = Layout::ChannelsFirst;
    let of = |lists: &[&[u32]]| lists.iter().map(|list| list.to_vec()).collect::<Vec<_>>();
    assert_eq!(
        refused(&[2, 3, 5], FIRST, &of(&[&[5, 0]])),
        LengthsError::Lists { found: 1, expected: 2 }
    );
    assert_eq!(
        refused(&[2, 3, 5], FIRST, &of(&[&[5, 0], &[1]])),
        LengthsError::Count { rank: Some(1), found: 1, expected: 2 }
    );
    let error = refused(&[2, 3, 5, 4], FIRST, &of(&[&[5, 0], &[1, 6]]));
    assert_eq!(error, LengthsError::TooLong { rank: Some(1), sample: 1, found: 6, allowed: 5 });
    assert_eq!(
        error.to_string(),
        "lengths[1][1] is 6, expected at most 5, the first spatial size of x[1]"
    );
    assert_eq!(
        refused(&[2, 5, 3], Layout::ChannelsLast, &of(&[&[7, 0], &[1, 6]])),
        LengthsError::TooLong { rank: Some(0), sample: 0, found: 7, allowed: 5 }
    );
    assert_eq!(
        refused(&[2, 3], FIRST, &of(&[&[1, 1], &[0, 0]])),
        LengthsError::NoSpatialAxis { rank: Some(0), dims: vec![2, 3] }
    );
}

#[test]
fn one_value_that_counts_in_the_whole_group_is_refused_before_anything_changes() {
    for device in [Device::host(), virtual_gpus()[0].clone()] {
        let x = device.upload(&[2, 1, 3], &[1.0f32; 6]).unwrap();
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [device]).unwrap();
        let before = layer.running_stats();
        let error = block_on(layer.forward_train(Forward::of(&x).lengths(&[0, 1]))).unwrap_err();
        assert!(matches!(error, Error::Batch(_)), "{error:?}");
        assert_eq!(layer.running_stats(), before);
        // None at all is no error, and changes nothing.
        let y = block_on(layer.forward_train(Forward::of(&x).lengths(&[0, 0]))).unwrap().output;
        assert_eq!(block_on(y.to_vec()).unwrap(), [0.0; 6]);
        assert_eq!(layer.running_stats(), before);
    }
}
