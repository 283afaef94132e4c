//! One rank has the bits that it has beside an empty one: what merges ranks takes its tiles, or
//! what sums its only tile does what would merge ranks, and the sums of two ranks are combined
//! before.

use syncbn::config::Activation;
use syncbn::low_level::Epilogue;

use super::On;
use super::one_gpu::passes;
use super::problem::Problem;
use super::stored::{Layouts, Types};

/// The last one with a mask, and without.
const EPILOGUES: [Epilogue; 4] = [Epilogue::NONE, Epilogue::RELU, SILU, Epilogue::ADD_RELU];
const SILU: Epilogue = Epilogue { activation: Activation::Silu, ..Epilogue::NONE };
/// One tile of a channel, of quads, of single values, of every lane, and of a lane with its
/// neighbours; a few tiles, and more than one lane combines.
const SHAPES: [[usize; 3]; 7] = [
    [3, 5, 40],
    [4, 12, 49],
    [16, 3, 600],
    [5, 300, 1],
    [9, 3, 4_000],
    [40, 7, 801],
    [700, 130, 3],
];

#[test]
fn one_rank_has_the_bits_that_it_has_beside_an_empty_one() {
    let mut seed = 40_000;
    for (kind, [samples, channels, inner]) in SHAPES.into_iter().enumerate() {
        for (of_types, types) in Types::all().into_iter().enumerate() {
            for (of_layouts, layouts) in Layouts::all().into_iter().enumerate() {
                // Half of them: of neighbouring shapes, each takes what the other leaves out.
                if !(kind + of_types + of_layouts).is_multiple_of(2) {
                    continue;
                }
                let dims = [vec![samples, channels, inner], vec![0, channels, inner]];
                let epilogue = EPILOGUES[seed as usize / 8 % 4];
                let mut both = Problem::random(&dims, &[types], epilogue, [true, true], seed);
                let keeps_mask = epilogue == Epilogue::ADD_RELU && seed / 32 % 2 == 0;
                both.config = both.config.with_activation_mask(keeps_mask);
                let mut alone = both.clone();
                alone.types.truncate(1);
                for batches in [&mut alone.x, &mut alone.g].into_iter().chain(&mut alone.residuals)
                {
                    batches.truncate(1);
                }
                let on = [On::Native, On::Portable, On::Portable][seed as usize % 3];
                let device = &on.devices(1)[0];
                let [alone, both] =
                    [alone, both].map(|problem| passes(&problem, device, layouts).unwrap());
                for ((uses, alone), (_, both)) in alone.iter().zip(&both) {
                    for (alone, both) in alone.bits().iter().zip(both.bits()) {
                        let what = format!("{dims:?}, {types:?}, {layouts:?}, {uses:?}");
                        assert_eq!(alone.first(), both.first(), "{what}");
                    }
                }
                seed += 1;
            }
        }
    }
}
