//! Process groups: four ranks normalize in two groups of two. Then rank 2 comes too late, and every
//! rank gets an error that names it: nobody hangs, and nobody goes on with half of the batch.
//!
//! `cargo run --release --example process_groups`: the ranks are threads on the host (CPU).

use std::{thread, time::Duration};

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let deadline = Duration::from_millis(300); // 30 s where none is set
    let world = LocalGroup::ranks(4).into_iter().map(ProcessGroup::new);
    let world = world.map(|rank| rank.with_deadline(deadline));
    let threads: Vec<_> = world.map(|rank| thread::spawn(|| block_on(work(rank)))).collect();
    for (rank, thread) in threads.into_iter().enumerate() {
        let (mean, late) = thread.join().map_err(|_| "a rank panicked")??;
        println!("rank {rank}: mean {mean} of its group; then {late}");
        assert_eq!(mean, [6.0, 26.0][rank / 2]);
        assert!(late.contains("rank(s) [2]"));
    }
    Ok(())
}

/// The mean of this rank's group, and the error of a forward pass of all ranks.
async fn work(world: ProcessGroup) -> Result<(f64, String), Error> {
    // Every rank gives the whole partition. `subgroup` has each give its own group instead.
    let group = world.partition(&[vec![0, 1], vec![2, 3]]).await?;
    let host = Device::host();
    let of_group = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?;
    let of_group = of_group.named("bn1").in_group(&group)?;
    let first = 10.0 * world.rank() as f32;
    let x = host.upload(&[2, 1], &[first, first + 2.0])?; // (N, C)
    let saved = of_group.forward_train(&x).await?.saved;
    let mean = saved.statistics().ok_or("no statistics")?.channels()[0].mean;

    let of_all = SyncBatchNorm::new(BatchNormConfig::torch(1), [host])?;
    let of_all = of_all.named("bn2").in_group(&world)?;
    if world.rank() == 2 {
        thread::sleep(2 * world.deadline());
    }
    let late = of_all.forward_train(&x).await.err().ok_or("nobody missed rank 2")?;
    Ok((mean, late.to_string()))
}
