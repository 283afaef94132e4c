//! Barriers in uniform control flow, which are accepted, and others, each of which must be found.

use super::super::check::Shader;
use super::super::uniformity::misplaced_barriers;
use super::{GOOD, changed, one, with_body};

#[test]
fn barriers_under_uniform_conditions_are_accepted() {
    let good = [
        "if (params.count > 3u) { workgroupBarrier(); } else { storageBarrier(); }",
        "if (workgroup.x + workgroup.y * workgroups.x >= params.count) { return; } \
        workgroupBarrier();",
        "if (x[params.count + 1u] > 0.0) { workgroupBarrier(); }",
        "switch params.count { case 1u: { workgroupBarrier(); } default: { return; } }",
        "switch lane { case 1u: { y[1] = vec4<f32>(); break; } default: { y[2] = vec4<f32>(); } } \
        workgroupBarrier();",
        "if (lane > 3u) { y[3] = vec4<f32>(); } workgroupBarrier();",
    ];
    for body in good {
        assert_eq!(misplaced_barriers(&with_body(body)), [""; 0], "{body}");
    }
}

#[test]
fn a_barrier_under_a_non_uniform_if_is_found() {
    one(
        misplaced_barriers(&with_body("if (lane < 3u) { workgroupBarrier(); }")),
        "under a non-uniform if",
    );
    one(
        misplaced_barriers(&with_body("if (lane < 3u) { } else { { storageBarrier(); } }")),
        "under a non-uniform if",
    );
    let nested = "if (lane < 3u) { if (params.count > 1u) { workgroupBarrier(); } }";
    one(misplaced_barriers(&with_body(nested)), "under a non-uniform if");
}

#[test]
fn a_barrier_under_a_non_uniform_switch_is_found() {
    let body = "switch lane { case 1u: { workgroupBarrier(); } default: { } }";
    one(misplaced_barriers(&with_body(body)), "under a non-uniform switch");
}

#[test]
fn a_barrier_after_a_break_that_only_some_take_is_found() {
    let body = "switch params.count { \
        case 1u: { if (lane < 3u) { break; } workgroupBarrier(); } default: { } }";
    one(misplaced_barriers(&with_body(body)), "after a break");
}

#[test]
fn a_barrier_in_a_loop_is_found_even_under_a_uniform_condition() {
    let body = "for (var i = 0u; i < params.lanes; i++) { workgroupBarrier(); }";
    one(misplaced_barriers(&with_body(body)), "in a loop");
    one(
        misplaced_barriers(&with_body(
            "loop { continuing { workgroupBarrier(); break if true; } }",
        )),
        "in a loop",
    );
}

#[test]
fn a_barrier_after_an_early_return_that_only_some_take_is_found() {
    let found = misplaced_barriers(&with_body("if (lane < 3u) { return; } workgroupBarrier();"));
    // The call of `shared_sum` at the end of the good shader is behind that return as well.
    assert!(
        found.len() == 2 && found.iter().all(|what| what.contains("after a return")),
        "{found:?}"
    );
    let found = misplaced_barriers(&with_body(
        "for (var i = 0u; i < lane; i++) { if (i > 7u) { return; } }",
    ));
    one(found, "after a return from within a loop");
    one(
        misplaced_barriers(&with_body("switch lane { case 1u: { return; } default: { } }")),
        "after a return",
    );
}

#[test]
fn a_call_of_a_function_with_a_barrier_counts_as_one() {
    let body = "if (lane < 3u) { y[0] = vec4<f32>(shared_sum(lane, value)); }";
    one(misplaced_barriers(&with_body(body)), "in `main`: a barrier under a non-uniform if");
    let through = "fn outer(lane: u32) -> f32 { return shared_sum(lane, 1.0); }\n@compute";
    let source = GOOD
        .replace("@compute", through)
        .replace("// BODY", "if (lane < 3u) { y[0] = vec4<f32>(outer(lane)); }");
    one(
        misplaced_barriers(&Shader::parse(&source).unwrap()),
        "in `main`: a barrier under a non-uniform if",
    );
}

#[test]
fn a_barrier_within_a_function_is_judged_with_non_uniform_arguments() {
    let shader = changed("workgroupBarrier();", "if (lane > 3u) { workgroupBarrier(); }");
    one(misplaced_barriers(&shader), "in `shared_sum`: a barrier under a non-uniform if");
}

#[test]
fn conditions_that_may_differ_between_invocations_are_found_where_naga_calls_them_uniform() {
    let bad = [
        // A read of workgroup memory races with the writes of others, unless it is a
        // workgroupUniformLoad.
        "if (scratch[0].x > 0.0) { workgroupBarrier(); }",
        // One constant or another, depending on the lane.
        "if (exchange(lane, 1.0) > 0.0) { workgroupBarrier(); }",
        "var local = params.count; if (local > 3u) { workgroupBarrier(); }",
        "if (y[0].x > 0.0) { workgroupBarrier(); }",
        "if (x[lane] > 0.0) { workgroupBarrier(); }",
    ];
    for body in bad {
        one(misplaced_barriers(&with_body(body)), "under a non-uniform if");
    }
    let loaded =
        "let all = workgroupUniformLoad(&scratch); if (all[0].x > 0.0) { workgroupBarrier(); }";
    assert_eq!(misplaced_barriers(&with_body(loaded)), [""; 0]);
}

#[test]
fn a_workgroup_uniform_load_counts_as_a_barrier() {
    let body = "if (lane < 3u) { y[0] = workgroupUniformLoad(&scratch)[0]; }";
    one(misplaced_barriers(&with_body(body)), "under a non-uniform if");
}
