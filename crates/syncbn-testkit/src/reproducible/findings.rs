//! What a layer makes of a batch in a training step, as bits.

use pollster::block_on;
use syncbn::stats::GlobalGradientSums;
use syncbn::{Backward, Device, Forward, Saved, SyncBatchNorm, Tensor};

use super::batch::{Cut, Whole};

/// What must not depend on a cut, as bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    pub count: u64,
    /// mean and m2 of every channel.
    pub moments: Vec<[u64; 2]>,
    /// Running mean and variance.
    pub running: [Vec<u32>; 2],
    /// Gradient sums of every channel.
    pub sums: Vec<[u64; 2]>,
    /// Gradients of weight and bias.
    pub parameters: [Vec<u32>; 2],
    /// y and the gradient of x by sample: the same on one kind of device.
    pub y: Vec<Vec<u32>>,
    pub grad_input: Vec<Vec<u32>>,
}

impl Findings {
    /// Refuses what differs from other findings; y and grad_input only where `alike` says that the
    /// devices are of one kind.
    pub fn assert_same(&self, expected: &Self, alike: bool, what: &str) {
        assert_eq!(self.count, expected.count, "{what}: count");
        for (channel, (found, expected)) in self.moments.iter().zip(&expected.moments).enumerate() {
            let [found, expected] = [found, expected].map(|of| of.map(f64::from_bits));
            assert_eq!(found, expected, "{what}: mean and m2 of channel {channel}");
        }
        assert_eq!(self.moments, expected.moments, "{what}: mean and m2");
        assert_eq!(self.running, expected.running, "{what}: running statistics");
        assert_eq!(self.sums, expected.sums, "{what}: gradient sums");
        assert_eq!(self.parameters, expected.parameters, "{what}: gradients of weight and bias");
        if alike {
            assert!(self.y == expected.y, "{what}: y");
            assert!(self.grad_input == expected.grad_input, "{what}: grad_input");
        }
    }
}

/// A training step of a batch, cut into a rank for each device.
pub fn findings(whole: &Whole, cut: &Cut, devices: &[Device]) -> Findings {
    let layer = SyncBatchNorm::new(whole.config(), devices.to_vec()).expect("a layer");
    findings_of(&layer, whole, cut)
}

/// The same of a layer that is there.
pub fn findings_of(layer: &SyncBatchNorm, whole: &Whole, cut: &Cut) -> Findings {
    let ranks = || cut.iter().zip(layer.devices());
    let x: Vec<Tensor> = ranks().map(|(rank, device)| whole.upload_x(device, rank)).collect();
    let grad_output: Vec<Tensor> =
        ranks().map(|(rank, device)| whole.upload_grad_output(device, rank)).collect();
    let mut forward = Forward::of(&x);
    let lists = whole.lists(cut);
    if let Some(lists) = &lists {
        forward = forward.lengths(lists);
    }
    let backward = Backward::of(&x, &grad_output);
    let (forward, backward) = if whole.epilogue.residual {
        (forward.residual(&x), backward.residual(&x))
    } else {
        (forward, backward)
    };
    let forward = block_on(layer.forward_train(forward)).expect("forward");
    let gradients = block_on(layer.backward(&forward.saved, backward)).expect("backward");
    let sums = gradients.report.and_then(|report| report.global).expect("sums of all ranks");
    let parameters = [gradients.weight, gradients.bias].map(|tensors| shared(&tensors.unwrap()));
    found(
        layer,
        (&forward.saved, &sums),
        parameters,
        [whole.by_sample(&forward.output, cut), whole.by_sample(&gradients.input, cut)],
    )
}

pub fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What all ranks have alike.
fn shared(tensors: &[Tensor]) -> Vec<u32> {
    let ranks: Vec<_> =
        tensors.iter().map(|tensor| bits_of(&block_on(tensor.to_vec()).expect("values"))).collect();
    assert!(ranks.iter().all(|rank| *rank == ranks[0]), "ranks differ");
    ranks[0].clone()
}

/// Findings of a step that was taken.
pub fn found(
    layer: &SyncBatchNorm,
    (saved, sums): (&Saved, &GlobalGradientSums),
    parameters: [Vec<u32>; 2],
    [y, grad_input]: [Vec<Vec<u32>>; 2],
) -> Findings {
    let global = saved.statistics().expect("statistics of all ranks");
    let running = layer.running_stats().expect("running statistics");
    let moments = global.channels().iter();
    let sums = sums.channels().iter();
    Findings {
        count: global.count(),
        moments: moments.map(|of| [of.mean.to_bits(), of.m2.to_bits()]).collect(),
        running: [bits_of(&running.mean), bits_of(&running.var)],
        sums: sums.map(|of| [of.sum_dy.to_bits(), of.sum_dy_xmu.to_bits()]).collect(),
        parameters,
        y,
        grad_input,
    }
}
