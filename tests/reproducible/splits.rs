//! Ranks of one caller on the host.

use proptest::prelude::*;
use syncbn::low_level::Epilogue;
use syncbn_testkit::reproducible::{Cut, FORMS, Whole, any_cut, findings, hosts, uncut, whole};

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
