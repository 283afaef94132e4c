//! Sums of integers against the definition in f64.

use approx::abs_diff_eq;
use syncbn::{config::Activation, low_level::Epilogue};
use syncbn_testkit::reproducible::{FORMS, Findings, Whole, findings, hosts, uncut, whole};

/// What one channel should be, and what its gradient sums may be off by.
struct Expected {
    mean: f64,
    m2: f64,
    sums: [f64; 2],
    bounds: [f64; 2],
}

fn expected(whole: &Whole, channel: usize) -> Expected {
    let of = |samples: &[Vec<f32>]| -> Vec<f64> {
        let values = samples.iter().flat_map(|of| &of[channel * whole.len..][..whole.len]);
        values.copied().map(f64::from).collect()
    };
    let [x, g] = [of(&whole.x), of(&whole.grad_output)];
    let count = x.len() as f64;
    // About a value, so that equal ones have their mean exactly.
    let first = x[0];
    let mean = first + x.iter().map(|x| x - first).sum::<f64>() / count;
    let m2: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    let deviation = (m2 / count).sqrt();
    let slope: Option<f64> = match whole.epilogue.activation {
        Activation::Relu => Some(0.0),
        Activation::LeakyRelu(slope) => Some(slope.into()),
        _ => None,
    };
    let mut sums = [0.0; 2];
    // A step of either grid is 2⁻²⁸ of the largest; means move by rounding of f64.
    let [widest, largest] = [&x, &g].map(|of| {
        let low = of.iter().copied().fold(f64::INFINITY, f64::min);
        (of.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low).max(0.0)
    });
    let largest = 1.7 * largest.max(g.iter().fold(0.0, |most, g| g.abs().max(most)));
    let step = count * 2f64.powi(-27);
    let mut bounds = [step * largest, 2.0 * step * largest * widest];
    for (x, g) in x.iter().zip(&g) {
        let v = if deviation == 0.0 { 0.0 } else { (x - mean) / deviation };
        let passed = match slope {
            Some(slope) if v <= 0.0 => slope * g,
            _ => *g,
        };
        sums[0] += passed;
        sums[1] += passed * (x - mean);
        if slope.is_some() && deviation != 0.0 && v.abs() < 1e-6 {
            // On either side of 0 by rounding of v.
            bounds[0] += 1.7 * g.abs();
            bounds[1] += 1.7 * (g * (x - mean)).abs();
        }
    }
    Expected { mean, m2, sums, bounds }
}

/// Refuses findings that are not those of the definition.
fn judge(found: &Findings, whole: &Whole, what: &str) {
    assert_eq!(found.count as usize, whole.samples() * whole.len, "{what}");
    for channel in 0..whole.channels {
        let Expected { mean, m2, sums, bounds } = expected(whole, channel);
        let what = format!("{what}, channel {channel}");
        let [found_mean, found_m2] = found.moments[channel].map(f64::from_bits);
        let deviation = (m2 / found.count as f64).sqrt();
        // 2⁻²⁸ of a range that has at most 2⁶ deviations, where it is not refined; the f64 sums of
        // the definition itself lose as much where the mean is 10⁶ deviations away.
        assert!(
            abs_diff_eq!(found_mean, mean, epsilon = 1e-7 * deviation),
            "{what}: mean {found_mean:e}, expected {mean:e}"
        );
        assert!(
            abs_diff_eq!(found_m2, m2, epsilon = 3e-7 * m2),
            "{what}: m2 {found_m2:e}, expected {m2:e}"
        );
        let found_sums = found.sums[channel].map(f64::from_bits);
        for ((found, expected), bound) in found_sums.iter().zip(sums).zip(bounds) {
            assert!(
                abs_diff_eq!(*found, expected, epsilon = bound),
                "{what}: {found_sums:?}, expected {sums:?} within {bound:e}"
            );
        }
    }
}

#[test]
fn sums_of_integers_are_those_of_the_definition_up_to_rounding() {
    for form in 0..FORMS.len() {
        for last in [false, true] {
            for epilogue in [Epilogue::NONE, Epilogue::RELU, Epilogue::leaky_relu(1.7)] {
                let whole = whole(form, last, epilogue);
                let found = findings(&whole, &uncut(&whole), &hosts(1));
                judge(&found, &whole, &format!("form {form}, channels last {last}, {epilogue:?}"));
            }
        }
    }
}

#[test]
fn a_wrong_sum_is_not_that_of_the_definition() {
    let whole = whole(0, false, Epilogue::NONE);
    let right = findings(&whole, &uncut(&whole), &hosts(1));
    judge(&right, &whole, "right");
    let wrong = |change: &dyn Fn(&mut Findings)| {
        let mut found = right.clone();
        change(&mut found);
        std::panic::catch_unwind(|| judge(&found, &whole, "wrong")).is_err()
    };
    let moved = |bits: u64, by: f64| (f64::from_bits(bits) * by).to_bits();
    assert!(wrong(&|found| found.moments[1][0] = moved(found.moments[1][0], 1.0 + 1e-12)));
    assert!(wrong(&|found| found.moments[0][1] = moved(found.moments[0][1], 1.0 + 1e-6)));
    assert!(wrong(&|found| found.sums[0][0] = moved(found.sums[0][0], 1.001)));
    assert!(wrong(&|found| found.sums[0][1] = moved(found.sums[0][1], 1.001)));
}
