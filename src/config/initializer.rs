//! Initial values of parameters and running statistics. Ranks with the same configuration get the
//! same values.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::ConfigError;

/// The initial values of a vector with one value per channel.
///
/// Random values come from a generator that the configuration seeds, so all ranks start alike.
/// Their values are the same on every platform. An initializer is parsed from a number, or from the
/// names that MindSpore accepts for a vector:
///
/// ```
/// use syncbn::config::Initializer;
/// assert_eq!("ones".parse(), Ok(Initializer::Ones));
/// assert_eq!("0.25".parse(), Ok(Initializer::Constant(0.25)));
/// assert!("xavier_uniform".parse::<Initializer>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Initializer {
    /// 1 everywhere.
    Ones,
    /// 0 everywhere.
    Zeros,
    /// One number everywhere.
    Constant(f64),
    /// Normally distributed.
    Normal {
        /// Mean of the distribution.
        mean: f64,
        /// Its standard deviation.
        std: f64,
    },
    /// Uniformly distributed in low … high.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Normally distributed, within two standard deviations of the mean.
    TruncatedNormal {
        /// Mean of the distribution.
        mean: f64,
        /// Its standard deviation before truncation.
        std: f64,
    },
    /// These values, one per channel.
    Values(Vec<f32>),
}

/// Names that parse, each with the distribution that MindSpore gives it.
const NAMES: [(&[&str], Initializer); 5] = [
    (&["ones", "one"], Initializer::Ones),
    (&["zeros", "zero"], Initializer::Zeros),
    (&["normal"], Initializer::Normal { mean: 0.0, std: 0.01 }),
    (&["uniform"], Initializer::Uniform { low: -0.07, high: 0.07 }),
    (&["truncatednormal"], Initializer::TruncatedNormal { mean: 0.0, std: 0.01 }),
];

/// Largest deviation of a truncated normal distribution, in standard deviations.
const TRUNCATION: f64 = 2.0;

impl FromStr for Initializer {
    type Err = ConfigError;

    /// Reads one of MindSpore's names, in any case, or a finite number.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let name = text.to_lowercase();
        if let Some((_, initializer)) =
            NAMES.iter().find(|(names, _)| names.contains(&name.as_str()))
        {
            return Ok(initializer.clone());
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Self::Constant(number)),
            _ => Err(ConfigError::Initializer { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ones => write!(f, "ones"),
            Self::Zeros => write!(f, "zeros"),
            Self::Constant(number) => write!(f, "{number}"),
            Self::Normal { mean, std } => write!(f, "normal(mean {mean}, std {std})"),
            Self::Uniform { low, high } => write!(f, "uniform({low} … {high})"),
            Self::TruncatedNormal { mean, std } => {
                write!(f, "truncatednormal(mean {mean}, std {std})")
            }
            Self::Values(values) => write!(f, "values of shape [{}]", values.len()),
        }
    }
}

impl Initializer {
    /// The values of `channels` channels. `stream` distinguishes the vectors of one layer.
    ///
    /// # Errors
    /// [`ConfigError`] when the number of [`Values`](Self::Values) is not `channels`, or a value is
    /// not finite.
    pub(crate) fn values(
        &self,
        name: &'static str,
        channels: usize,
        seed: u64,
        stream: u64,
    ) -> Result<Vec<f32>, ConfigError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        let mut draw = || match *self {
            Self::Ones => 1.0,
            Self::Zeros | Self::Values(_) => 0.0,
            Self::Constant(number) => number,
            Self::Normal { mean, std } => mean + std * standard_normal(&mut random),
            Self::Uniform { low, high } => low + (high - low) * unit(&mut random),
            Self::TruncatedNormal { mean, std } => loop {
                let z = standard_normal(&mut random);
                if z.abs() <= TRUNCATION {
                    break mean + std * z;
                }
            },
        };
        let values: Vec<f32> = match self {
            Self::Values(values) if values.len() == channels => values.clone(),
            Self::Values(values) => {
                return Err(ConfigError::InitialLength {
                    name,
                    found: values.len(),
                    expected: channels,
                });
            }
            _ => (0..channels).map(|_| draw() as f32).collect(),
        };
        match values.iter().find(|value| !value.is_finite()) {
            Some(&found) => Err(ConfigError::OutOfRange {
                name,
                found: found.into(),
                allowed: "finite numbers",
            }),
            None => Ok(values),
        }
    }
}

/// Uniform in [0, 1) with 53 random bits.
fn unit(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal (Box and Muller, 1958), with logarithm and cosine that do not depend on the
/// platform.
fn standard_normal(random: &mut impl Rng) -> f64 {
    let radius = 1.0 - unit(random);
    let angle = unit(random);
    libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(std::f64::consts::TAU * angle)
}

#[cfg(test)]
mod tests {
    use approx::abs_diff_eq;

    use super::*;

    fn moments(initializer: &Initializer) -> (f64, f64, f64) {
        let values = initializer.values("weight_init", 100_000, 7, 0).expect("valid");
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>()
            / values.len() as f64;
        (mean, var.sqrt(), values.iter().map(|&v| f64::from(v).abs()).fold(0.0, f64::max))
    }

    #[test]
    fn random_values_have_the_moments_of_their_distribution() {
        // 100,000 draws: the mean is within 5 standard errors, 5·std/316; the deviations below are
        // known in closed form.
        for (name, std, largest) in
            [("normal", 0.01, f64::MAX), ("uniform", 0.07 / 3f64.sqrt(), 0.07)]
        {
            let (mean, found, max) = moments(&name.parse().expect("a name"));
            assert!(
                abs_diff_eq!(mean, 0.0, epsilon = 5.0 * std / 316.0)
                    && abs_diff_eq!(found / std, 1.0, epsilon = 0.02),
                "{name}: {mean} {found}"
            );
            assert!(max <= largest, "{name}: {max}");
        }
        // A normal distribution cut at 2σ has variance σ²·(1 − 4φ(2)/(2Φ(2) − 1)) = (0.8796σ)².
        let (mean, found, max) = moments(&"truncatednormal".parse().expect("a name"));
        assert!(
            abs_diff_eq!(mean, 0.0, epsilon = 1.5e-4)
                && abs_diff_eq!(found / 0.008_796, 1.0, epsilon = 0.02)
                && max <= 0.02,
            "{mean} {found} {max}"
        );
    }

    #[test]
    fn the_seed_decides_and_two_vectors_of_a_layer_differ() {
        let normal: Initializer = "normal".parse().expect("a name");
        let draw = |seed, stream| normal.values("weight_init", 8, seed, stream).expect("valid");
        assert_eq!(draw(3, 0), draw(3, 0));
        assert_ne!(draw(3, 0), draw(4, 0));
        assert_ne!(draw(3, 0), draw(3, 1));
    }

    #[test]
    fn another_name_is_an_error_that_lists_the_valid_ones() {
        let message =
            "he_uniform".parse::<Initializer>().expect_err("not for a vector").to_string();
        for name in NAMES.iter().flat_map(|(names, _)| names.iter()) {
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn values_of_another_length_are_refused() {
        let found = Initializer::Values(vec![1.0; 3]).values("bias_init", 4, 0, 0);
        assert_eq!(
            found,
            Err(ConfigError::InitialLength { name: "bias_init", found: 3, expected: 4 })
        );
    }
}
