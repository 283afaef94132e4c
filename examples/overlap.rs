//! An exchange that is under way while other work is done: it is started, this rank works, and then
//! the result is awaited. Ranks are threads here. The result has the bits of the call that
//! waits.
//!
//! `cargo run --release --example overlap`

use std::error::Error;
use std::time::{Duration, Instant};

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

const RANKS: usize = 2;
const DIMS: [usize; 3] = [4, 3, 25];
/// The last rank comes so much later than the others.
const LATE: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let plain = on_ranks(|bn, x| {
        let x = Device::host().upload(&DIMS, x)?;
        let y = block_on(block_on(bn.forward_train(&x))?.output.to_vec())?;
        Ok(bits(&y, bn))
    })?;
    let overlapped = on_ranks(|bn, x| {
        let x = Device::host().upload(&DIMS, x)?;
        let local = block_on(bn.local_statistics(&x))?;
        // Sent from here on. The future borrows nothing: it may be spawned, or awaited on another
        // thread.
        let exchange = bn.synchronize(local).start();
        let began = Instant::now();
        other_work(bn)?;
        let worked = began.elapsed();
        let global = block_on(exchange)?;
        let waited = began.elapsed() - worked;
        let y = block_on(block_on(bn.normalize(&x, &global))?.output.to_vec())?;
        Ok((bits(&y, bn), worked, waited))
    })?;
    for (rank, (plain, (bits, worked, waited))) in plain.iter().zip(&overlapped).enumerate() {
        println!(
            "rank {rank}: worked for {worked:.0?} while the exchange was under way, then waited \
            for {waited:.0?}"
        );
        if plain != bits {
            return Err(format!("rank {rank}: y or the running mean is another").into());
        }
    }
    println!("y and running mean have the bits of one call");
    Ok(())
}

/// The work of a rank meanwhile. Here the same layer evaluates, again and again, which communicates
/// with nobody.
fn other_work(bn: &SyncBatchNorm) -> Result<(), syncbn::Error> {
    let began = Instant::now();
    let x = Device::host().zeros(&DIMS)?;
    while began.elapsed() < LATE / 2 {
        block_on(bn.forward_eval(&x))?;
    }
    Ok(())
}

fn bits(y: &[f32], bn: &SyncBatchNorm) -> Vec<u32> {
    let mean = bn.running_stats().map(|running| running.mean);
    y.iter().chain(mean.iter().flatten()).map(|value| value.to_bits()).collect()
}

/// The same on every rank of a group, each a thread with its layer and its values of x; the last
/// one comes late.
fn on_ranks<T: Send>(
    body: impl Fn(&SyncBatchNorm, &[f32]) -> Result<T, syncbn::Error> + Sync,
) -> Result<Vec<T>, Box<dyn Error>> {
    let rank = |group: ProcessGroup| {
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [Device::host()])?
            .in_group(&group)?;
        let offset = 2.0 * group.rank() as f32;
        let x: Vec<f32> =
            (0..DIMS.iter().product()).map(|i| offset + (1.7 * i as f32).sin()).collect();
        if group.rank() == RANKS - 1 {
            std::thread::sleep(LATE);
        }
        body(&bn, &x)
    };
    let rank = &rank;
    std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(RANKS).into_iter().map(ProcessGroup::new);
        let threads: Vec<_> = groups.map(|group| scope.spawn(move || rank(group))).collect();
        threads
            .into_iter()
            .map(|thread| Ok(thread.join().map_err(|_| "a rank panicked")??))
            .collect()
    })
}
