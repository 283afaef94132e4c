//! Answers of sound drivers, and of drivers with one fault each.

mod driver;

use super::*;
use driver::{Driver, subgroups};

/// Result of the judgement if one answer differs from that of a sound driver.
fn judged(question: Question, answer: Answer) -> (FastPaths, Findings) {
    let mut answers = Driver::default().answers();
    answers
        .iter_mut()
        .filter(|(asked, _)| *asked == question)
        .for_each(|(_, old)| *old = answer.clone());
    judge(FastPaths::ALL, &answers)
}

/// The defect of subgroups for a changed answer. No other fast path is switched off.
fn subgroup_defect(change: impl FnOnce(&mut Vec<u32>)) -> Defect {
    let mut answer = subgroups(8, |number| number);
    change(&mut answer);
    let (paths, findings) = judged(Question::Subgroups, Ok(answer));
    assert_eq!(paths, FastPaths::ALL.with_subgroups(false));
    assert_eq!(
        (findings.subgroup_size, findings.defects.len()),
        (None, 1),
        "{:?}",
        findings.defects
    );
    findings.defects[0].clone()
}

/// Word of an invocation of the first workgroup.
fn word_of(index: usize, word: usize) -> usize {
    16 * index + word
}

#[test]
fn a_sound_driver_has_every_way_and_no_defect() {
    for size in [4, 8, 16, 32, 64, 128, 256] {
        let driver = Driver { subgroup_size: Some(size), ..Driver::default() };
        let (paths, findings) = judge(FastPaths::ALL, &driver.answers());
        assert_eq!(paths, FastPaths::ALL);
        assert_eq!(findings.subgroup_size, Some(size));
        assert_eq!(findings.defects, []);
        let Arithmetic { contracts, reassociates, flushes_subnormals, misses_nan, .. } =
            findings.arithmetic.unwrap();
        assert_eq!([contracts, reassociates, flushes_subnormals, misses_nan], [false; 4]);
        assert_eq!(findings.signs_agree, Some(true));
    }
    // Subgroups need not lie in the order of local indices.
    let spread = subgroups(16, |number| number % 16 * 16 + number / 16);
    assert_eq!(judged(Question::Subgroups, Ok(spread)).0, FastPaths::ALL);
}

#[test]
fn subgroups_of_two_and_of_varying_sizes_are_not_used() {
    let of_two = judged(Question::Subgroups, Ok(subgroups(2, |number| number)));
    assert_eq!(of_two.1.defects, [Defect::SubgroupSizes { smallest: 2, largest: 2 }]);
    assert!(!of_two.0.subgroups);
    let varying = subgroup_defect(|answer| answer[word_of(255, 1)] = 16);
    assert_eq!(varying, Defect::SubgroupSizes { smallest: 8, largest: 16 });
}

#[test]
fn numbers_that_are_no_permutation_are_found() {
    let twice = subgroup_defect(|answer| answer[word_of(7, 0)] = 6);
    assert_eq!(twice, Defect::SubgroupNumbers { workgroup: 0, missing: 7 });
    let beyond = subgroup_defect(|answer| answer[word_of(3, 0)] = u32::MAX);
    assert_eq!(beyond, Defect::SubgroupNumbers { workgroup: 0, missing: 3 });
    // The second workgroup goes on counting where the first one ended.
    let goes_on =
        subgroup_defect(|answer| (256..512).for_each(|index| answer[word_of(index, 0)] += 256));
    assert_eq!(goes_on, Defect::SubgroupNumbers { workgroup: 1, missing: 0 });
}

#[test]
fn two_invocations_that_changed_places_are_found() {
    // Numbers 1 and 9 have changed places, and what they hold has not: 0 holds the value of 1 for
    // its neighbour, 1 gets 8's.
    let swapped = subgroup_defect(|answer| answer.swap(word_of(1, 0), word_of(9, 0)));
    let expected =
        Defect::SubgroupNeighbours { number: 9, distance: 1, found: [0; 4], expected: 8 };
    assert_eq!(swapped, expected);
}

#[test]
fn an_exchange_that_brings_another_value_is_found_at_every_distance_and_component() {
    for distance in 1..=3 {
        for component in 0..4 {
            let word = word_of(100, 4 * distance + component);
            let mut found = [100 ^ distance as u32; 4];
            found[component] = 100;
            let own = 100 + 256 * component as u32;
            let expected = 100 ^ distance as u32;
            let defect = subgroup_defect(|answer| answer[word] = own);
            let distance = distance as u32;
            assert_eq!(
                defect,
                Defect::SubgroupNeighbours { number: 100, distance, found, expected }
            );
        }
    }
}

#[test]
fn an_f16_that_loads_change_is_found() {
    let flushing = Driver { flushes_f16: true, ..Driver::default() };
    let (paths, findings) = judge(FastPaths::ALL, &flushing.answers());
    assert_eq!(paths, FastPaths::ALL.with_native_f16(false));
    assert_eq!(findings.defects, [Defect::Half { half: 1, found: 0, expected: 0x3380_0000 }]);
    // Either load counts, at every exponent.
    let sound = Driver::default().halves();
    let mut answer = sound.clone();
    for index in (0..sound.len()).step_by(1021) {
        let word = sound[index];
        answer[index] =
            if f32::from_bits(word).is_nan() { f32::INFINITY.to_bits() } else { word ^ 1 };
        let half = (index / 2) as u16;
        let is_found = |defect| matches!(defect, Defect::Half { half: found, .. } if found == half);
        assert!(halves::check(&answer).is_err_and(is_found), "{half:#06x}");
        answer[index] = word;
    }
    let mut answer = sound.clone();
    answer[1] = 1;
    let (paths, findings) = judged(Question::NativeF16, Ok(answer));
    assert_eq!((paths, findings.defects.len()), (FastPaths::ALL.with_native_f16(false), 1));
    // The sign of 0 counts, the payload of a NaN does not.
    let negative_zero = sound.iter().position(|&word| word == 1 << 31).unwrap();
    let mut answer = sound.clone();
    answer[negative_zero] = 0;
    let sign_of_zero = Defect::Half { half: 0x8000, found: 0, expected: 1 << 31 };
    assert_eq!(judged(Question::NativeF16, Ok(answer)).1.defects, [sign_of_zero]);
    let without_payload = Driver { loses_payload: true, ..Driver::default() };
    assert_eq!(judge(FastPaths::ALL, &without_payload.answers()).0, FastPaths::ALL);
}

#[test]
fn a_conversion_that_rounds_otherwise_than_to_the_nearest_even_is_found_and_no_defect() {
    let truncating = Driver { truncates_f16: true, ..Driver::default() };
    let (paths, findings) = judge(FastPaths::ALL, &truncating.answers());
    assert_eq!(
        (paths, findings.rounds_f16, findings.defects),
        (FastPaths::ALL, Some(false), vec![])
    );
    // Each of the four results counts, at every exponent; which NaN does not.
    let sound = Driver::default().rounded();
    let mut answer = sound.clone();
    for index in (0..sound.len()).step_by(1021) {
        for half in [1, 1 << 16] {
            answer[index] ^= half;
            let is_nan = (index / 2) as u16 & 0x7fff > 0x7c00;
            assert_eq!(rounding::is_to_nearest_even(&answer), is_nan, "{index}");
            answer[index] = sound[index];
        }
    }
    let (paths, findings) = judged(Question::Rounding, Ok(vec![0; sound.len()]));
    assert_eq!((paths, findings.rounds_f16), (FastPaths::ALL, Some(false)));
    let off = FastPaths::ALL.with_native_f16(false);
    assert_eq!(judge(off, &Driver::default().answers()).1.rounds_f16, None, "it is not asked");
}

#[test]
fn a_pass_that_contracts_alone_changes_the_sign_of_every_close_value() {
    let every_close_value = Defect::Signs { differing: 512, values: 512 };
    for contracts_settled in [[true, false], [false, true]] {
        let driver = Driver { contracts_settled, ..Driver::default() };
        let (paths, findings) = judge(FastPaths::ALL, &driver.answers());
        assert_eq!((paths, findings.signs_agree), (FastPaths::ALL, Some(false)));
        assert!(findings.defects.contains(&every_close_value), "{:?}", findings.defects);
    }
    let both = Driver { contracts_settled: [true, true], ..Driver::default() };
    let (_, findings) = judge(FastPaths::ALL, &both.answers());
    assert_eq!(findings.signs_agree, Some(true), "they agree, whatever they agree on");
}

#[test]
fn passes_that_agree_on_nonsense_are_found() {
    for (question, word) in
        [(Question::Forward, 0), (Question::Backward, 0), (Question::Forward, f32::NAN.to_bits())]
    {
        let (_, findings) = judged(question, Ok(vec![word; question.answer_words()]));
        assert_eq!(findings.signs_agree, Some(false));
        assert!(
            matches!(findings.defects[..], [Defect::Activation { .. }]),
            "{:?}",
            findings.defects
        );
    }
}

#[test]
fn each_change_of_arithmetic_is_found_by_itself() {
    let found_of = |driver: Driver| {
        let (paths, findings) = judge(FastPaths::ALL, &driver.answers());
        assert_eq!((paths, findings.defects), (FastPaths::ALL, vec![]));
        let Arithmetic { contracts, reassociates, flushes_subnormals, misses_nan, .. } =
            findings.arithmetic.unwrap();
        [contracts, reassociates, flushes_subnormals, misses_nan]
    };
    let sound = Driver::default();
    assert_eq!(found_of(Driver { contracts: true, ..sound }), [true, false, false, false]);
    assert_eq!(found_of(Driver { reassociates: true, ..sound }), [false, true, false, false]);
    assert_eq!(found_of(Driver { flushes: true, ..sound }), [false, false, true, false]);
    assert_eq!(found_of(Driver { misses_nan: true, ..sound }), [false, false, false, true]);
    // One operand or one result that is flushed is enough.
    for word in [4, 5] {
        let mut answer = sound.arithmetic();
        answer[word] = 0;
        assert!(judged(Question::Arithmetic, Ok(answer)).1.arithmetic.unwrap().flushes_subnormals);
    }
}

#[test]
fn a_sum_that_no_barrier_keeps_is_a_defect() {
    for word in [2, 3] {
        let mut answer = Driver::default().arithmetic();
        answer[word] = 1.0f32.to_bits();
        let (_, findings) = judged(Question::Arithmetic, Ok(answer));
        assert_eq!(findings.defects, [Defect::Barriers { differing: 1, sums: 512 }]);
    }
}

#[test]
fn a_way_is_taken_only_where_it_is_asked_for_and_answered() {
    let sound = Driver::default().answers();
    for asked in [
        FastPaths::NONE,
        FastPaths::ALL.with_subgroups(false),
        FastPaths::ALL.with_native_f16(false),
    ] {
        assert_eq!(judge(asked, &sound).0, asked, "what the caller switched off stays off");
        let needed = sound
            .iter()
            .filter(|(question, _)| question.is_asked(asked))
            .cloned()
            .collect::<Vec<_>>();
        let (paths, findings) = judge(asked, &needed);
        assert_eq!(
            (paths, findings.defects),
            (asked, vec![]),
            "nothing needs proof but what is asked for"
        );
    }
    let unanswered = FastPaths::ALL.without_proof();
    let (paths, findings) = judge(FastPaths::ALL, &[]);
    assert_eq!((paths, findings.defects.len()), (unanswered, Question::ALL.len()));
    assert_eq!(
        (findings.subgroup_size, findings.arithmetic, findings.signs_agree),
        (None, None, None)
    );

    for question in Question::ALL {
        let short = Driver::default().answer(question)[1..].to_vec();
        for answer in [Err("refused".to_owned()), Ok(short), Ok(Vec::new())] {
            let (paths, findings) = judged(question, answer);
            let off = [question == Question::NativeF16, question == Question::Subgroups];
            assert_eq!([!paths.native_f16, !paths.subgroups], off, "{question:?}");
            let [Defect::NoAnswer { question: named, .. }] = &findings.defects[..] else {
                panic!("{findings:?}")
            };
            assert_eq!(*named, question.name());
        }
    }
}
