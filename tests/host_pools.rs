//! The host and the pools of an application: a call waits for nobody else's task, and runs nobody
//! else's task.
//!
//! Every call here has a deadline of the test's own, so that one that never returns is a failure of
//! its test alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use pollster::block_on;
use rayon::{ThreadPool, ThreadPoolBuilder};
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, ProcessGroup, SyncBatchNorm, Tensor,
    config::Activation, joint,
};
use syncbn_testkit::*;

/// Many times what the calls of a test take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a rank waits for its peers: beyond what a loaded machine delays them, well within the
/// patience.
const DEADLINE: Duration = Duration::from_secs(5);

fn pool(threads: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

/// Gives rayon's global pool so many threads, whatever the machine has.
fn with_global_pool_of(threads: usize) {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap());
    assert_eq!(rayon::current_num_threads(), threads);
}

/// Runs `body` on a thread of its own. A test whose body does not end in time fails.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (ended, result) = channel();
    let thread = std::thread::spawn(move || ended.send(body()));
    match result.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("no end within {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

/// Runs `body` while each of so many threads of a pool is in a task that does not end before.
/// `spawn` gives the pool a task.
fn while_blocked<T>(
    threads: usize,
    spawn: impl Fn(Box<dyn FnOnce() + Send>),
    body: impl FnOnce() -> T,
) -> T {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let (begin, begun) = channel();
    for _ in 0..threads {
        let gate = gate.clone();
        let begin = begin.clone();
        spawn(Box::new(move || {
            begin.send(()).unwrap();
            drop(gate.lock());
        }));
    }
    for _ in 0..threads {
        begun.recv_timeout(PATIENCE).expect("every thread of the pool in a task");
    }
    let result = body();
    drop(closed);
    result
}

/// Activations that are split between threads, in both orders of memory. The first is of the
/// smallest size that is.
const SHAPES: [&[usize]; 4] = [&[1024, 64], &[2, 64, 64, 64], &[3, 5, 70_001], &[3001, 70]];

/// What training and evaluation of two ranks give, bit for bit.
type Bits = Vec<Vec<u32>>;

fn config(dims: &[usize]) -> BatchNormConfig {
    BatchNormConfig::torch(dims[1]).with_residual(true).with_activation(Activation::Relu)
}

fn batches(dims: &[usize]) -> [Batch; 2] {
    let mut random = Random::new(17);
    [(); 2].map(|()| Batch::random(dims, &mut random))
}

/// Every pass of two layers alike, whole, in its steps and joint: what the host computes on several
/// threads.
fn passes(layers: &[SyncBatchNorm; 2], x: &[Tensor]) -> Bits {
    let forward = || Forward::of(x).residual(x);
    let backward = || Backward::of(x, x).residual(x);
    let layer = &layers[0];
    let train = block_on(layer.forward_train(forward())).unwrap();
    let gradients = block_on(layer.backward(&train.saved, backward())).unwrap();
    let eval = block_on(layer.forward_eval(forward())).unwrap();
    let mut results = vec![train.output, gradients.input, gradients.residual.unwrap(), eval.output];

    let local = block_on(layer.local_statistics(x)).unwrap();
    let global = block_on(layer.synchronize(local)).unwrap();
    let normalized = block_on(layer.normalize(forward(), &global)).unwrap();
    let sums = block_on(layer.local_gradient_sums(&normalized.saved, backward())).unwrap();
    let sums = block_on(layer.synchronize(sums)).unwrap();
    let gradients = block_on(layer.input_gradients(&normalized.saved, backward(), &sums)).unwrap();
    results.extend([normalized.output, gradients.input, gradients.residual.unwrap()]);

    let train =
        block_on(joint::forward_train(layers.iter().map(|layer| (layer, forward())))).unwrap();
    let calls = layers.iter().zip(&train).map(|(layer, train)| (layer, &train.saved, backward()));
    let gradients = block_on(joint::backward(calls)).unwrap();
    results.extend(train.into_iter().map(|train| train.output));
    results.extend(gradients.into_iter().map(|gradients| gradients.input));
    results.iter().flat_map(|tensors| bits(&read(tensors))).collect()
}

/// Two ranks of one caller, who takes both halves of a pass channel by channel.
fn ranks_of_one_caller(device: &Device, dims: &[usize]) -> Bits {
    let layers =
        [(); 2].map(|()| SyncBatchNorm::new(config(dims), vec![device.clone(); 2]).unwrap());
    passes(&layers, &upload(&layers[0], &batches(dims)))
}

/// One rank of a process group, which exchanges sums with the others between the halves of a pass.
fn rank_by_itself(device: &Device, group: &ProcessGroup, batch: &Batch) -> Bits {
    let layer = || {
        SyncBatchNorm::new(config(&batch.dims), [device.clone()]).unwrap().in_group(group).unwrap()
    };
    passes(&[layer(), layer()], &[batch.upload(device)])
}

fn ranks_on_threads(device: &Device, dims: &[usize]) -> Bits {
    let ranks = process_groups(2, DEADLINE).into_iter().zip(batches(dims)).collect();
    let results = on_threads(ranks, |(group, batch)| rank_by_itself(device, &group, &batch));
    results.concat()
}

/// Everything that the host computes on several threads.
fn everything(device: &Device) -> Vec<Bits> {
    SHAPES
        .iter()
        .flat_map(|dims| [ranks_of_one_caller(device, dims), ranks_on_threads(device, dims)])
        .collect()
}

#[test]
fn calls_end_while_every_thread_of_the_application_s_pool_is_in_another_task() {
    let (found, expected) = in_time(|| {
        let pool = pool(2);
        let device = Device::host_with_pool(pool.clone());
        let found = while_blocked(2, |task| pool.spawn(task), || everything(&device));
        (found, everything(&Device::host_with_pool(self::pool(1))))
    });
    assert!(found == expected, "other bits than on one thread");
}

#[test]
fn calls_end_while_every_thread_of_the_global_pool_is_in_another_task() {
    let (found, expected) = in_time(|| {
        with_global_pool_of(2);
        let found = while_blocked(2, rayon::spawn, || everything(&Device::host()));
        (found, everything(&Device::host_with_pool(pool(1))))
    });
    assert!(found == expected, "other bits than on one thread");
}

/// A layer's training step, whole or taken apart.
async fn step(
    device: &Device,
    group: &ProcessGroup,
    x: &Tensor,
    is_whole: bool,
) -> Result<(), Error> {
    let config = BatchNormConfig::torch(x.dims()[1]);
    let layer = SyncBatchNorm::new(config, [device.clone()])?.in_group(group)?;
    if is_whole {
        let forward = layer.forward_train(x).await?;
        layer.backward(&forward.saved, Backward::of(x, x)).await?;
        return Ok(());
    }
    let global = layer.synchronize(layer.local_statistics(x).await?).await?;
    let forward = layer.normalize(x, &global).await?;
    let sums = layer.local_gradient_sums(&forward.saved, Backward::of(x, x)).await?;
    let sums = layer.synchronize(sums).await?;
    layer.input_gradients(&forward.saved, Backward::of(x, x), &sums).await?;
    Ok(())
}

#[test]
fn ranks_that_are_tasks_of_the_pool_they_compute_on_do_not_run_within_each_other() {
    const RANKS: usize = 4;
    const ROUNDS: usize = 300;
    in_time(|| {
        let pool = pool(RANKS);
        let device = Device::host_with_pool(pool.clone());
        let batch = Batch::random(&[2, 64, 64, 64], &mut Random::new(18));
        for round in 0..ROUNDS {
            let results: Vec<Mutex<Option<Result<(), Error>>>> =
                (0..RANKS).map(|_| Mutex::new(None)).collect();
            pool.scope(|scope| {
                for (group, result) in process_groups(RANKS, DEADLINE).into_iter().zip(&results) {
                    let device = &device;
                    let batch = &batch;
                    scope.spawn(move |_| {
                        let x = batch.upload(device);
                        *result.lock().unwrap() =
                            Some(block_on(step(device, &group, &x, round % 2 == 0)))
                    });
                }
            });
            for (rank, result) in results.into_iter().enumerate() {
                let result = result.into_inner().unwrap().expect("a rank that ends");
                result.unwrap_or_else(|error| panic!("round {round}, rank {rank}: {error}"));
            }
        }
    });
}

#[test]
fn a_rank_that_waits_for_its_helpers_does_not_begin_another_rank_on_its_thread() {
    // Rank 0 computes with a helper while rank 1 stands in the pool's queue. Were rank 1 to run on
    // rank 0's thread, it would wait there for rank 0, which cannot go on below it. Who of rank 0
    // and its helper ends first is chance.
    const ROUNDS: usize = 10;
    // Longer than rank 0 takes from the beginning of its call to where it asks for help, far
    // shorter than its sums of 64 MB take: the thread that is in another task until then finds rank
    // 0's call for help before it finds rank 1.
    const LITTLE: Duration = Duration::from_millis(1);
    in_time(|| {
        let pool = pool(2);
        let device = Device::host_with_pool(pool.clone());
        let x = Arc::new(Batch::random(&[64, 64, 64, 64], &mut Random::new(19)).upload(&device));
        for round in 0..ROUNDS {
            let begun = Arc::new(AtomicBool::new(false));
            let seen = begun.clone();
            pool.spawn(move || {
                while !seen.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                let since = Instant::now();
                while since.elapsed() < LITTLE {
                    std::hint::spin_loop();
                }
            });
            let (end, results) = channel();
            for group in process_groups(2, DEADLINE) {
                let device = device.clone();
                let x = x.clone();
                let begun = begun.clone();
                let end = end.clone();
                pool.spawn(move || {
                    let layer = SyncBatchNorm::new(BatchNormConfig::torch(64), [device]).unwrap();
                    let layer = layer.in_group(&group).unwrap();
                    begun.store(true, Ordering::Release);
                    end.send(block_on(layer.forward_train(&*x)).map(drop)).unwrap();
                });
            }
            for result in results.iter().take(2) {
                result.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        }
    });
}
