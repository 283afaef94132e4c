//! Every way to cut a batch.

use proptest::prelude::*;
use syncbn::Device;
use syncbn::low_level::Epilogue;

use syncbn::Layout;
use syncbn_testkit::random::Random;

use crate::batch::{Cut, Whole, findings};

/// Batches of every form: a convolution's, odd sizes, matrices, one channel.
pub const FORMS: [(usize, usize, usize); 8] = [
    (12, 10, 49),
    (8, 20, 36),
    (40, 10, 1),
    (9, 11, 5),
    (17, 1, 33),
    (33, 130, 1),
    (6, 10, 1031),
    (7, 23, 4),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_bits(form in 0..FORMS.len(), last: bool, seed: u64) {
        let whole = whole(form, last, Epilogue::NONE);
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        let cut = any_cut(whole.samples(), seed);
        let found = findings(&whole, &cut, &hosts(cut.len()));
        found.assert_same(&expected, true, &format!("form {form}, {cut:?}"));
    }

    #[test]
    fn any_split_gives_the_same_bits_with_an_activation(
        form in 0..FORMS.len(),
        last: bool,
        leaky: bool,
        seed: u64,
    ) {
        let epilogue = if leaky { Epilogue::leaky_relu(1.7) } else { Epilogue::RELU };
        let whole = whole(form, last, epilogue);
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        let cut = any_cut(whole.samples(), seed);
        let found = findings(&whole, &cut, &hosts(cut.len()));
        found.assert_same(&expected, true, &format!("form {form}, {cut:?}"));
    }
}

#[test]
fn sums_that_have_an_order_are_caught() {
    let ordered = Whole { reproducible: false, ..whole(0, false, Epilogue::NONE) };
    let samples = ordered.samples();
    let expected = findings(&ordered, &uncut(&ordered), &hosts(1));
    let cut: Cut = (0..3).map(|rank| (rank..samples).step_by(3).collect()).collect();
    let found = findings(&ordered, &cut, &hosts(3));
    let caught = std::panic::catch_unwind(|| found.assert_same(&expected, true, "ordered"));
    assert!(caught.is_err(), "ordinary sums of another cut have the same bits");
}
