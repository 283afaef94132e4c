//! The lists by which ranks compare settings and states, against the document: text and checksum.

use syncbn::config::{Activation, AffineGradient, Initializer, Momentum, RunningVariance};
use syncbn::low_level::{settings_manifest, state_manifest};
use syncbn::state::StateDict;
use syncbn::{BatchNormConfig, low_level::Manifest};

use crate::documented::block;

/// FNV-1a, 64 bits, as its authors define it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn assert_documented(manifest: Manifest, title: &str) {
    assert_eq!(&*manifest.text, block(title), "{title}");
    assert_eq!(manifest.checksum, fnv1a(block(title).as_bytes()), "{title}");
    let checksum = format!("`{:#018x}`", manifest.checksum);
    let document = include_str!("../../docs/PROTOCOL.md");
    assert!(document.contains(&checksum), "{title}: {checksum} is not in the document");
}

#[test]
fn the_documented_settings_are_those_that_ranks_compare() {
    let config = BatchNormConfig::torch(2)
        .with_eps(1e-3)
        .with_momentum(Momentum::Decay(0.9))
        .with_running_variance(RunningVariance::Biased)
        .with_affine_gradient(AffineGradient::GroupMean)
        .with_activation(Activation::LeakyRelu(0.01))
        .with_use_batch_statistics(Some(true))
        .with_weight_init(Initializer::Values(vec![1.0, -0.75]))
        .with_bias_init(Initializer::Normal { mean: 0.0, std: 0.02 })
        .with_seed(u64::MAX);
    assert_documented(settings_manifest(&config), "settings");
}

#[test]
fn the_documented_state_is_the_one_that_ranks_compare() {
    let mut state = StateDict::default();
    state.weight = Some(vec![1.0, -0.75]);
    state.running_mean = Some(vec![0.0, -0.0]);
    state.running_var = Some(vec![1.0, f32::NAN]);
    state.num_batches_tracked = Some(3);
    assert_documented(state_manifest(&state), "state");
    let [weight, mean, var] = [[1.0f32, -0.75], [0.0, -0.0], [1.0, f32::NAN]]
        .map(|values| format!("{:#018x}", fnv1a(&values.map(f32::to_le_bytes).concat())));
    let expected = format!(
        "weight = {weight}\nrunning_mean = {mean}\nrunning_var = {var}\nnum_batches_tracked = 3\n"
    );
    assert_eq!(block("state"), expected);
}
