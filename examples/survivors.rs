//! A rank of four panics in the middle of training. The others repeat that step and go on, with the
//! losses of three ranks that begin there. `cargo run --release --example survivors`: on the host.
use pollster::block_on;
use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};
use syncbn::{collective::LocalGroup, stats::RunningStats};

/// The state that a step changes: the weight, and the running statistics.
type State = (Vec<f32>, RunningStats);

fn main() -> Result<(), Error> {
    let survivors = run(&[0, 1, 2, 3], &(vec![3.0, -2.0], RunningStats::new(2)), 12)?;
    let (losses, at_failure) = &survivors[0];
    let (afresh, _) = &run(&[0, 2, 3], at_failure, 7)?[0];
    println!("losses {losses:.3?}\nafresh {afresh:.3?}");
    assert!(survivors.len() == 3 && losses[11] < losses[5] && losses[5..] == afresh[..]);
    Ok(())
}

/// The losses of every rank that lives to the end, and the state in which the last rank was lost.
fn run(ranks: &[usize], begin: &State, steps: usize) -> Result<Vec<(Vec<f32>, State)>, Error> {
    let threads = LocalGroup::ranks(ranks.len()).into_iter().zip(ranks).map(|(place, &rank)| {
        let group = ProcessGroup::new(place);
        let state = begin.clone();
        std::thread::spawn(move || block_on(train(group, rank, state, steps)))
    });
    let ended = threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join());
    ended.flatten().collect() // without the rank that has panicked
}

async fn train(
    mut group: ProcessGroup,
    rank: usize,
    mut state: State,
    steps: usize,
) -> Result<(Vec<f32>, State), Error> {
    let new = SyncBatchNorm::new(BatchNormConfig::torch(2), [Device::host()])?;
    let mut bn = new.in_group(&group)?;
    let mut losses = vec![];
    let mut at_failure = state.clone();
    while losses.len() < steps {
        bn.set_parameters(Some(&state.0), None)?;
        bn.set_running_stats(state.1.clone())?;
        assert!((rank, losses.len()) != (1, 5), "rank 1 fails in step 5, as it is to");
        match step(&bn, &group, rank, state.0.clone()).await {
            Ok((loss, weight)) => {
                state = (weight, bn.running_stats().unwrap_or(state.1));
                losses.push(loss);
            }
            Err(error) => {
                println!("rank {rank}: {error}");
                group = group.survivors(std::time::Duration::from_secs(10)).await?;
                (bn, at_failure) = (bn.in_group(&group)?, state.clone());
            }
        }
    }
    Ok((losses, at_failure))
}

/// The loss of all ranks, Σ (y − x/2)²/2, and the weight after a step of gradient descent.
async fn step(
    bn: &SyncBatchNorm,
    group: &ProcessGroup,
    rank: usize,
    mut weight: Vec<f32>,
) -> Result<(f32, Vec<f32>), Error> {
    let values: Vec<f32> = (0..16).map(|i| (1.7 * i as f32 + rank as f32).sin()).collect();
    let x = Device::host().upload(&[8, 2], &values)?;
    let forward = bn.forward_train(&x).await?;
    let y = forward.output.to_vec().await?;
    let errors: Vec<f32> = y.iter().zip(&values).map(|(y, x)| y - 0.5 * x).collect();
    let dy = Device::host().upload(&[8, 2], &errors)?;
    let gradients = bn.backward(&forward.saved, Backward::of(&x, &dy)).await?;
    let mut sums = vec![errors.iter().map(|error| error * error / 2.0).sum()];
    sums.extend(gradients.weight.iter().filter_map(|g| g.as_slice::<f32>()).flatten());
    group.all_reduce_sum([&mut sums]).await?;
    weight.iter_mut().zip(&sums[1..]).for_each(|(weight, gradient)| *weight -= 0.02 * gradient);
    Ok((sums[0], weight))
}
