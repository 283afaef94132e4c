//! What the hostile compiler breaks and what stops it, each shown by small shaders that run:
//! `Plant` has the unsafe form, whose results change under most seeds, and where there is one the
//! safe form, whose bits stay under all.

use super::honest;
use super::planted_runs::{Machine, shader};
use super::rewrite::{Division, Order, Style, rewritten, rewritten_in};

/// Everything that is drawn, always done.
const ALL: Style = Style {
    seed: 1,
    order: Order::PositiveFirst,
    regroups: 8,
    distributes: 8,
    contracts: 0,
    factors: 0,
    division: Division::Exact,
    root_off: 0,
    flushes: false,
    finite: true,
};

/// Inputs: sixteen values about 10,000, and what a shader needs besides.
fn inputs() -> Vec<f32> {
    let values = (0..16).map(|i| 10_000.0 + (i * i % 11) as f32 / 1024.0);
    values.chain([0.013_37, f32::MAX, f32::NAN, 1.0e-39, 0.3, 3.7, 1.0, 0.0]).collect()
}

/// A body that computes `result`, in the form of kernels before barriers and in the form that
/// holds.
struct Plant {
    name: &'static str,
    unsafe_form: &'static str,
    safe_form: &'static str,
}

const PLANTS: &[Plant] = &[
    Plant {
        name: "a sum of deviations from the first value",
        unsafe_form: "for (var i = 0u; i < 16u; i += 4u) {
            result += ((input[i] - input[0]) + (input[i + 1u] - input[0]))
                + ((input[i + 2u] - input[0]) + (input[i + 3u] - input[0]));
        }",
        safe_form: "for (var i = 0u; i < 16u; i += 4u) {
            result += (difference(input[i], input[0]) + difference(input[i + 1u], input[0]))
                + (difference(input[i + 2u], input[0]) + difference(input[i + 3u], input[0]));
        }",
    },
    Plant {
        name: "the same on vectors and matrices",
        unsafe_form: "let first = vec4<f32>(input[0]);
            let values = mat2x4<f32>(four(4u), four(8u)) - mat2x4<f32>(first, first);
            let sum = values[0] + values[1];
            result = (sum.x + sum.y) + (sum.z + sum.w);",
        safe_form: "let first = vec4<f32>(input[0]);
            let sum = settled4(four(4u) - first) + settled4(four(8u) - first);
            result = (sum.x + sum.y) + (sum.z + sum.w);",
    },
    Plant {
        name: "a value less a mean in two parts",
        unsafe_form: "result = (input[3] - input[0]) - input[16];",
        safe_form: "result = difference(difference(input[3], input[0]), input[16]);",
    },
    Plant {
        name: "what rounding has taken from a mean",
        unsafe_form: "let mean = input[0] + input[16]; result = input[0] - mean;",
        safe_form: "let mean = settled(input[0] + input[16]); result = difference(input[0], mean);",
    },
    Plant {
        name: "a difference within a function",
        unsafe_form: "result = bare_difference(input[3], input[0]) + \
            bare_difference(input[5], input[0]) - bare_difference(input[7], input[0]);",
        safe_form: "result = difference(difference(input[3], input[0]) + \
            difference(input[5], input[0]), settled(difference(input[7], input[0])));",
    },
    Plant {
        name: "a deviation squared",
        unsafe_form: "let d = input[3] - input[0]; result = d * (d + 2.0 * d);",
        safe_form: "let d = difference(input[3], input[0]); result = d * 3.0 * d;",
    },
    Plant {
        name: "a value that enters an activation",
        unsafe_form: "result = (input[3] - input[0]) * input[20] + input[21];",
        safe_form: "result = settled(difference(input[3], input[0]) * input[20]) + input[21];",
    },
    Plant {
        name: "a test of the bits of a computed value",
        unsafe_form: "if (is_not_finite(input[17] * input[21])) { result = 1.0; }",
        safe_form: "if (is_not_finite(settled(input[17] * input[21]))) { result = 1.0; }",
    },
    Plant {
        name: "a test of the bits of a variable",
        unsafe_form: "var sum = 0.0;
            for (var i = 16u; i < 19u; i++) { sum += input[i]; }
            result = flag_of(sum);",
        safe_form: "var sum = 0.0;
            for (var i = 16u; i < 19u; i++) { sum += input[i]; }
            result = flag_of(settled(sum));",
    },
    Plant {
        name: "a NaN that a select of floats lets pass",
        unsafe_form: "result = select(input[20], input[18], is_not_finite(input[18]));",
        safe_form: "result = bitcast<f32>(select(bitcast<u32>(input[20]), bitcast<u32>(input[18]), \
            is_not_finite(input[18])));",
    },
    Plant {
        name: "a NaN that a comparison lets pass",
        unsafe_form: "result = select(1.0, 2.0, input[18] > 0.0) \
            + select(0.0, 4.0, input[18] <= 0.0);",
        safe_form: "result = select(1.0, 2.0, input[18] > 0.0 && !is_not_finite(input[18]));",
    },
    Plant {
        name: "a barrier whose zero is known",
        unsafe_form: "result = (bitcast<f32>(bitcast<u32>(input[3] - input[0]) ^ 0u)) - input[16];",
        safe_form: "result = (bitcast<f32>(bitcast<u32>(input[3] - input[0]) ^ params.zero)) \
            - input[16];",
    },
    Plant {
        name: "a barrier that is taken back",
        unsafe_form: "result = (bitcast<f32>((bitcast<u32>(input[3] - input[0]) ^ params.zero) \
            ^ params.zero)) - input[16];",
        safe_form: "result = settled(settled(input[3] - input[0])) - input[16];",
    },
    Plant {
        name: "differences in variables",
        unsafe_form: "var line = Line(input[3], 0.0); line.shift = line.value - input[0]; \
            result = line.shift - input[16];",
        safe_form: "var line = Line(input[3], 0.0);
            if (params.zero == 0u) { line.shift = line.value - input[0]; }
            result = line.shift - input[16];",
    },
];

#[test]
fn unsafe_forms_break_and_safe_forms_hold_under_every_seed_on_an_honest_driver() {
    honest::require();
    const SEEDS: u64 = 16;
    let machine = Machine::get();
    let mut found = Vec::new();
    for plant in PLANTS {
        let forms = [plant.unsafe_form, plant.safe_form].map(shader);
        let [broken, moved] = forms.map(|source| {
            let expected = machine.run(&source, &inputs());
            (0..SEEDS)
                .filter(|&seed| machine.run(&rewritten(&source, seed), &inputs()) != expected)
                .count()
        });
        println!(
            "{}: unsafe breaks under {broken} of {SEEDS} seeds, safe under {moved}",
            plant.name
        );
        if broken < 2 || moved > 0 {
            found.push(format!(
                "{}: unsafe breaks under {broken} of {SEEDS} seeds, safe under {moved}",
                plant.name
            ));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// How far a step of Newton's method may be from 1/√v, in ulp, where it takes no pairs of f32: with
/// u = 2⁻²⁴, half an ulp of 1, root·(1.5 − ½·(v·root)·root) takes roundings of v·root and its
/// product with root, each halved, of the difference, and of the result: 3u. A compiler that
/// distributes rounds 1.5·root, then three products that are halved, and their difference:
/// 1.5u + 1.5u + u = 4u. A root that is e off leaves 1.5e² by the step: nothing, for e of a few u.
/// The result is 0.52, whose ulp is u: 4 · 0.52 ulp.
const NEWTON_ULP: f64 = 2.08;

#[test]
fn a_step_of_newtons_method_stays_within_its_roundings_where_root_and_product_are_settled() {
    const SEEDS: u64 = 32;
    let machine = Machine::get();
    let v = f64::from(inputs()[21]);
    let off = |body: &str, seed| {
        let result = f32::from_bits(machine.run(&rewritten(&shader(body), seed), &inputs()));
        (f64::from(result) - 1.0 / v.sqrt()).abs() * f64::from(1u32 << 24)
    };
    let bare = "let root = 1.0 / sqrt(input[21]); \
        result = root * (1.5 - 0.5 * (input[21] * root) * root);";
    let settled = "let root = settled(1.0 / sqrt(input[21]));
        result = root * (1.5 - 0.5 * settled(input[21] * root) * root);";
    let [bare, settled] =
        [bare, settled].map(|body| (0..SEEDS).map(|seed| off(body, seed)).collect::<Vec<_>>());
    let worst = settled.iter().copied().fold(0.0, f64::max);
    let broken = bare.iter().filter(|&&off| off > NEWTON_ULP).count();
    println!(
        "settled {worst:.2} ulp, bare beyond {NEWTON_ULP} ulp under {broken} of {SEEDS} seeds"
    );
    assert!(worst <= NEWTON_ULP && broken >= 2, "settled {settled:.2?} ulp, bare {bare:.2?} ulp");
}

/// The result of a body as it stands, and in a style.
fn both(body: &str, style: Style) -> [f32; 2] {
    let machine = Machine::get();
    let source = shader(body);
    [source.clone(), rewritten_in(&source, style)]
        .map(|source| f32::from_bits(machine.run(&source, &inputs())))
}

#[test]
fn terms_that_cancel_are_gone_on_an_honest_driver() {
    honest::require();
    let [before, after] = both("let mean = input[0] + input[16]; result = input[0] - mean;", ALL);
    assert_eq!((before, after), (input_rounded() - 10_000.0, -0.013_37));
    let [_, after] = both("let p = input[20]; result = (input[0] + p) - p;", ALL);
    assert_eq!(after, 10_000.0);
}

/// −0.01337 as far as it is kept beside 10,000, from there.
fn input_rounded() -> f32 {
    10_000.0 - ((10_000.0 + 0.013_37f32) - 10_000.0)
}

#[test]
fn a_sum_of_deviations_becomes_a_sum_less_a_multiple() {
    let body = "result = (input[1] - input[0]) + (input[2] - input[0]);";
    let source = rewritten_in(&shader(body), ALL);
    assert!(source.contains("* 2f") || source.contains("2f *"), "{source}");
}

#[test]
fn a_product_with_a_sum_is_distributed_and_factored_back() {
    let body = "result = (input[3] - input[0]) * input[20] + input[21];";
    let count = |style: Style| rewritten_in(&shader(body), style).matches(" * ").count();
    assert_eq!(count(ALL), 2);
    assert_eq!(count(Style { factors: 8, ..ALL }), 1);
}

#[test]
fn a_contraction_is_exact() {
    let style = Style { contracts: 8, ..ALL };
    let body = "let p = settled(input[20] * input[21]); result = input[20] * input[21] - p;";
    let exact = f64::from(0.3f32) * f64::from(3.7f32);
    assert_eq!(both(body, style), [0.0, (exact - f64::from(exact as f32)) as f32]);
    assert_eq!(both(body, ALL), [0.0, 0.0]);
}

#[test]
fn a_quotient_is_so_many_ulp_off_and_0_stays_0() {
    for (ulp, expected) in [(2, 3.7f32.to_bits() + 2), (-2, 3.7f32.to_bits() - 2)] {
        let style = Style { division: Division::Off(ulp), ..ALL };
        assert_eq!(both("result = input[21] / input[22];", style)[1].to_bits(), expected);
        assert_eq!(both("result = input[23] / input[21];", style)[1].to_bits(), 0);
    }
    let style = Style { division: Division::Reciprocal, ..ALL };
    assert_eq!(both("result = input[20] / input[21];", style)[1], 0.3f32 * (1.0 / 3.7f32));
}

#[test]
fn a_root_times_itself_is_what_it_is_the_root_of() {
    let off = Style { root_off: 2, ..ALL };
    assert_eq!(both("let r = sqrt(input[21]); result = r * r;", off)[1], 3.7);
    assert_eq!(both("let r = 1.0 / sqrt(input[21]); result = input[21] * r * r;", off)[1], 1.0);
    assert_eq!(both("let r = inverseSqrt(input[21]); result = input[21] * r * r;", off)[1], 1.0);
    // So that a step of Newton's method takes nothing off.
    let root = both("result = 1.0 / sqrt(input[21]);", off)[1];
    assert_eq!(
        both("let r = 1.0 / sqrt(input[21]); result = r * (1.5 - 0.5 * (input[21] * r) * r);", off)
            [1],
        root
    );
}

#[test]
fn a_subnormal_result_is_flushed_on_an_honest_driver() {
    honest::require();
    let style = Style { flushes: true, ..ALL };
    assert_eq!(both("result = input[19] * input[20];", style), [1.0e-39f32 * 0.3, 0.0]);
}

#[test]
fn what_is_loaded_is_tested_and_what_is_computed_is_not() {
    for (value, loaded) in
        [("input[18]", 1.0), ("bitcast<f32>(bitcast<u32>(input[20]) | 0x7fc00000u)", 1.0)]
    {
        assert_eq!(both(&format!("result = flag_of({value});"), ALL), [loaded; 2], "{value}");
    }
    for value in ["input[18] * input[20]", "-input[18]", "max(input[18] + 1.0, input[18] * 2.0)"] {
        assert_eq!(both(&format!("result = flag_of({value});"), ALL)[1], 0.0, "{value}");
    }
}

#[test]
fn the_same_seed_gives_the_same_source() {
    let source = shader(PLANTS[0].unsafe_form);
    assert_eq!(rewritten(&source, 7), rewritten(&source, 7));
}
