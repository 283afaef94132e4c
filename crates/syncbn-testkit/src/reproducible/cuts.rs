//! Every way to cut a batch, and batches of every form.

use syncbn::low_level::Epilogue;
use syncbn::{Device, Layout};

use super::batch::{Cut, Whole};
use crate::random::Random;

/// Batches of every form: a convolution's, odd sizes, matrices, one channel.
pub const FORMS: [(usize, usize, usize); 10] = [
    (12, 10, 49),
    (8, 20, 36),
    (40, 10, 1),
    (9, 11, 5),
    (17, 1, 33),
    (33, 130, 1),
    (6, 10, 1031),
    (7, 23, 4),
    // By fours in both layouts, with one wide channel in a quad.
    (6, 12, 1024),
    // More than a tile of quads, and than the binding that `tests/reproducible/gpus.rs` allows.
    (17, 12, 1024),
];

/// A batch of one of the forms.
pub fn whole(form: usize, last: bool, epilogue: Epilogue) -> Whole {
    let (samples, channels, len) = FORMS[form];
    let layout = if last { Layout::ChannelsLast } else { Layout::ChannelsFirst };
    Whole { layout, epilogue, ..Whole::hard(samples, channels, len, 77 + form as u64) }
}

/// All samples on one rank, in their order.
pub fn uncut(whole: &Whole) -> Cut {
    vec![(0..whole.samples()).collect()]
}

/// Some way to cut a batch into 1 to 8 ranks: each sample goes to any, and ranks have any order.
pub fn any_cut(samples: usize, seed: u64) -> Cut {
    let mut random = Random::new(seed);
    let ranks = 1 + random.below(8);
    let mut order: Vec<usize> = (0..samples).collect();
    let kind = random.below(4);
    if kind != 0 {
        for i in (1..samples).rev() {
            order.swap(i, random.below(i + 1));
        }
    }
    let mut cut = vec![Vec::new(); ranks];
    for (i, sample) in order.into_iter().enumerate() {
        let rank = match kind {
            // Contiguous, interleaved, uneven with ranks that may stay empty, all on the last.
            0 => i * ranks / samples,
            1 => i % ranks,
            2 => random.below(ranks),
            _ => ranks - 1 - usize::from(i == 0).min(ranks - 1),
        };
        cut[rank].push(sample);
    }
    cut
}

pub fn hosts(count: usize) -> Vec<Device> {
    vec![Device::host(); count]
}
