//! The parameters of the two conventions under their own names, and what neither layer has.

mod mindspore;
mod torch;

pub use mindspore::MindSporeArguments;
pub use torch::TorchArguments;

use super::{AffineGradient, BatchNormConfig, RunningVariance};
use crate::epilogue::Epilogue;
use crate::error::ConfigError;

/// Refuses settings that have no parameter in either convention's layer.
fn check_variance_and_gradient(
    config: &BatchNormConfig,
    refuse: impl Fn(bool, &'static str, &'static str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let biased = config.running_variance == RunningVariance::Biased;
    refuse(biased, "RunningVariance::Biased", "the unbiased variance enters the running one")?;
    refuse(
        config.epilogue() != Epilogue::NONE,
        "an activation or a residual",
        "it is a module or an operation of its own",
    )?;
    refuse(config.renorm.is_some(), "renorm", "the layer normalizes with the batch alone")?;
    let reduced = config.affine_gradient != AffineGradient::Local;
    refuse(reduced, "AffineGradient", "the trainer reduces gradients, not the layer")
}

fn refusal(
    layer: &'static str,
) -> impl Fn(bool, &'static str, &'static str) -> Result<(), ConfigError> {
    move |refused, setting, instead| {
        if refused { Err(ConfigError::NotExpressible { layer, setting, instead }) } else { Ok(()) }
    }
}
