//! Loops in which ranks have different numbers of batches.

use std::time::Duration;

use futures::FutureExt;

use super::*;
use syncbn::ProcessGroup;
use syncbn::error::ExchangeError;

const CHANNELS: usize = 3;
/// Samples in the batches of each rank.
const BATCHES: [&[usize]; 3] = [&[6, 6, 5], &[6], &[4, 4]];

fn load(rank: usize, step: usize) -> Option<Batch> {
    let samples = *BATCHES[rank].get(step)?;
    Some(Batch::random(&[samples, CHANNELS], &mut Random::new((7 * rank + step) as u64)))
}

/// Two layers, one after the other, forward and backward: y, and the gradient of x.
async fn train(layers: &[SyncBatchNorm; 2], x: &Batch) -> Result<[Vec<f32>; 2], Error> {
    let x = Device::host().upload(&x.dims, &x.values)?;
    let hidden = layers[0].forward_train(&x).await?;
    let y = layers[1].forward_train(&hidden.output).await?;
    let request = Backward::of(&hidden.output, &y.output);
    let dy = layers[1].backward(&y.saved, request).await?.input;
    let dx = layers[0].backward(&hidden.saved, Backward::of(&x, &dy)).await?.input;
    Ok([y.output.to_vec().await?, dx.to_vec().await?])
}

fn layers(group: &ProcessGroup) -> [SyncBatchNorm; 2] {
    let layer =
        || SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [Device::host()])?.in_group(group);
    [layer().unwrap(), layer().unwrap()]
}

#[test]
fn a_rank_without_batches_goes_on_until_all_have_run_out() {
    // Nobody may wait for a rank that is gone.
    let groups = process_groups(BATCHES.len(), Duration::from_secs(60));
    let ranks = on_threads(groups, |group| {
        block_on(async {
            let layers = layers(&group);
            let rank = group.rank();
            let mut steps = group.uneven_steps((0..).map_while(|step| load(rank, step)));
            let mut outputs = Vec::new();
            let mut idle = 0;
            while let Some(batch) = steps.next().await.unwrap() {
                idle += usize::from(batch.is_none());
                let nothing = Batch { dims: vec![0, CHANNELS], values: Vec::new() };
                outputs.push(train(&layers, &batch.unwrap_or(nothing)).await.unwrap());
            }
            // It stays over, without another exchange.
            assert!(steps.next().await.unwrap().is_none());
            assert_eq!(idle, 3 - BATCHES[rank].len());
            (outputs, layers.map(|layer| layer.running_stats().unwrap()))
        })
    });
    let single = ProcessGroup::single();
    let alone = layers(&single);
    for step in 0..3 {
        let batches: Vec<Batch> = (0..3).filter_map(|rank| load(rank, step)).collect();
        let samples = batches.iter().map(|batch| batch.dims[0]).sum();
        let values = batches.into_iter().flat_map(|batch| batch.values).collect();
        let batch = Batch { dims: vec![samples, CHANNELS], values };
        let expected = block_on(train(&alone, &batch)).unwrap();
        for (output, expected) in expected.iter().enumerate() {
            let found: Vec<f32> =
                ranks.iter().flat_map(|(outputs, _)| outputs[step][output].clone()).collect();
            // Sums in another order: an ulp of f32 in the statistics, times a gradient that the
            // second layer projects, of values below 4.
            approx::assert_abs_diff_eq!(found[..], expected[..], epsilon = 2e-5);
        }
    }
    for (_, running) in &ranks {
        assert_eq!(running, &ranks[0].1);
        assert_eq!(running[0].num_batches_tracked, 3);
    }
}

#[test]
fn a_rank_alone_gets_its_batches_and_nothing_else() {
    let mut steps = ProcessGroup::single().uneven_steps([1, 2]);
    let next = || block_on(steps.next()).unwrap();
    let found: Vec<_> = std::iter::repeat_with(next).take(4).collect();
    assert_eq!(found, [Some(Some(1)), Some(Some(2)), None, None]);
}

#[test]
fn a_rank_that_leaves_ends_the_loop_of_the_others_with_its_number() {
    let [one, two]: [ProcessGroup; 2] =
        process_groups(2, Duration::from_secs(60)).try_into().unwrap();
    drop(two);
    let error = block_on(one.uneven_steps([1]).next()).unwrap_err();
    assert!(matches!(error, Error::Exchange(ExchangeError::Left { rank: 1, .. })), "{error}");
    let at = "uneven_steps, exchange 0 of the group: ";
    assert!(error.to_string().starts_with(at), "{error}");
}

/// A sum of one value is another call, although it has the same form.
#[test]
fn a_rank_that_sums_a_value_instead_is_notified() {
    let errors =
        on_threads(process_groups(2, Duration::from_secs(60)), |group| match group.rank() {
            0 => block_on(group.uneven_steps([1]).next()).map(drop).unwrap_err(),
            _ => block_on(group.all_reduce_sum([&mut [1.0]])).unwrap_err(),
        });
    for error in errors {
        let text = "call of rank 1 is all_reduce_sum, expected uneven_steps, as on rank 0";
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_dropped_step_keeps_its_batch() {
    let groups = process_groups(2, Duration::from_secs(60));
    let mut steps = groups[0].uneven_steps([5]);
    assert!(steps.next().now_or_never().is_none(), "rank 1 has not come");
    // The exchange is lost, the batch is not: the group's error comes before another is drawn.
    assert!(block_on(steps.next()).is_err());
    assert!(format!("{steps:?}").contains("drawn: Some(5)"), "{steps:?}");
}
