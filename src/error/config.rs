//! Settings outside their range, and settings that another framework does not have.

/// A setting of the layer outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A numeric setting outside its range.
    #[error("{name} is {found}, allowed: {allowed}")]
    OutOfRange {
        /// Name of the setting.
        name: &'static str,
        /// The value found.
        found: f64,
        /// The range allowed, in words.
        allowed: &'static str,
    },
    /// Two settings that exclude each other.
    #[error("{setting} needs {needs}")]
    Conflict {
        /// The setting as found.
        setting: &'static str,
        /// Its requirement.
        needs: &'static str,
    },
    /// A name of initial values that does not exist for a vector.
    #[error(
        "no initial values are called {found:?}; valid: ones, one, zeros, zero, normal, uniform, \
        truncatednormal, or a number"
    )]
    Initializer {
        /// The name found.
        found: String,
    },
    /// A name of an activation that does not exist.
    #[error(
        "no activation is called {found:?}; valid: none, relu, leaky_relu, relu6, silu, hardswish, \
        gelu, gelu_tanh, elu, with a number as in leaky_relu(0.2)"
    )]
    Activation {
        /// The name found.
        found: String,
    },
    /// Initial values of the wrong length.
    #[error("{name} holds {found} value(s), expected num_features = {expected}")]
    InitialLength {
        /// Name of the setting.
        name: &'static str,
        /// Values found.
        found: usize,
        /// The layer's `num_features`.
        expected: usize,
    },
    /// A setting that another framework's layer does not have.
    #[error("{layer} cannot express {setting}: {instead}")]
    NotExpressible {
        /// The framework's layer.
        layer: &'static str,
        /// The setting.
        setting: &'static str,
        /// The layer's own behaviour or requirement.
        instead: &'static str,
    },
    /// A layer without a device.
    #[error("a layer needs at least 1 device, found 0; use Device::host() where there is no GPU")]
    NoDevices,
    /// A setting of a living layer on which its parameters, running statistics or saved contexts
    /// depend.
    #[error(
        "{name} of a layer that exists cannot change from {expected} to {found}; make another layer"
    )]
    Fixed {
        /// Name of the setting.
        name: &'static str,
        /// The value that was to be set, written as in `docs/PROTOCOL.md`.
        found: String,
        /// The layer's value.
        expected: String,
    },
}
