//! The time of a step's exchanges, for each way to exchange.

use crate::measure::Costs;

/// Numbers of ranks that the table has: powers of two.
pub const RANKS: [usize; 14] =
    [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
/// Ranks of the process groups in the table: the devices of one machine, often.
pub const GROUP: usize = 8;

/// The stages of ResNet-50: blocks, and channels of a block's first two layers; the third has four
/// times as many, and so has the one beside a stage's first block.
const STAGES: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
/// Channels of the layer before the first stage.
const STEM: usize = 64;
/// Forward and backward.
const PASSES: usize = 2;
/// Bytes of a message beside its numbers: the length of the frame, its header, a name such as
/// `layer3.0.bn2`, and the place of a node.
const HEADER_BYTES: usize = 134;
/// Bytes per channel: two f64.
const CHANNEL_BYTES: usize = 16;

/// How exchanges go.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Every rank sends its message to every other and merges all.
    Gathered,
    /// All-reduce: messages merge up the tree, and the result comes down.
    Merged,
    /// Gathered in process groups of this many ranks.
    Groups(usize),
}

/// Channels of every layer.
fn layers() -> impl Iterator<Item = usize> {
    let stage = |(blocks, width): (usize, usize)| {
        let of_blocks = (0..blocks).flat_map(move |_| [width, width, 4 * width]);
        of_blocks.chain([4 * width])
    };
    [STEM].into_iter().chain(STAGES.into_iter().flat_map(stage))
}

/// Exchanges of a step.
pub fn exchanges() -> usize {
    PASSES * layers().count()
}

impl Way {
    /// Seconds of all exchanges of a step.
    pub fn step_seconds(self, costs: &Costs, ranks: usize) -> f64 {
        PASSES as f64
            * layers().map(|channels| self.exchange_seconds(costs, ranks, channels)).sum::<f64>()
    }

    fn exchange_seconds(self, costs: &Costs, ranks: usize, channels: usize) -> f64 {
        let bytes = HEADER_BYTES + CHANNEL_BYTES * channels;
        let merging = costs.merging.seconds(bytes);
        match self {
            // The first message takes its time, each other its share; then all are merged.
            Self::Gathered => {
                let others = ranks.saturating_sub(1) as f64;
                let messages = costs.alone.seconds(bytes)
                    + (others - 1.0).max(0.0) * costs.of_many.seconds(bytes);
                messages + ranks as f64 * merging
            }
            // Two messages are decoded, and the result encoded, at every step up; nothing is done
            // on the way down.
            Self::Merged => {
                let steps = f64::from(ranks.next_power_of_two().ilog2());
                2.0 * steps * costs.alone.seconds(bytes) + 3.0 * steps * merging
            }
            Self::Groups(size) => Self::Gathered.exchange_seconds(costs, ranks.min(size), channels),
        }
    }
}

/// Whether a step costs less with an all-reduce along the tree than gathered.
pub fn merging_pays(costs: &Costs, ranks: usize) -> bool {
    Way::Merged.step_seconds(costs, ranks) < Way::Gathered.step_seconds(costs, ranks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::LinearCost;

    /// A microsecond for each message, a nanosecond for each byte, and nothing else.
    const PLAIN: Costs = Costs {
        alone: LinearCost { fixed: 1e-6, per_byte: 1e-9 },
        of_many: LinearCost { fixed: 1e-6, per_byte: 1e-9 },
        merging: LinearCost { fixed: 0.0, per_byte: 0.0 },
    };

    #[test]
    fn a_step_of_resnet_50_has_106_exchanges_of_26560_channels_forward() {
        assert_eq!((exchanges(), layers().sum::<usize>()), (106, 26_560));
    }

    #[test]
    fn gathering_grows_with_the_ranks_and_merging_with_their_logarithm() {
        // Forward and backward, 53 layers: bytes of all layers, and a message of each.
        let step = 2.0 * (53.0 * 1e-6 + (26_560.0 * 16.0 + 53.0 * 134.0) * 1e-9);
        let near = |found: f64, expected: f64| {
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}")
        };
        near(Way::Gathered.step_seconds(&PLAIN, 9), 8.0 * step);
        near(Way::Merged.step_seconds(&PLAIN, 1024), 20.0 * step);
        near(Way::Merged.step_seconds(&PLAIN, 1025), 22.0 * step);
        near(Way::Groups(9).step_seconds(&PLAIN, 1024), 8.0 * step);
        assert!(merging_pays(&PLAIN, 1024) && !merging_pays(&PLAIN, 4));
    }
}
