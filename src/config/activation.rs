//! Names of activations, those of frameworks among them.

use std::str::FromStr;

use super::Activation;
use crate::error::ConfigError;

impl FromStr for Activation {
    type Err = ConfigError;

    /// Reads a name of PyTorch, Keras, Flax, MindSpore or Burn, in any case and with underscores or
    /// without. A number in parentheses is the slope of leaky ReLU, 0.01 by default, or the alpha
    /// of ELU, 1 by default: PyTorch's defaults, which other frameworks do not share. `gelu` is the
    /// form with erf, as in PyTorch and Keras; where a framework's default is the form with tanh,
    /// as that of `jax.nn.gelu`, say `gelu_tanh`.
    ///
    /// # Errors
    /// [`ConfigError::Activation`] for any other name.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let unknown = || ConfigError::Activation { found: text.to_owned() };
        let plain = text.trim().to_lowercase().replace(['_', '-', ' '], "");
        let (name, number) = match plain.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
            // The number is read as it was written: a minus sign counts there.
            Some((name, _)) => (name.to_owned(), Some(number_of(text).ok_or_else(unknown)?)),
            None => (plain, None),
        };
        match (name.as_str(), number) {
            ("leakyrelu", slope) => Ok(Self::LeakyRelu(slope.unwrap_or(0.01))),
            ("elu", alpha) => Ok(Self::Elu(alpha.unwrap_or(1.0))),
            (_, Some(_)) => Err(unknown()),
            ("none" | "identity" | "linear", None) => Ok(Self::None),
            ("relu", None) => Ok(Self::Relu),
            ("relu6", None) => Ok(Self::Relu6),
            ("silu" | "swish", None) => Ok(Self::Silu),
            ("hardswish" | "hswish" | "hardsilu", None) => Ok(Self::Hardswish),
            ("gelu" | "geluerf", None) => Ok(Self::Gelu),
            ("gelutanh" | "gelupytorchtanh" | "gelunew", None) => Ok(Self::GeluTanh),
            _ => Err(unknown()),
        }
    }
}

/// The number in the parentheses of a name.
fn number_of(text: &str) -> Option<f32> {
    let (_, rest) = text.trim().split_once('(')?;
    rest.strip_suffix(')')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_frameworks_are_read() {
        let cases = [
            ("ReLU", Activation::Relu),
            ("LeakyReLU", Activation::LeakyRelu(0.01)),
            ("leaky_relu(-0.5)", Activation::LeakyRelu(-0.5)),
            ("ReLU6", Activation::Relu6),
            ("swish", Activation::Silu),
            ("hard_swish", Activation::Hardswish),
            ("GELU", Activation::Gelu),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("ELU( 2e-1 )", Activation::Elu(0.2)),
            ("linear", Activation::None),
        ];
        for (name, activation) in cases {
            assert_eq!(name.parse(), Ok(activation), "{name}");
        }
        for name in ["", "softplus", "relu(1)", "elu()", "elu(1", "silu(x)"] {
            let found = name.to_owned();
            assert_eq!(name.parse::<Activation>(), Err(ConfigError::Activation { found }));
        }
    }
}
