//! Owns the workloads: their names, shapes and split over ranks, and the bytes that a pass must
//! move.

use syncbn::{DType, Layout, low_level::Epilogue};

/// A shape under its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its own name.
    pub name: &'static str,
    /// Where such shapes come from.
    pub group: &'static str,
    /// (N, C, spatial…) of the whole batch.
    pub dims: &'static [usize],
}

/// The name that stands for every workload.
pub const ALL: &str = "all";

/// The batch normalization layers of a ResNet-50 at a batch of 32, and shapes of other kinds: a
/// perceptron, a video network, a network over points, and one so small that only the cost of a
/// call shows.
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

/// x of 1 MiB to 2 GiB in f32, to see how cost grows with size. [`ALL`] leaves them out.
pub const GROWTH: [Workload; 12] = [
    grown("1MB", &[1, 64, 64, 64]),
    grown("2MB", &[2, 64, 64, 64]),
    grown("4MB", &[4, 64, 64, 64]),
    grown("8MB", &[8, 64, 64, 64]),
    grown("16MB", &[16, 64, 64, 64]),
    grown("32MB", &[32, 64, 64, 64]),
    grown("64MB", &[64, 64, 64, 64]),
    grown("128MB", &[128, 64, 64, 64]),
    grown("256MB", &[256, 64, 64, 64]),
    grown("512MB", &[512, 64, 64, 64]),
    grown("1GB", &[1024, 64, 64, 64]),
    grown("2GB", &[2048, 64, 64, 64]),
];

const fn grown(name: &'static str, dims: &'static [usize]) -> Workload {
    Workload { name, group: "growth", dims }
}

/// Every workload, those of growth last.
pub fn all() -> impl Iterator<Item = &'static Workload> + Clone {
    WORKLOADS.iter().chain(&GROWTH)
}

/// Everything that [`Workload::answers_to`], each once.
pub fn names() -> Vec<&'static str> {
    let mut names = vec![ALL];
    for name in all().map(|w| w.group).chain(all().map(|w| w.name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Workload {
    /// Whether it is meant by a name.
    pub fn answers_to(&self, name: &str) -> bool {
        let is_grown = GROWTH.iter().any(|grown| grown.name == self.name);
        [self.group, self.name].contains(&name) || (name == ALL && !is_grown)
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

/// A timed pass.
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

    /// Least traffic of a pass without caches, in multiples of the bytes of x. Parameters and sums
    /// are not counted: they are a few numbers per channel.
    ///
    /// | pass | reads | writes |
    /// |---|---|---|
    /// | forward | x for the statistics, x again | y |
    /// | backward | x and the upstream gradient for the sums, both again | grad_input |
    /// | eval | x | y |
    ///
    /// The activation costs nothing, because x shows where it is active. Forward reads a residual
    /// once. Backward writes the residual's gradient, and reads forward's mask of one bit per value
    /// twice. Without a mask it reads the residual once: the sums write the residual's gradient,
    /// and `grad_input` reads that in place of residual and upstream gradient.
    pub fn tensors_moved(self, epilogue: Epilogue, dtype: DType, mask: bool) -> f64 {
        let adds = epilogue.adds_residual();
        let bits = if adds && mask { 1.0 / (8 * dtype.size_bytes()) as f64 } else { 0.0 };
        match (self, adds) {
            (Self::Forward, false) => 3.0,
            (Self::Forward, true) => 4.0 + bits,
            (Self::Backward, false) => 5.0,
            (Self::Backward, true) if mask => 6.0 + 2.0 * bits,
            (Self::Backward, true) => 7.0,
            (Self::Eval, false) => 2.0,
            (Self::Eval, true) => 3.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_without_loss_and_evenly() {
        for (workload, ranks) in
            WORKLOADS.iter().flat_map(|workload| [1, 2, 3, 4].map(|ranks| (workload, ranks)))
        {
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
        let moved =
            |epilogue, mask| Pass::ALL.map(|pass| pass.tensors_moved(epilogue, DType::F32, mask));
        assert_eq!(moved(Epilogue::NONE, true), [3.0, 5.0, 2.0]);
        assert_eq!(moved(Epilogue::RELU, true), [3.0, 5.0, 2.0]);
        // Backward: x, g, residual; the residual's gradient out and in again; x again; grad_input.
        assert_eq!(moved(Epilogue::ADD_RELU, false), [4.0, 7.0, 3.0]);
        // Backward: x, g and the mask twice; grad_input and grad_residual.
        assert_eq!(moved(Epilogue::ADD_RELU, true), [4.0 + 1.0 / 32.0, 6.0 + 2.0 / 32.0, 3.0]);
        let of_16_bits = Pass::Forward.tensors_moved(Epilogue::ADD_RELU, DType::F16, true);
        assert_eq!(of_16_bits, 4.0 + 1.0 / 16.0);
    }

    #[test]
    fn growth_doubles_from_a_mebibyte_and_is_asked_for_by_name() {
        for (workload, power) in GROWTH.iter().zip(20..) {
            assert_eq!(workload.bytes(DType::F32), 1u64 << power, "{}", workload.name);
            assert!(workload.answers_to("growth") && !workload.answers_to(ALL));
        }
    }

    #[test]
    fn names_are_offered_once() {
        let names = names();
        assert!(all().count() == 22 && names.contains(&"growth"));
        assert!(
            names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1),
            "{names:?}"
        );
        assert!(WORKLOADS.iter().all(|w| names.contains(&w.name) && names.contains(&w.group)));
    }
}
