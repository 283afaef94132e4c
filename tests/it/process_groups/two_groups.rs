//! Joint calls over layers of two process groups, which are refused: the peers of both groups learn
//! of it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pollster::block_on;
use syncbn::collective::Collective;
use syncbn::error::ExchangeError;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, Tensor, joint,
};

use crate::common::transport::Tapped;
use crate::common::{groups_over, on_threads};
use crate::process_groups::{CHANNELS, LONG};

/// A call of several layers at once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Train,
    Eval,
    Backward,
    Statistics,
    Sums,
}

const CALLS: [Call; 5] = [Call::Train, Call::Eval, Call::Backward, Call::Statistics, Call::Sums];

impl Call {
    /// The call over these layers, each of which has made a forward step by itself.
    fn over(self, layers: &[&SyncBatchNorm], x: &Tensor) -> Result<(), Error> {
        block_on(async {
            let sums = |layer| async move {
                let layer: &SyncBatchNorm = layer;
                let saved = alone(layer, x).await?;
                let sums = layer.local_gradient_sums(&saved, Backward::of(x, x)).await?;
                Ok::<_, Error>((saved, sums))
            };
            let mut of_layers = Vec::new();
            for &layer in layers {
                of_layers.push((layer, layer.local_statistics(x).await?, sums(layer).await?));
            }
            match self {
                Self::Train => {
                    joint::forward_train(layers.iter().map(|&layer| (layer, x))).await.map(drop)
                }
                Self::Eval => {
                    joint::forward_eval(layers.iter().map(|&layer| (layer, x))).await.map(drop)
                }
                Self::Backward => {
                    let calls = of_layers
                        .iter()
                        .map(|(layer, _, (saved, _))| (*layer, saved, Backward::of(x, x)));
                    joint::backward(calls).await.map(drop)
                }
                Self::Statistics => joint::synchronize(
                    of_layers.into_iter().map(|(layer, local, _)| (layer, local)),
                )
                .await
                .map(drop),
                Self::Sums => {
                    let calls = of_layers.into_iter().map(|(layer, _, (_, sums))| (layer, sums));
                    joint::synchronize(calls).await.map(drop)
                }
            }
        })
    }
}

/// What a step leaves whose statistics are this rank's alone, so that nobody has to meet it.
async fn alone(layer: &SyncBatchNorm, x: &Tensor) -> Result<syncbn::Saved, Error> {
    let local = layer.local_statistics(x).await?;
    let global = syncbn::stats::GlobalStatistics::new(local.ranks()[0].iter().copied());
    Ok(layer.normalize(x, &global).await?.saved)
}

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS).with_use_batch_statistics(Some(true))
}

fn layer(group: &ProcessGroup) -> SyncBatchNorm {
    SyncBatchNorm::new(config(), [Device::host()]).unwrap().in_group(group).unwrap()
}

/// Makes a call over layers of these groups on one rank, while the only other rank of each group
/// makes it with a layer of its own group alone; those that refuse work from before come too.
/// Returns the error of the call, what each of the other ranks was notified of, and how often its
/// group was.
fn run(call: Call, groups: &[usize], refusing: &[usize]) -> (Error, Vec<(Error, usize)>) {
    let count = groups.iter().max().unwrap() + 1;
    let aborts: Vec<_> = (0..count).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let pairs = aborts.iter().map(|aborts| {
        let ranks = groups_over(2, LONG, |rank| {
            // What rank 0 notifies of is counted.
            let counted = if rank.rank() == 0 { aborts.clone() } else { Arc::default() };
            Tapped::new(rank, |message| message).counting_aborts(counted)
        });
        <[ProcessGroup; 2]>::try_from(ranks).unwrap()
    });
    let (own, others): (Vec<_>, Vec<_>) = pairs.map(|[own, other]| (own, other)).unzip();
    refusing.iter().for_each(|&group| own[group].abort("planted"));
    let mut ranks: Vec<Vec<ProcessGroup>> = others.into_iter().map(|other| vec![other]).collect();
    ranks.push(own);
    let mut errors = on_threads(ranks, |own| {
        let x = Device::host().upload(&[2, CHANNELS], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let layers: Vec<SyncBatchNorm> = match &own[..] {
            [own] => vec![layer(own)],
            own => groups.iter().map(|&group| layer(&own[group])).collect(),
        };
        let began = Instant::now();
        let error =
            call.over(&layers.iter().collect::<Vec<_>>(), &x).expect_err("groups that do not meet");
        assert!(
            began.elapsed() < LONG / 2,
            "{call:?} over {groups:?}: notified after {:?}",
            began.elapsed()
        );
        assert!(layers.iter().all(|layer| layer.running_stats().unwrap().num_batches_tracked == 0));
        error
    });
    let error = errors.pop().unwrap();
    (
        error,
        errors
            .into_iter()
            .zip(aborts)
            .map(|(error, aborts)| (error, aborts.load(Ordering::Relaxed)))
            .collect(),
    )
}

/// Each of the other ranks must have been notified of this, once.
fn assert_notified(found: &[(Error, usize)], what: &str, skip: &[usize]) {
    for (group, (error, times)) in
        found.iter().enumerate().filter(|(group, _)| !skip.contains(group))
    {
        let error = if let Error::Joint { error: source, .. } = error { source } else { error };
        let Error::Exchange(ExchangeError::Aborted { rank: 0, reason, .. }) = error else {
            panic!("group {group}: {error}")
        };
        assert!(reason.contains(what), "group {group}: {error}");
        assert_eq!(*times, 1, "group {group}");
    }
}

#[test]
fn the_peers_of_every_group_of_a_refused_joint_call_are_notified_once() {
    for call in CALLS {
        for (groups, refused) in
            [(&[0, 1][..], 1), (&[0, 0, 1], 2), (&[0, 1, 0, 1], 1), (&[2, 0, 1, 1], 1)]
        {
            let (error, found) = run(call, groups, &[]);
            let Error::Joint { index, error: source } = &error else {
                panic!("{call:?} over {groups:?}: {error}")
            };
            assert!(
                *index == refused && source.to_string().contains("another process group"),
                "{error}"
            );
            assert_notified(&found, "it is of another process group", &[]);
        }
    }
}

#[test]
fn the_peers_of_a_group_are_notified_of_another_that_refuses_work() {
    for call in CALLS {
        for (groups, refusing) in [([0, 1], 0), ([0, 1], 1), ([1, 0], 0)] {
            let (error, found) = run(call, &groups, &[refusing]);
            let Error::Joint { index, error: source } = &error else {
                panic!("{call:?} over {groups:?}: {error}")
            };
            assert_eq!(groups[*index], refusing, "{error}");
            assert!(matches!(**source, Error::Exchange(ExchangeError::Poisoned { .. })), "{error}");
            assert_notified(&found, "refuses work", &[refusing]);
        }
    }
}
