//! Ranks in one process's memory take range, sums and outputs of a channel while it is in the
//! cache. Ranks of a process group take them one after the other. Both have the same bits.

use std::time::Duration;

use pollster::block_on;
use syncbn::config::AffineGradient;
use syncbn::low_level::Epilogue;
use syncbn::tensor::Element;
use syncbn::{Backward, BatchNormConfig, Device, Forward, Layout, ProcessGroup, SyncBatchNorm};
use syncbn_testkit::cost::{counting, spent};
use syncbn_testkit::random::Random;
use syncbn_testkit::transport::{on_threads, process_groups};

/// What a rank has: x, gradients and a residual as f32.
type Shard = [Vec<f32>; 3];

/// A batch of which every task has a part, cut over ranks of whole samples.
struct Batch {
    channels: usize,
    len: usize,
    layout: Layout,
    epilogue: Epilogue,
    /// Samples of every rank.
    ranks: Vec<usize>,
}

impl Batch {
    fn shards(&self) -> Vec<Shard> {
        let mut random = Random::new(11);
        let shard = |samples: &usize| {
            [1.0, 3.0, 0.5].map(|scale| {
                let value = |at: usize| {
                    let channel = match self.layout {
                        Layout::ChannelsFirst => at / self.len % self.channels,
                        Layout::ChannelsLast => at % self.channels,
                    };
                    // The first value of a channel, in either layout.
                    let first = match self.layout {
                        Layout::ChannelsFirst => channel * self.len,
                        Layout::ChannelsLast => channel,
                    };
                    // Some channels are exact numbers beside far outliers, or constant.
                    let value = match channel % 7 {
                        3 if at == first => 4000.0,
                        3 => 1.247 * random.normal().signum(),
                        5 => 10_000.1,
                        _ => random.normal() + channel as f64,
                    };
                    (value * scale) as f32
                };
                (0..samples * self.channels * self.len).map(value).collect()
            })
        };
        self.ranks.iter().map(shard).collect()
    }

    fn layer(&self, ranks: usize) -> SyncBatchNorm {
        let config = BatchNormConfig::torch(self.channels)
            .with_residual(self.epilogue.residual)
            .with_activation(self.epilogue.activation)
            .with_affine_gradient(AffineGradient::GroupSum)
            .with_reproducible(true);
        SyncBatchNorm::new(config, vec![Device::host(); ranks]).unwrap()
    }

    /// The bits of everything that a step gives: y, gradients and running statistics, by rank.
    fn step<T: Element>(&self, layer: &SyncBatchNorm, shards: &[Shard]) -> Vec<Vec<Vec<u32>>> {
        let host = Device::host();
        let upload = |which: usize| -> Vec<_> {
            let of_rank = |shard: &Shard| {
                let values: Vec<T> = shard[which].iter().map(|x| T::from_f32(*x)).collect();
                let samples = values.len() / (self.channels * self.len);
                let dims = match self.layout {
                    Layout::ChannelsFirst => [samples, self.channels, self.len],
                    Layout::ChannelsLast => [samples, self.len, self.channels],
                };
                host.upload(&dims, &values).unwrap().with_layout(self.layout)
            };
            shards.iter().map(of_rank).collect()
        };
        let [x, grad_outputs, residuals] = [0, 1, 2].map(upload);
        let residual = self.epilogue.adds_residual().then_some(&residuals);
        let forward = match residual {
            Some(residual) => Forward::of(&x).residual(residual),
            None => Forward::of(&x),
        };
        let forward = block_on(layer.forward_train(forward)).unwrap();
        let mut backward = Backward::of(&x, &grad_outputs);
        if let Some(residual) = residual {
            backward = backward.residual(residual);
        }
        let gradients = block_on(layer.backward(&forward.saved, backward)).unwrap();
        let running = layer.running_stats().unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let read = |tensor: &syncbn::Tensor| {
            let values: Vec<T> = block_on(tensor.to_vec_of()).unwrap();
            bits(values.iter().map(|value| value.to_f32()).collect())
        };
        let [weight, bias] = [&gradients.weight, &gradients.bias].map(|of| of.as_ref().unwrap());
        (0..shards.len())
            .map(|rank| {
                let [weight, bias] =
                    [weight, bias].map(|of| bits(block_on(of[rank].to_vec()).unwrap()));
                let [y, dx] = [&forward.output, &gradients.input].map(|of| read(&of[rank]));
                vec![y, dx, weight, bias, bits(running.mean.clone()), bits(running.var.clone())]
            })
            .collect()
    }

    /// All ranks of one process, and each in a process group.
    fn check<T: Element>(&self, what: &str) {
        let shards = self.shards();
        let counting = counting();
        spent();
        let fused = self.step::<T>(&self.layer(shards.len()), &shards);
        // Both passes; columns of a batch cannot be taken one by one.
        let expected = if self.layout == Layout::ChannelsFirst { 2 } else { 0 };
        assert_eq!(spent().fused, expected, "{what}: passes channel by channel");
        drop(counting);
        let groups = process_groups(shards.len(), Duration::from_secs(120));
        let per_rank = on_threads(groups.into_iter().zip(&shards).collect(), |(group, shard)| {
            let group: ProcessGroup = group;
            let layer = self.layer(1).in_group(&group).unwrap();
            self.step::<T>(&layer, std::slice::from_ref(shard)).remove(0)
        });
        for (rank, (fused, per_rank)) in fused.iter().zip(&per_rank).enumerate() {
            let names = ["y", "grad_input", "weight", "bias", "running mean", "running var"];
            for ((name, fused), per_rank) in names.iter().zip(fused).zip(per_rank) {
                assert!(fused == per_rank, "{what}: {name} of rank {rank}");
            }
        }
    }
}

#[test]
fn channels_taken_one_by_one_have_the_bits_of_phases() {
    for (channels, len, ranks) in
        [(40, 784, vec![2, 5]), (96, 49, vec![30, 0, 17]), (3, 40, vec![4, 2])]
    {
        for epilogue in [Epilogue::NONE, Epilogue::RELU, Epilogue::ADD_RELU] {
            let layout = Layout::ChannelsFirst;
            let batch = Batch { channels, len, layout, epilogue, ranks: ranks.clone() };
            let what = format!("{ranks:?} samples of {channels} x {len}, {epilogue:?}");
            batch.check::<f32>(&what);
        }
    }
}

#[test]
fn short_storage_types_have_the_bits_of_phases() {
    let layout = Layout::ChannelsFirst;
    let of = |channels| Batch {
        channels,
        len: 196,
        layout,
        epilogue: Epilogue::RELU,
        ranks: vec![9, 8],
    };
    of(80).check::<half::f16>("f16");
    of(50).check::<half::bf16>("bf16");
}

#[test]
fn columns_have_the_same_bits_for_every_caller() {
    let layout = Layout::ChannelsLast;
    let batch =
        Batch { channels: 70, len: 30, layout, epilogue: Epilogue::NONE, ranks: vec![9, 4, 3] };
    batch.check::<f32>("channels last");
}
