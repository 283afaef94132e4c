//! Curves and derivatives against the definition in f64.

use syncbn_reference::activation::Activation as Definition;

use super::{Activation, activate, gate};

const CURVES: [(Activation, Definition); 7] = [
    (Activation::Relu6, Definition::Relu6),
    (Activation::Silu, Definition::Silu),
    (Activation::Hardswish, Definition::Hardswish),
    (Activation::Gelu, Definition::Gelu),
    (Activation::GeluTanh, Definition::GeluTanh),
    (Activation::Elu(1.0), Definition::Elu(1.0)),
    (Activation::Elu(-0.75), Definition::Elu(-0.75)),
];

fn value(activation: Activation, v: f32) -> f32 {
    let mut v = [v];
    activate(&mut v, activation);
    v[0]
}

fn derivative(activation: Activation, v: f32) -> f32 {
    let mut g = [1.0];
    gate(&mut g, &[v], activation);
    g[0]
}

/// Both signs, and 64 values to each factor of 2 from 2⁻¹³⁰ up to all that f32 holds, and values
/// that lie evenly from −100 to 100.
fn arguments() -> impl Iterator<Item = f32> {
    let scaled = (0u32..0x7f80_0000).step_by(0x2_0000 + 77).map(f32::from_bits);
    let even = (0..200_000).map(|i| (i as f32 + 0.37) * 0.000_5);
    scaled.chain(even).chain([3.0, 6.0, 0.0, f32::MAX]).flat_map(|v| [v, -v])
}

/// One unit in the last place of a number that f32 holds.
fn ulp(of: f64) -> f64 {
    let above = f64::from((of.abs() as f32).next_up()) - f64::from(of.abs() as f32);
    above.max(f64::from(f32::MIN_POSITIVE) * 2f64.powi(-23))
}

/// The largest errors of values in ulp for v of −2 and above, and as a share of 2⁻²⁴·|v|
/// everywhere; of derivatives as a share of 2⁻²⁴.
fn errors(activation: Activation, definition: Definition) -> [f64; 3] {
    let mut worst = [0.0f64; 3];
    for v in arguments() {
        let exact = definition.value(v.into());
        let error = (f64::from(value(activation, v)) - exact).abs();
        if v >= -2.0 {
            worst[0] = worst[0].max(error / ulp(exact));
        }
        let unit = 2f64.powi(-24);
        let least = 2f64.powi(-118);
        worst[1] = worst[1].max((error - least).max(0.0) / (unit * f64::from(v.abs())));
        let exact = definition.derivative(v.into());
        let error = (f64::from(derivative(activation, v)) - exact).abs();
        worst[2] = worst[2].max(error / unit);
    }
    worst
}

#[test]
fn errors_are_those_that_the_document_states() {
    // Values in ulp from −2 on, values in 2⁻²⁴·|v|, derivatives in 2⁻²⁴.
    let bounds = [
        (Activation::Relu6, [0.0, 0.0, 0.0]),
        (Activation::Silu, [4.0, 4.0, 4.0]),
        (Activation::Hardswish, [2.5, 2.5, 2.0]),
        (Activation::Gelu, [4.5, 2.5, 2.5]),
        (Activation::GeluTanh, [7.0, 3.0, 4.0]),
        (Activation::Elu(1.0), [2.0, 2.0, 2.0]),
    ];
    let mut failed = Vec::new();
    for (activation, bound) in bounds {
        let (_, definition) =
            CURVES.into_iter().find(|(curve, _)| *curve == activation).expect("a definition");
        let found = errors(activation, definition);
        if found.iter().zip(bound).any(|(found, bound)| found.is_nan() || *found > bound) {
            failed.push(format!("{activation:?}: {found:.2?}, bounds {bound:?}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_is_not_finite_and_kinks_are_as_documented() {
    for (activation, definition) in CURVES {
        assert!(value(activation, f32::NAN).is_nan(), "{activation:?}");
        assert!(derivative(activation, f32::NAN).is_nan(), "{activation:?}");
        let above = value(activation, f32::INFINITY);
        assert_eq!(f64::from(above), definition.value(f64::INFINITY), "{activation:?}");
        let below = value(activation, f32::NEG_INFINITY);
        match activation {
            Activation::Silu | Activation::Gelu | Activation::GeluTanh => assert!(below.is_nan()),
            _ => assert_eq!(f64::from(below), definition.value(f64::NEG_INFINITY)),
        }
        for v in [f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 0.0, 3.0, -3.0, 6.0] {
            let found = derivative(activation, v);
            let exact = definition.derivative(v.into());
            assert!((f64::from(found) - exact).abs() < 1e-6, "{activation:?} at {v}: {found}");
        }
        for v in [3e38, -3e38] {
            let exact = definition.value(f64::from(v)) as f32;
            assert_eq!(value(activation, v), exact, "{activation:?} at {v}");
        }
    }
}

#[test]
fn a_derivative_of_0_stops_what_is_infinite() {
    let mut g = [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY];
    gate(&mut g, &[-1.0, 7.0, 1.0], Activation::Relu6);
    assert_eq!(g, [0.0, 0.0, f32::INFINITY]);
}
