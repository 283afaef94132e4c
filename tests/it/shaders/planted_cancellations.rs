//! Differences that a compiler may take apart, planted in a small shader, and the forms that it may
//! not.

use super::cancellation::{Exempt, cancellations};
use super::check::Shader;

/// A shader with this body of `main`, which may set `y`.
fn shader(body: &str) -> Shader {
    let source = format!(
        "
struct Params {{ zero: u32 }}
struct Center {{ pivot: f32, rest: f32 }}

const MINUS_TWO = -2.0;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: f32;

fn settled(v: f32) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) ^ params.zero);
}}

fn held(v: f32) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) ^ 0u);
}}

fn difference(a: f32, b: f32) -> f32 {{
    return settled(a - b);
}}

fn difference_held(a: f32, b: f32) -> f32 {{
    return held(a - b);
}}

fn choose(no: u32, yes: u32, is_yes: bool) -> u32 {{
    return select(no, yes, is_yes);
}}

fn settled_if(v: f32, counts: bool) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) & choose(0u, ~params.zero, counts));
}}

fn selected_if(v: f32, counts: bool) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) & select(0u, 0xffffffffu, counts));
}}

fn chosen_if(v: f32, counts: bool) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) & choose(0u, 0xffffffffu, counts));
}}

fn difference_if(a: f32, b: f32, counts: bool) -> f32 {{
    return settled_if(a - b, counts);
}}

fn difference_selected(a: f32, b: f32, counts: bool) -> f32 {{
    return selected_if(a - b, counts);
}}

fn difference_chosen(a: f32, b: f32, counts: bool) -> f32 {{
    return chosen_if(a - b, counts);
}}

fn difference_bare(a: f32, b: f32) -> f32 {{
    return a - b;
}}

fn mean_of(a: f32, b: f32) -> f32 {{
    return 0.5 * (a + b);
}}

fn deviation(value: f32, center: Center) -> f32 {{
    return difference(value, center.pivot);
}}

@compute @workgroup_size(256)
fn main() {{
    {body}
}}
"
    );
    Shader::parse(&source).unwrap_or_else(|error| panic!("{error}"))
}

/// What is found in `main`, or through it.
fn found(body: &str) -> Vec<String> {
    let (found, _) = cancellations(&shader(body), &[]);
    found.into_iter().filter(|what| what.contains("`main`")).collect()
}

#[test]
fn settled_differences_are_accepted() {
    let good = [
        "y = difference(x[0], x[1]);",
        "y = difference(difference(x[0], x[1]), x[2]);",
        "y = difference_if(x[0], x[1], x[2] > 0.0);",
        "let mean = settled(x[0] + x[1]); y = difference(x[2], mean);",
        "var mean = 0.0; for (var i = 0u; i < 4u; i++) { mean += x[i]; } mean = settled(mean); \
        y = difference(x[0], mean);",
        "y = deviation(x[0], Center(x[1], x[2]));",
        "y = difference(x[0] + x[1], x[2]);",
        "y = difference(x[0], select(0.0, x[1], x[2] > 0.0));",
        "let at = 3u - 1u - params.zero; y = -x[at];",
        "y = x[0] + x[1] * 2.0;",
        "y = fma(x[0], x[1], x[2]);",
        "y = fma(x[0], x[1], settled(x[2] * MINUS_TWO));",
    ];
    for body in good {
        assert_eq!(found(body), [""; 0], "{body}");
    }
}

#[test]
fn a_difference_without_a_barrier_is_found() {
    for body in [
        "y = x[0] - x[1];",
        "y = x[0] + -x[1];",
        "y = -x[0] + x[1];",
        "y = x[0] + x[1] * -1.0;",
        "y = -1.0 * x[1] + x[0];",
        "y = x[0] + x[1] / -3.0;",
        "y = x[0] + x[1] * MINUS_TWO * x[2];",
        "y = x[0] + -1.5;",
        "y = fma(x[0], x[1], -x[2]);",
        "y = fma(x[0], -x[1], x[2]);",
        "y = fma(x[0], -2.0, x[2]);",
        "y = fma(x[0], x[1], x[2] * MINUS_TWO);",
        "let v = fma(vec4<f32>(x[0]), vec4<f32>(-1.0), vec4<f32>(x[1])); y = v.x;",
        "let v = vec4<f32>(x[0]) - vec4<f32>(x[1]); y = v.x;",
        "let m = mat2x2<f32>(x[0], x[1], x[2], x[3]); y = (m - m)[0].x;",
    ] {
        assert_eq!(found(body).len(), 1, "{body}: {:?}", found(body));
    }
    let (all, _) = cancellations(&shader("y = 0.0;"), &[]);
    // Neither a barrier that is known at compile time nor a name makes a difference safe.
    let names = ["held", "selected", "chosen", "bare"];
    assert_eq!(all.len(), names.len(), "{all:?}");
    for (found, name) in all.iter().zip(names) {
        assert!(found.contains(&format!("`difference_{name}`")), "{all:?}");
    }
}

#[test]
fn arithmetic_that_is_subtracted_is_found() {
    for body in [
        "y = difference(x[0], x[1] + x[2]);",
        "y = difference_if(x[0], x[1] + x[2], true);",
        "y = difference(x[0], -x[1]);",
        "let mean = 0.5 * x[1]; y = difference(x[0], mean);",
        "y = difference(x[0], mean_of(x[1], x[2]));",
        "var mean = settled(x[1]); mean += x[2]; y = difference(x[0], mean);",
        "var mean = 0.0; for (var i = 0u; i < 4u; i++) { \
        y = difference(x[i], mean); mean += x[i]; }",
        "var mean = x[0]; if (x[1] > 0.0) { mean = x[1] * 0.5; } y = difference(x[0], mean);",
        "var center: Center; center.pivot = x[0] / 3.0; y = deviation(x[0], center);",
        "y = deviation(x[0], Center(x[1] * x[2], 0.0));",
    ] {
        let found = found(body);
        assert!(found.len() == 1 && found[0].contains("not settled"), "{body}: {found:?}");
    }
}

#[test]
fn an_exemption_is_for_one_line_of_one_function() {
    let exempt = |function| [Exempt { function, line: "1.5 - x[1]", reason: "" }];
    let of_main = |body: &str, function| {
        let (found, used) = cancellations(&shader(body), &exempt(function));
        (found.into_iter().filter(|what| what.contains("`main`")).count(), used.len())
    };
    assert_eq!(of_main("y = 1.5 - x[1];", "main"), (0, 1));
    assert_eq!(of_main("y = 1.5 - x[1];", "other"), (1, 0));
    assert_eq!(of_main("y = 1.5 - x[2];", "main"), (1, 0));
}
