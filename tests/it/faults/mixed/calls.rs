//! The calls of one rank of a drawn training.

use futures::future::join;
use syncbn::stats::RunningStats;
use syncbn::{Backward, Error, ProcessGroup, Saved, SyncBatchNorm, Tensor, joint};

use crate::faults::mixed::scenario::{CHANNELS, Call, Fault, Scenario, Way};

/// What a call gave: values of each layer that took part, or of the group.
pub type Output = Vec<Vec<f32>>;

/// The layers of a rank, and what backward needs.
pub struct Layers {
    pub layers: [SyncBatchNorm; 2],
    saved: [Option<(Saved, Tensor)>; 2],
}

/// The sum that `Way::Sum` expects, and what a rank adds to it.
pub fn part(rank: usize) -> [f32; 2] {
    [rank as f32 + 1.0, 0.5]
}

/// The partition of `Way::Split`: even and odd ranks.
pub fn lists(world_size: usize) -> Vec<Vec<usize>> {
    (0..2).map(|first| (first..world_size).step_by(2).collect()).collect()
}

impl Layers {
    pub fn new(layers: [SyncBatchNorm; 2]) -> Self {
        Self { layers, saved: [None, None] }
    }

    pub fn running(&self) -> Vec<RunningStats> {
        self.layers.iter().map(|layer| layer.running_stats().expect("running statistics")).collect()
    }

    /// This rank's input and upstream gradient of a layer; of a wrong shape where that is planted.
    fn tensors(&self, scenario: &Scenario, rank: usize, call: Call, layer: usize) -> [Tensor; 2] {
        let bad = scenario.fault(rank) == Some(Fault::BadShape) && call.number == scenario.at;
        let device = &self.layers[layer].devices()[0];
        let [x, g] = scenario.data(call.step, layer);
        [(x, bad && call.forward), (g, bad && !call.forward)].map(|(batches, bad)| match bad {
            true => device.zeros(&[2, CHANNELS[layer] + 1]).expect("a tensor"),
            false => batches[rank].upload(device),
        })
    }

    /// Makes the call. `before` is called when its tensors are there.
    pub async fn make(
        &mut self,
        scenario: &Scenario,
        group: &ProcessGroup,
        call: Call,
        before: impl FnOnce(),
    ) -> Result<Output, Error> {
        let rank = group.rank();
        let tensors: Vec<_> = call
            .way
            .layers()
            .iter()
            .map(|&layer| self.tensors(scenario, rank, call, layer))
            .collect();
        before();
        match call.way {
            Way::Single(layer) => self.single(layer, tensors, call.forward).await,
            Way::Joint => self.joint(tensors, call.forward).await,
            Way::Started => self.started(tensors, call.forward).await,
            Way::Share(layer) => {
                // Of rank 0 it stays 1, and of every other rank it must become so.
                let own = vec![1.0 + rank as f32; CHANNELS[layer]];
                self.layers[layer].set_parameters(Some(&own), None)?;
                self.layers[layer].broadcast_state(0).await?;
                let state = self.layers[layer].state().await?;
                Ok(vec![state.weight.expect("a weight")])
            }
            Way::Sum => {
                let mut values = part(rank);
                group.all_reduce_sum([&mut values]).await?;
                Ok(vec![values.to_vec()])
            }
            Way::Split => {
                let part = group.partition(&lists(group.world_size())).await?;
                Ok(vec![part.world_ranks().iter().map(|rank| *rank as f32).collect()])
            }
        }
    }

    async fn single(
        &mut self,
        layer: usize,
        mut tensors: Vec<[Tensor; 2]>,
        forward: bool,
    ) -> Result<Output, Error> {
        let [x, g] = tensors.remove(0);
        let bn = &self.layers[layer];
        let output = if forward {
            let forward = bn.forward_train(&x).await?;
            self.saved[layer] = Some((forward.saved, x));
            forward.output
        } else {
            let (saved, x) = self.saved[layer].as_ref().expect("forward before backward");
            bn.backward(saved, Backward::of(x, &g)).await?.input
        };
        Ok(vec![output.to_vec().await?])
    }

    /// The layers are on the same device, as joint calls want it.
    async fn joint(&mut self, tensors: Vec<[Tensor; 2]>, forward: bool) -> Result<Output, Error> {
        let [first, second] = &self.layers;
        let mut outputs = Vec::new();
        if forward {
            let calls = [(first, &tensors[0][0]), (second, &tensors[1][0])];
            let made = joint::forward_train(calls).await?;
            for (layer, (forward, [x, _])) in made.into_iter().zip(tensors).enumerate() {
                self.saved[layer] = Some((forward.saved, x));
                outputs.push(forward.output.to_vec().await?);
            }
        } else {
            let [Some((a, x)), Some((b, y))] = &self.saved else { panic!("forward before") };
            let calls = [
                (first, a, Backward::of(x, &tensors[0][1])),
                (second, b, Backward::of(y, &tensors[1][1])),
            ];
            for gradients in joint::backward(calls).await? {
                outputs.push(gradients.input.to_vec().await?);
            }
        }
        Ok(outputs)
    }

    async fn started(&mut self, tensors: Vec<[Tensor; 2]>, forward: bool) -> Result<Output, Error> {
        let [first, second] = &self.layers;
        let [[x, of_x], [y, of_y]] = <[_; 2]>::try_from(tensors).expect("two layers");
        if forward {
            let locals = (first.local_statistics(&x).await?, second.local_statistics(&y).await?);
            let a = first.synchronize(locals.0).start();
            let b = second.synchronize(locals.1).start();
            let (b, a) = join(b, a).await;
            let a = a?;
            let b = b?;
            let a = first.normalize(&x, &a).await?;
            let b = second.normalize(&y, &b).await?;
            let outputs = vec![a.output.to_vec().await?, b.output.to_vec().await?];
            self.saved = [Some((a.saved, x)), Some((b.saved, y))];
            return Ok(outputs);
        }
        let [Some((a, x)), Some((b, y))] = &self.saved else { panic!("forward before") };
        let of_x = || Backward::of(x, &of_x);
        let of_y = || Backward::of(y, &of_y);
        let locals = (
            first.local_gradient_sums(a, of_x()).await?,
            second.local_gradient_sums(b, of_y()).await?,
        );
        let sums = first.synchronize(locals.0).start();
        let others = second.synchronize(locals.1).start();
        let (others, sums) = join(others, sums).await;
        let sums = sums?;
        let others = others?;
        let first = first.input_gradients(a, of_x(), &sums).await?;
        let second = second.input_gradients(b, of_y(), &others).await?;
        Ok(vec![first.input.to_vec().await?, second.input.to_vec().await?])
    }
}
