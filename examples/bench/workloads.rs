//! Owns the workloads: their names, shapes and cut over ranks, and the bytes that a pass over one has to move.

use syncbn::{DType, Epilogue, Layout};

/// A shape under its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its own name.
    pub name: &'static str,
    /// Where such shapes come from.
    group: &'static str,
    /// (N, C, spatial…) of the whole batch.
    pub dims: &'static [usize],
}

/// The name that stands for every workload.
pub const ALL: &str = "all";

/// The batch normalization layers of a ResNet-50 at a batch of 32, and shapes of other kinds: a perceptron, a video
/// network, a network over points, and one so small that only the cost of a call shows.
pub const WORKLOADS: [Workload; 10] = [
    Workload { name: "rn_64x112", group: "resnet50", dims: &[32, 64, 112, 112] },
    Workload { name: "rn_256x56", group: "resnet50", dims: &[32, 256, 56, 56] },
    Workload { name: "rn_128x28", group: "resnet50", dims: &[32, 128, 28, 28] },
    Workload { name: "rn_512x28", group: "resnet50", dims: &[32, 512, 28, 28] },
    Workload { name: "rn_1024x14", group: "resnet50", dims: &[32, 1024, 14, 14] },
    Workload { name: "rn_2048x7", group: "resnet50", dims: &[32, 2048, 7, 7] },
    Workload { name: "mlp_4096x1024", group: "mlp", dims: &[4096, 1024] },
    Workload { name: "video", group: "video", dims: &[4, 64, 16, 56, 56] },
    Workload { name: "pointcloud", group: "points", dims: &[32, 128, 4096] },
    Workload { name: "tiny", group: "tiny", dims: &[8, 16, 8, 8] },
];

/// Everything that [`Workload::answers_to`], each once.
pub fn names() -> Vec<&'static str> {
    let mut names = vec![ALL];
    for name in WORKLOADS.iter().map(|w| w.group).chain(WORKLOADS.iter().map(|w| w.name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Workload {
    /// Whether it is meant by a name.
    pub fn answers_to(&self, name: &str) -> bool {
        [ALL, self.group, self.name].contains(&name)
    }

    /// N.
    pub fn batch(&self) -> usize {
        self.dims[0]
    }

    /// C.
    pub fn channels(&self) -> usize {
        self.dims[1]
    }

    /// Bytes of x, the whole batch of it.
    pub fn bytes(&self, dtype: DType) -> u64 {
        self.dims.iter().map(|&size| size as u64).product::<u64>() * dtype.size_bytes()
    }

    /// (N, C, spatial…) of every rank: the batch cut as evenly as it goes.
    pub fn shards(&self, ranks: usize) -> Vec<Vec<usize>> {
        let start = |rank: usize| self.batch() * rank / ranks;
        let shard = |rank| [&[start(rank + 1) - start(rank)], &self.dims[1..]].concat();
        (0..ranks).map(shard).collect()
    }
}

/// The dimensions (N, C, spatial…) as they lie in memory.
pub fn stored(dims: &[usize], layout: Layout) -> Vec<usize> {
    let mut stored = dims.to_vec();
    if layout == Layout::ChannelsLast {
        stored[1..].rotate_left(1);
    }
    stored
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Forward in training.
    Forward,
    /// The gradients of it.
    Backward,
    /// Forward with the running statistics.
    Eval,
}

impl Pass {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Eval];

    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Eval => "eval",
        }
    }

    /// How many times the bytes of x a pass has to move at least, where nothing stays in a cache. Parameters and sums, a few
    /// numbers per channel, are not counted.
    ///
    /// | pass | reads | writes |
    /// |---|---|---|
    /// | forward | x for the statistics, x again | y |
    /// | backward | x and the upstream gradient for the sums, both again | grad_input |
    /// | eval | x | y |
    ///
    /// The activation costs nothing: its side follows from x. A residual that is added is read once forward, and once
    /// backward: the sums can write its gradient, which is read in place of both afterwards.
    pub fn tensors_moved(self, epilogue: Epilogue) -> u64 {
        let residual = u64::from(epilogue.adds_residual());
        match self {
            Self::Forward => 3 + residual,
            Self::Backward => 5 + 2 * residual,
            Self::Eval => 2 + residual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_without_loss_and_evenly() {
        for (workload, ranks) in WORKLOADS.iter().flat_map(|workload| [1, 2, 3, 4].map(|ranks| (workload, ranks))) {
            let shards = workload.shards(ranks);
            let sizes: Vec<usize> = shards.iter().map(|dims| dims[0]).collect();
            assert_eq!(sizes.iter().sum::<usize>(), workload.batch(), "{}", workload.name);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            assert!(shards.iter().all(|dims| dims[1..] == workload.dims[1..]));
        }
    }

    #[test]
    fn channels_last_puts_the_channels_at_the_end() {
        assert_eq!(stored(&[4, 64, 16, 56, 57], Layout::ChannelsLast), [4, 16, 56, 57, 64]);
        assert_eq!(stored(&[4, 64, 16], Layout::ChannelsFirst), [4, 64, 16]);
        assert_eq!(stored(&[4, 64], Layout::ChannelsLast), [4, 64]);
    }

    #[test]
    fn bytes_follow_the_storage_type() {
        let tiny = &WORKLOADS[9];
        assert_eq!((tiny.bytes(DType::F32), tiny.bytes(DType::BF16)), (32_768, 16_384));
    }

    #[test]
    fn passes_move_at_least_what_their_formulas_read_and_write() {
        let moved = |epilogue| Pass::ALL.map(|pass| pass.tensors_moved(epilogue));
        assert_eq!(moved(Epilogue::None), [3, 5, 2]);
        assert_eq!(moved(Epilogue::Relu), [3, 5, 2]);
        // Backward: x, g, residual; the residual's gradient out and in again; x again; grad_input.
        assert_eq!(moved(Epilogue::AddRelu), [4, 7, 3]);
    }

    #[test]
    fn names_are_offered_once() {
        let names = names();
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
        assert!(WORKLOADS.iter().all(|w| names.contains(&w.name) && names.contains(&w.group)));
    }
}
