//! A layer of two ranks on the host, the batch it is shown, and how to find out which statistics it
//! used.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Gradients, SyncBatchNorm, Tensor,
    state::{Naming, StateDict},
};
use syncbn_reference::{Affine, RankBatch, batch_statistics, forward_with_statistics};

/// One channel on two ranks, with different means.
pub const BATCH: [&[f32]; 2] = [&[4.0, 8.0], &[10.0, 14.0, 12.0, 12.0]];

/// Running statistics that no batch here has, so that they are recognized.
const RUNNING: (f32, f32) = (1.0, 25.0);

/// A layer under one configuration.
pub struct Layer {
    pub bn: SyncBatchNorm,
}

/// What a forward call did: whose statistics normalized, and whether the running ones moved.
pub struct Used {
    pub statistics: &'static str,
    pub moved: bool,
}

impl Layer {
    pub fn new(config: BatchNormConfig) -> Result<Self, Error> {
        Ok(Self { bn: SyncBatchNorm::new(config, [Device::host(), Device::host()])? })
    }

    /// One tensor per rank, (N, 1).
    pub fn inputs(&self, batch: [&[f32]; 2]) -> Result<Vec<Tensor>, Error> {
        let ranks = batch.iter().zip(self.bn.devices());
        ranks.map(|(values, device)| device.upload(&[values.len(), 1], values)).collect()
    }

    /// A training step; y of both ranks.
    pub fn train(&self, batch: [&[f32]; 2]) -> Result<Vec<f32>, Error> {
        let inputs = self.inputs(batch)?;
        values(&block_on(self.bn.forward_train(&inputs))?.output)
    }

    /// A training step whose upstream gradient is 1 everywhere, and its gradients.
    pub fn gradients(&self) -> Result<Gradients<Vec<Tensor>>, Error> {
        let inputs = self.inputs(BATCH)?;
        let upstream = self.inputs([&[1.0; 2], &[1.0; 4]])?;
        let saved = block_on(self.bn.forward_train(&inputs))?.saved;
        block_on(self.bn.backward(&saved, Backward::of(&inputs, &upstream)))
    }

    /// The running mean and variance of the one channel; `None` where there are none.
    pub fn running(&self) -> Option<(f32, f32)> {
        let running = self.bn.running_stats()?;
        Some((*running.mean.first()?, *running.var.first()?))
    }

    /// Whose statistics a call normalizes with, found by comparing y with what each of them would
    /// give.
    pub fn used(&mut self, train: bool) -> Result<Used, Error> {
        if self.bn.config().track_running_stats {
            let (mean, var) = RUNNING;
            let running = RunningStats { mean: vec![mean], var: vec![var], num_batches_tracked: 1 };
            self.bn.set_running_stats(running)?;
        }
        let before = self.running();
        let inputs = self.inputs(BATCH)?;
        let forward = block_on(async {
            if train {
                self.bn.forward_train(&inputs).await
            } else {
                self.bn.forward_eval(&inputs).await
            }
        })?;
        let y = values(&forward.output)?;
        let is = |expected: Vec<f64>| {
            y.iter().zip(expected).all(|(y, expected)| (f64::from(*y) - expected).abs() < 1e-5)
        };
        let found =
            candidates(self.bn.config().eps).into_iter().find(|(_, expected)| is(expected.clone()));
        Ok(Used {
            statistics: found.map_or("none of those known", |(name, _)| name),
            moved: self.running() != before,
        })
    }

    /// Names in the file of this layer's state.
    pub fn names(&self, naming: Naming) -> Result<Vec<String>, Error> {
        let bytes = self.state()?.to_safetensors(naming, "")?;
        let file = safetensors::SafeTensors::deserialize(&bytes);
        let mut names: Vec<String> =
            file.iter().flat_map(|file| file.names()).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    pub fn state(&self) -> Result<StateDict, Error> {
        block_on(self.bn.state())
    }
}

/// y of the batch by each kind of statistics.
fn candidates(eps: f64) -> [(&'static str, Vec<f64>); 3] {
    let batch = BATCH.map(|values| values.iter().copied().map(f64::from).collect::<Vec<f64>>());
    let dims = BATCH.map(|values| [values.len(), 1]);
    let ranks = [0, 1].map(|rank| RankBatch { dims: &dims[rank], values: &batch[rank] });
    let with = |ranks: &[RankBatch<'_>], mean: &[f64], var: &[f64]| {
        forward_with_statistics(ranks, mean, var, Affine::default(), eps)
            .unwrap_or_default()
            .concat()
    };
    let by_batch = |ranks: &[RankBatch<'_>]| match batch_statistics(ranks) {
        Ok(statistics) => with(ranks, &statistics.mean, &statistics.var_biased),
        Err(_) => Vec::new(),
    };
    let own = ranks.iter().flat_map(|rank| by_batch(std::slice::from_ref(rank))).collect();
    let (mean, var) = RUNNING;
    [
        ("the group's batch", by_batch(&ranks)),
        ("each rank's own batch", own),
        ("the running ones", with(&ranks, &[mean.into()], &[var.into()])),
    ]
}

/// The values of all ranks one after the other.
pub fn values(tensors: &[Tensor]) -> Result<Vec<f32>, Error> {
    let mut all = Vec::new();
    for tensor in tensors {
        all.extend(block_on(tensor.to_vec())?);
    }
    Ok(all)
}
