//! Answers that a driver refuses or gives too late, and kernels with a planted fault, which the
//! probe must find. Needs an adapter.

use super::*;
use crate::gpu::adapters;

/// A device of the application with these features.
fn device_with(required_features: wgpu::Features) -> Opening {
    let descriptor =
        wgpu::DeviceDescriptor { required_features, ..wgpu::DeviceDescriptor::default() };
    pollster::block_on(async {
        let mut adapters = adapters().await;
        let adapter = adapters
            .pop()
            .expect("GPU tests need an adapter: run scripts/test.sh, which installs one");
        let (device, queue) =
            adapter.request_device(&descriptor).await.expect("a device with these features");
        Opening::new(device, queue).expect("portable limits")
    })
}

/// The probe's result if one part of a question's source is replaced.
fn planted(opening: &Opening, question: Question, from: &str, to: &str) -> Findings {
    let source_of = |asked: Question| {
        let source = asked.source();
        if asked != question {
            return source;
        }
        assert_eq!(source.matches(from).count(), 1, "{from}");
        source.replace(from, to)
    };
    let answers = pollster::block_on(opening.ask(FastPaths::ALL, DEADLINE, source_of));
    judge(FastPaths::ALL, &answers).1
}

#[test]
fn a_fault_planted_in_each_kernel_is_found() {
    let opening = device_with(wgpu::Features::SUBGROUP);
    let findings = |question, from, to| planted(&opening, question, from, to);
    let planted = |question, from, to| findings(question, from, to).defects;

    assert_eq!(
        planted(
            Question::Subgroups,
            "subgroup * size + subgroup_invocation",
            "subgroup_invocation + subgroup * size"
        ),
        []
    );
    let unnumbered =
        planted(Question::Subgroups, "subgroup * size + subgroup_invocation", "subgroup * size");
    assert_eq!(unnumbered, [Defect::SubgroupNumbers { workgroup: 0, missing: 1 }]);
    let misdirected = planted(Question::Subgroups, "(held, 3u)", "(held, 1u)");
    let expected =
        Defect::SubgroupNeighbours { number: 0, distance: 3, found: [1; 4], expected: 3 };
    assert_eq!(misdirected, [expected]);

    // Flushes subnormals, which are below 2⁻¹⁴.
    let flushed = planted(
        Question::NativeF16,
        "bitcast<u32>(single)",
        "bitcast<u32>(trunc(single * 16384.0) / 16384.0)",
    );
    assert!(matches!(flushed[..], [Defect::Half { half: 1, found: 0, .. }]), "{flushed:?}");

    // As it is, and with a value in another one's place.
    assert_eq!(findings(Question::Rounding, "tie - 1u", "tie - 1u").rounds_f16, Some(true));
    let truncated = findings(Question::Rounding, "tie + 1u", "tie - 1u");
    assert_eq!(truncated.rounds_f16, Some(false));

    let other_sign = planted(
        Question::Backward,
        "is_active(value_of(x, at, affine))",
        "(value_of(x, at, affine) >> 31u) == 0u",
    );
    assert_eq!(other_sign, [Defect::Signs { differing: 512, values: 512 }]);

    let sum = "other_value.large - settled_f32(other_value.large + other_value.small)";
    let regrouped = planted(Question::Arithmetic, sum, "-settled_f32(other_value.small)");
    assert_eq!(regrouped, [Defect::Barriers { differing: 256, sums: 512 }]);
}

#[test]
fn a_kernel_that_is_refused_costs_its_own_answer_and_no_other() {
    let opening = device_with(wgpu::Features::empty());
    let offered = FastPaths::ALL.with_subgroups(false);
    assert_eq!(opening.offered(FastPaths::ALL), offered);
    // The question is asked although the device lacks its feature: wgpu must refuse it.
    let answers = pollster::block_on(opening.ask(FastPaths::ALL, DEADLINE, Question::source));
    for question in Question::ALL {
        let needs_feature = question == Question::Subgroups;
        let (_, answer) = answers
            .iter()
            .find(|(asked, _)| *asked == question)
            .expect("every question has an answer");
        assert_eq!(answer.is_err(), needs_feature, "{question:?}: {answer:?}");
    }
    let (paths, findings) = judge(FastPaths::ALL, &answers);
    assert_eq!(paths, offered);
    let [Defect::NoAnswer { .. }] = &findings.defects[..] else { panic!("{findings:?}") };
    assert!(findings.arithmetic.is_some());
}

#[test]
fn a_driver_that_refuses_every_kernel_answers_nothing() {
    let opening = device_with(wgpu::Features::empty());
    let answers =
        pollster::block_on(opening.ask(FastPaths::ALL, DEADLINE, |_| "no kernel".to_owned()));
    assert_eq!(answers.len(), Question::ALL.len());
    assert!(answers.iter().all(|(_, answer)| answer.is_err()), "{answers:?}");
}

#[test]
fn answers_that_come_too_late_are_none_and_the_device_goes_on() {
    let opening = device_with(wgpu::Features::empty());
    let asked = FastPaths::NONE;
    // Some answers may arrive before the first look.
    let is_late = |_| {
        let answers = pollster::block_on(opening.ask(asked, Duration::ZERO, Question::source));
        assert_eq!(answers.len(), 3);
        answers.iter().all(|(_, answer)| {
            answer.as_ref().is_err_and(|message| message.contains("no result within 0ns"))
        })
    };
    assert!((0..20).any(is_late));
    let answers = pollster::block_on(opening.ask(asked, DEADLINE, Question::source));
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
}
