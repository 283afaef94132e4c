//! Layers over several processes against the same ranks in one process: every bit must be equal.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use syncbn::collective::LocalGroup;
use syncbn::{Backward, BatchNormConfig, Device, ProcessGroup, SyncBatchNorm, Tensor};
use syncbn_mpi::Mpi;

use crate::scenes::{Reported, group};

const CHANNELS: usize = 5;
/// Training steps of each comparison.
const STEPS: u64 = 3;

/// Numbers that differ in every place; one spike, so that the order of additions shows.
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let next = |index: usize| {
        let value = (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        if index == 0 { 1000.0 * value } else { value - 0.3 }
    };
    (0..len).map(next).collect()
}

/// The batch of a rank: of different sizes, that of rank 2 empty.
fn upload(rank: usize, step: u64, seed: u64) -> Result<Tensor, syncbn::Error> {
    let dims = [if rank == 2 { 0 } else { 1 + rank % 3 }, CHANNELS, 2 + rank % 2];
    Device::host().upload(&dims, &values(dims.iter().product(), seed + 1000 * step + rank as u64))
}

/// The bits of everything that a few steps of training give, for the ranks from `first` on.
fn train(layer: SyncBatchNorm, first: usize) -> Result<Vec<Vec<u32>>, syncbn::Error> {
    let ranks = first..first + layer.devices().len();
    let mut bits = Vec::new();
    for step in 0..STEPS {
        let all = |seed| {
            ranks.clone().map(|rank| upload(rank, step, seed)).collect::<Result<Vec<_>, _>>()
        };
        let inputs = all(1)?;
        let grad_outputs = all(2)?;
        let forward = pollster::block_on(layer.forward_train(&inputs))?;
        let backward = pollster::block_on(
            layer.backward(&forward.saved, Backward::of(&inputs, &grad_outputs)),
        )?;
        for tensor in forward.output.iter().chain(&backward.input) {
            bits.push(pollster::block_on(tensor.to_vec())?.into_iter().map(f32::to_bits).collect());
        }
    }
    let running = layer.running_stats().ok_or(syncbn::error::ConfigError::NoDevices)?;
    bits.push(running.mean.into_iter().chain(running.var).map(f32::to_bits).collect());
    Ok(bits)
}

fn devices(count: usize) -> Vec<Device> {
    vec![Device::host(); count]
}

/// Results of the ranks `first .. first + own` of `total` in one process, in the order of
/// [`train`].
fn expected(total: usize, first: usize, own: usize) -> Result<Vec<Vec<u32>>, syncbn::Error> {
    let all = train(SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices(total))?, 0)?;
    let (running, tensors) = all.split_last().ok_or(syncbn::error::ConfigError::NoDevices)?;
    let of_ranks = tensors.chunks(total).flat_map(|ranks| ranks[first..first + own].to_vec());
    Ok(of_ranks.chain([running.clone()]).collect())
}

fn compare(
    layer: SyncBatchNorm,
    total: usize,
    first: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let own = layer.devices().len();
    if train(layer, first)? != expected(total, first, own)? {
        return Err(
            format!("ranks {first} to {} of {total} have other bits", first + own - 1).into()
        );
    }
    Ok(())
}

/// Process p holds p % 3 + 1 devices: its nodes of the tree begin and end anywhere.
pub fn over_processes(mpi: &Mpi, all_reduced: bool) -> Reported {
    let group = group(mpi, all_reduced)?;
    let counts: Vec<usize> = (0..group.world_size()).map(|process| process % 3 + 1).collect();
    let rank = group.rank();
    let config = BatchNormConfig::torch(CHANNELS);
    let layer = SyncBatchNorm::new(config, devices(counts[rank]))?.in_group(&group)?;
    compare(layer, counts.iter().sum(), counts[..rank].iter().sum())?;
    compare_sums(&group)?;
    Ok("the bits of one process".to_owned())
}

/// Sums of values of the program's own, which are exact.
fn compare_sums(group: &ProcessGroup) -> Result<(), Box<dyn std::error::Error>> {
    let mut values = [group.rank() as f32, 0.25, -1.0];
    let ranks = group.world_size() as f32;
    pollster::block_on(group.all_reduce_sum([&mut values[..]]))?;
    if values != [ranks * (ranks - 1.0) / 2.0, ranks / 4.0, -ranks] {
        return Err(format!("{values:?} are not the sums of {ranks} ranks").into());
    }
    Ok(())
}

fn one_device(group: &ProcessGroup) -> Result<SyncBatchNorm, syncbn::Error> {
    SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices(1))?.in_group(group)
}

/// One device for each process, and the number of ranks decides about the way.
pub fn of_many(mpi: &Mpi) -> Reported {
    let group = group(mpi, false)?;
    compare(one_device(&group)?, group.world_size(), group.rank())?;
    compare_sums(&group)?;
    Ok("the bits of one process".to_owned())
}

/// Ranks 0, 2 and 1, 3, from the whole partition and from each rank's own group; then groups of
/// these.
pub fn in_groups(mpi: &Mpi) -> Reported {
    let world = group(mpi, false)?;
    let own = [world.rank() % 2, world.rank() % 2 + 2];
    let by_partition = pollster::block_on(world.partition(&[vec![0, 2], vec![3, 1]]))?;
    let by_subgroup = pollster::block_on(world.subgroup(&own))?;
    for group in [&by_partition, &by_subgroup] {
        if group.world_ranks() != own {
            return Err(format!("a group of {:?}, expected {own:?}", group.world_ranks()).into());
        }
        compare(one_device(group)?, 2, group.rank())?;
    }
    refusals(&world)?;
    let alone = pollster::block_on(by_subgroup.partition(&[vec![0], vec![1]]))?;
    if alone.world_ranks() != [world.rank()] {
        return Err(format!("a group of {:?}, expected this rank", alone.world_ranks()).into());
    }
    Ok("both forms agree".to_owned())
}

/// Impossible groups are refused as among the ranks of one process, and the group goes on.
fn refusals(world: &ProcessGroup) -> Result<(), Box<dyn std::error::Error>> {
    let lists = [vec![vec![0, 1], vec![1, 2, 3]], vec![vec![0, 4]]];
    for lists in lists {
        let found = pollster::block_on(world.partition(&lists)).map(|_| ());
        let local = std::thread::scope(|scope| {
            let ranks = LocalGroup::ranks(world.world_size()).into_iter().map(ProcessGroup::new);
            let ranks =
                ranks.map(|group| scope.spawn(|| pollster::block_on(move_in(group, &lists))));
            ranks.collect::<Vec<_>>().into_iter().filter_map(|rank| rank.join().ok()).next_back()
        });
        if Some(&found) != local.as_ref() || found.is_ok() {
            return Err(format!("{lists:?}: {found:?}, in one process {local:?}").into());
        }
    }
    Ok(())
}

async fn move_in(group: ProcessGroup, lists: &[Vec<usize>]) -> Result<(), syncbn::Error> {
    group.partition(lists).await.map(|_| ())
}
