//! The settings of a layer as a list. Ranks compare their configurations by it. `docs/PROTOCOL.md`
//! has its rules.

use std::fmt::LowerExp;

use super::{
    Activation, AffineGradient, BatchNormConfig, Initializer, Momentum, Renorm, RunningVariance,
};
use crate::checksum::{Listing, Manifest};

impl BatchNormConfig {
    /// The settings as a list, in the order of the fields.
    pub(crate) fn manifest(&self) -> Manifest {
        // Names every field, so the compiler finds a new one that is missing.
        let Self {
            num_features,
            eps,
            momentum,
            weight,
            bias,
            freeze_affine,
            track_running_stats,
            use_batch_statistics,
            running_variance,
            affine_gradient,
            activation,
            residual,
            activation_mask,
            weight_init,
            bias_init,
            running_mean_init,
            running_var_init,
            seed,
            reproducible,
            renorm,
        } = self;
        let mut lines = Listing::default();
        lines.add("num_features", num_features);
        lines.add("eps", number(eps));
        lines.add("momentum", momentum_of(*momentum));
        lines.add("weight", weight);
        lines.add("bias", bias);
        lines.add("freeze_affine", freeze_affine);
        lines.add("track_running_stats", track_running_stats);
        lines.add(
            "use_batch_statistics",
            use_batch_statistics.map_or("none".to_owned(), |batch| batch.to_string()),
        );
        lines.add(
            "running_variance",
            match running_variance {
                RunningVariance::Unbiased => "unbiased",
                RunningVariance::Biased => "biased",
            },
        );
        lines.add(
            "affine_gradient",
            match affine_gradient {
                AffineGradient::Local => "local",
                AffineGradient::GroupSum => "group_sum",
                AffineGradient::GroupMean => "group_mean",
            },
        );
        lines.add("activation", activation_of(*activation));
        lines.add("residual", residual);
        lines.add("activation_mask", activation_mask);
        add_initial(&mut lines, "weight_init", weight_init);
        add_initial(&mut lines, "bias_init", bias_init);
        add_initial(&mut lines, "running_mean_init", running_mean_init);
        add_initial(&mut lines, "running_var_init", running_var_init);
        lines.add("seed", seed);
        lines.add("reproducible", reproducible);
        lines.add("renorm", Renorm::text(*renorm));
        lines.finish()
    }
}

fn add_initial(lines: &mut Listing, name: &str, initializer: &Initializer) {
    let value = match initializer {
        Initializer::Ones => "ones".to_owned(),
        Initializer::Zeros => "zeros".to_owned(),
        Initializer::Constant(value) => format!("constant({})", number(value)),
        Initializer::Normal { mean, std } => format!("normal({}, {})", number(mean), number(std)),
        Initializer::Uniform { low, high } => format!("uniform({}, {})", number(low), number(high)),
        Initializer::TruncatedNormal { mean, std } => {
            format!("truncated_normal({}, {})", number(mean), number(std))
        }
        Initializer::Values(values) => format!("values({})", values.len()),
    };
    lines.add(name, value);
    if let Initializer::Values(values) = initializer {
        for (channel, value) in values.iter().enumerate() {
            lines.add(format_args!("{name}[{channel}]"), number(value));
        }
    }
}

/// The shortest digits that read back as the same number, one of them before the point: `1e-5`,
/// `2.5e-1`, `0e0`.
fn number(value: impl LowerExp) -> String {
    format!("{value:e}")
}

fn momentum_of(momentum: Momentum) -> String {
    match momentum {
        Momentum::NewWeight(weight) => format!("new_weight({})", number(weight)),
        Momentum::Decay(decay) => format!("decay({})", number(decay)),
        Momentum::Cumulative => "cumulative".to_owned(),
    }
}

fn activation_of(activation: Activation) -> String {
    let name = activation.name();
    match activation {
        Activation::LeakyRelu(of) | Activation::Elu(of) => format!("{name}({})", number(of)),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_changes_changes_one_line_and_the_checksum() {
        let base = BatchNormConfig::torch(2);
        let lines = |config: &BatchNormConfig| {
            config.manifest().text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let cases = [
            (base.clone().with_eps(0.25), "eps = 2.5e-1"),
            (base.clone().with_eps(0.1 + 0.2), "eps = 3.0000000000000004e-1"),
            (base.clone().with_momentum(Momentum::NewWeight(0.0)), "momentum = new_weight(0e0)"),
            (base.clone().with_momentum(Momentum::Decay(0.9)), "momentum = decay(9e-1)"),
            (base.clone().with_momentum(Momentum::Cumulative), "momentum = cumulative"),
            (base.clone().with_weight(false), "weight = false"),
            (base.clone().with_bias(false), "bias = false"),
            (base.clone().with_freeze_affine(true), "freeze_affine = true"),
            (base.clone().with_track_running_stats(false), "track_running_stats = false"),
            (base.clone().with_use_batch_statistics(Some(true)), "use_batch_statistics = true"),
            (
                base.clone().with_running_variance(RunningVariance::Biased),
                "running_variance = biased",
            ),
            (
                base.clone().with_affine_gradient(AffineGradient::GroupMean),
                "affine_gradient = group_mean",
            ),
            (
                base.clone().with_affine_gradient(AffineGradient::GroupSum),
                "affine_gradient = group_sum",
            ),
            (base.clone().with_activation(Activation::Relu), "activation = relu"),
            (
                base.clone().with_activation(Activation::LeakyRelu(0.1)),
                "activation = leaky_relu(1e-1)",
            ),
            (base.clone().with_activation(Activation::GeluTanh), "activation = gelu_tanh"),
            (base.clone().with_activation(Activation::Elu(1.0)), "activation = elu(1e0)"),
            (base.clone().with_residual(true), "residual = true"),
            (base.clone().with_activation_mask(true), "activation_mask = true"),
            (base.clone().with_weight_init(Initializer::Zeros), "weight_init = zeros"),
            (
                base.clone().with_bias_init(Initializer::Constant(-2.0)),
                "bias_init = constant(-2e0)",
            ),
            (
                base.clone().with_bias_init(Initializer::Normal { mean: 0.0, std: 0.01 }),
                "bias_init = normal(0e0, 1e-2)",
            ),
            (
                base.clone()
                    .with_running_mean_init(Initializer::Uniform { low: -0.07, high: 0.07 }),
                "running_mean_init = uniform(-7e-2, 7e-2)",
            ),
            (
                base.clone()
                    .with_running_var_init(Initializer::TruncatedNormal { mean: 1.0, std: 0.5 }),
                "running_var_init = truncated_normal(1e0, 5e-1)",
            ),
            (base.clone().with_seed(7), "seed = 7"),
            (base.clone().with_reproducible(true), "reproducible = true"),
            (
                base.clone().with_renorm(Some(Renorm { r_max: 3.0, d_max: 0.5 })),
                "renorm = (3e0, 5e-1)",
            ),
        ];
        for (changed, line) in cases {
            let before = lines(&base);
            let after = lines(&changed);
            let differs: Vec<_> =
                before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert_eq!((before.len(), differs.len(), differs[0].1.as_str()), (20, 1, line));
            assert_ne!(base.manifest().checksum, changed.manifest().checksum, "{line}");
        }
    }

    #[test]
    fn values_have_a_line_each() {
        let config =
            BatchNormConfig::torch(2).with_weight_init(Initializer::Values(vec![0.1, -1.0]));
        let text = config.manifest().text;
        let lines =
            "weight_init = values(2)\nweight_init[0] = 1e-1\nweight_init[1] = -1e0\nbias_init";
        assert!(text.contains(lines), "{text}");
    }
}
