//! Errors as shares of what is allowed.

/// The worst error as a share of what is allowed at its index, or what is wrong.
pub fn worst_share(
    name: &str,
    found: &[f32],
    expected: &[f64],
    allowed: impl Fn(usize) -> f64,
) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{name} has {} values, expected {}", found.len(), expected.len()));
    }
    let mut worst = 0f64;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (error, allowed) = ((f64::from(found) - expected).abs(), allowed(index));
        if error == 0.0 {
            continue;
        }
        // A NaN on either side is not within.
        let within = error <= allowed;
        if !within {
            return Err(format!(
                "{name}, value {index}: {found:e}, expected {expected:e} within {allowed:e}"
            ));
        }
        worst = worst.max(error / allowed);
    }
    Ok(worst)
}
