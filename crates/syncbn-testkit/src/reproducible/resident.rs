//! A `BatchNorm` and a `SyncBatchNorm` of the same settings, and what they make of a batch.

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, Gradients, Saved, SyncBatchNorm, Tensor,
};

use super::batch::{Cut, Whole};
use super::findings::bits_of;

/// What a step gives, as bits.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// Running mean, running variance and the counter, where there are some.
    pub running: Vec<Vec<u32>>,
    /// Mean and inverse deviation that rank 0 was normalized with, as f32.
    pub mean_and_inv_std: [Vec<u32>; 2],
    /// Gradients of weight and bias of every rank.
    pub parameters: Vec<Vec<u32>>,
    pub y: Vec<Vec<u32>>,
    pub grad_input: Vec<Vec<u32>>,
}

fn values(tensor: &Tensor) -> Vec<u32> {
    bits_of(&block_on(tensor.to_vec()).expect("values"))
}

/// The tensors of a step, all ranks on one device.
struct Step<'w> {
    whole: &'w Whole,
    cut: &'w Cut,
    x: Vec<Tensor>,
    grad_output: Vec<Tensor>,
    lists: Option<Vec<Vec<u32>>>,
    train: bool,
}

impl<'w> Step<'w> {
    fn new(whole: &'w Whole, cut: &'w Cut, device: &Device, train: bool) -> Self {
        let x = cut.iter().map(|rank| whole.upload_x(device, rank)).collect();
        let grad_output = cut.iter().map(|rank| whole.upload_grad_output(device, rank)).collect();
        Self { whole, cut, x, grad_output, lists: whole.lists(cut), train }
    }

    fn forward(&self) -> Forward<'_, Vec<Tensor>> {
        let mut forward = Forward::of(&self.x);
        if let Some(lists) = &self.lists {
            forward = forward.lengths(lists);
        }
        if self.whole.epilogue.residual { forward.residual(&self.x) } else { forward }
    }

    fn backward(&self) -> Backward<'_, Vec<Tensor>> {
        let backward = Backward::of(&self.x, &self.grad_output);
        if self.whole.epilogue.residual { backward.residual(&self.x) } else { backward }
    }

    fn found(
        &self,
        y: &[Tensor],
        gradients: Gradients<Vec<Tensor>>,
        running: Option<syncbn::stats::RunningStats>,
        mean_and_inv_std: [Vec<u32>; 2],
    ) -> Found {
        let running = running.into_iter().flat_map(|running| {
            let batches = vec![running.num_batches_tracked as u32];
            [bits_of(&running.mean), bits_of(&running.var), batches]
        });
        let parameters = [gradients.weight, gradients.bias].into_iter().flatten().flatten();
        Found {
            running: running.collect(),
            mean_and_inv_std,
            parameters: parameters.map(|tensor| values(&tensor)).collect(),
            y: self.whole.by_sample(y, self.cut),
            grad_input: self.whole.by_sample(&gradients.input, self.cut),
        }
    }
}

/// So many steps of a `BatchNorm`, and what the last one gives.
pub fn on_device(
    config: &BatchNormConfig,
    (whole, cut): (&Whole, &Cut),
    device: &Device,
    (train, steps): (bool, usize),
) -> Found {
    let layer = BatchNorm::new(config.clone(), device).expect("a layer");
    let step = Step::new(whole, cut, device, train);
    let take = || {
        let forward = if step.train {
            layer.forward_train(step.forward())
        } else {
            layer.forward_eval(step.forward())
        };
        let forward = forward.expect("forward");
        let gradients = layer.backward(&forward.saved, step.backward()).expect("backward");
        (forward, gradients)
    };
    (1..steps).for_each(|_| drop(take()));
    let (forward, gradients) = take();
    let running = block_on(layer.running_stats()).expect("a read");
    let of_batch = forward.saved.mean_and_inv_std(0).expect("statistics of the batch");
    step.found(&forward.output, gradients, running, of_batch.map(values))
}

/// The same of a `SyncBatchNorm` with all ranks on one device, the host or a GPU.
pub fn on_host(
    config: &BatchNormConfig,
    (whole, cut): (&Whole, &Cut),
    device: &Device,
    (train, steps): (bool, usize),
) -> Found {
    let devices = vec![device.clone(); cut.len()];
    let layer = SyncBatchNorm::new(config.clone(), devices).expect("a layer");
    let step = Step::new(whole, cut, device, train);
    let take = || {
        let forward = block_on(async {
            if step.train {
                layer.forward_train(step.forward()).await
            } else {
                layer.forward_eval(step.forward()).await
            }
        });
        let forward = forward.expect("forward");
        let gradients = layer.backward(&forward.saved, step.backward());
        let gradients = block_on(gradients).expect("backward");
        (forward, gradients)
    };
    (1..steps).for_each(|_| drop(take()));
    let (forward, gradients) = take();
    let of_batch = statistics_of(&forward.saved, config.eps);
    step.found(&forward.output, gradients, layer.running_stats(), of_batch)
}

/// The mean and 1/√(var + eps) of rank 0, rounded to f32 from the f64 of the host.
fn statistics_of(saved: &Saved, eps: f64) -> [Vec<u32>; 2] {
    let of_rank = || saved.report().expect("a report").local.ranks()[0].as_slice();
    let channels = saved.statistics().map_or_else(of_rank, |global| global.channels());
    let mean = channels.iter().map(|of| of.mean as f32).collect::<Vec<f32>>();
    let root = |of: &syncbn::stats::Moments| (of.inv_std(eps) as f32).clamp(0.0, f32::MAX);
    let inv_std = channels.iter().map(root).collect::<Vec<f32>>();
    [bits_of(&mean), bits_of(&inv_std)]
}

/// Refuses what differs from other findings; y and grad_input only where `alike` says that the
/// devices are of one kind.
pub fn assert_same(found: &Found, expected: &Found, alike: bool, what: &str) {
    let named = |of: &Found| {
        let running = of.running.iter().map(|of| ("running statistics", of.clone()));
        let statistics = of.mean_and_inv_std.iter().map(|of| ("mean, inv_std", of.clone()));
        let parameters = of.parameters.iter().map(|of| ("gradients of weight, bias", of.clone()));
        running.chain(statistics).chain(parameters).collect::<Vec<_>>()
    };
    let [listed, wanted] = [found, expected].map(named);
    assert_eq!(listed.len(), wanted.len(), "{what}");
    for ((name, found), (_, expected)) in listed.into_iter().zip(wanted) {
        for (channel, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let [of, wanted] = [found, expected].map(|of| f32::from_bits(*of));
            let is_same = found == expected || (of.is_nan() && wanted.is_nan());
            assert!(is_same, "{what}: {name} of {channel} is {of:e}, expected {wanted:e}");
        }
    }
    if alike {
        assert!(found.y == expected.y, "{what}: y");
        assert!(found.grad_input == expected.grad_input, "{what}: grad_input");
    }
}
