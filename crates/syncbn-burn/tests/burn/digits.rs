//! The network of the example, on its first steps.

#[path = "../../examples/train_digits/data.rs"]
mod data;
#[path = "../../examples/train_digits/model.rs"]
mod model;
#[path = "../../examples/train_digits/training.rs"]
mod training;

use burn::tensor::Device;
use data::Digits;
use training::{Opened, Plan, RANKS, Way, train};

use crate::common::devices;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[test]
fn synchronized_training_equals_the_whole_batch_step_by_step() {
    // Rounding alone tells the two apart, and grows with the steps; local statistics differ from
    // the first on.
    const STEPS: usize = 10;
    const TOLERANCE: f64 = 1e-3;
    let two = devices();
    let more = (two.len()..RANKS).map(|_| {
        let setup = syncbn_burn::setup(&two[0].1.adapter).unwrap();
        (Device::wgpu_options().setup(setup.clone()).init().unwrap(), setup)
    });
    let devices: Vec<Opened> = two.iter().cloned().chain(more).collect();
    let digits = Digits::load().unwrap();
    assert_eq!(digits.each_ref().map(Digits::len), [1438, 359]);
    let plan = Plan { seed: 1, epochs: 1, samples: STEPS * training::BATCH };
    let [local, synchronized, whole] =
        Way::ALL.map(|way| train(way, plan, &devices, &digits, &|_| {}).unwrap());
    assert_eq!(whole.losses.len(), STEPS);
    let differences = |losses: &[f32]| -> Vec<f64> {
        losses.iter().zip(&whole.losses).map(|(&a, &b)| f64::from((a - b).abs() / b)).collect()
    };
    let found = differences(&synchronized.losses);
    let local = differences(&local.losses);
    println!("whole {:?}\nsynchronized off by {found:?}\nlocal off by {local:?}", whole.losses);
    assert!(found.iter().all(|&difference| difference <= TOLERANCE), "{found:?}");
    assert!(local.iter().any(|&difference| difference > 10.0 * TOLERANCE), "{local:?}");
    assert_eq!(synchronized.accuracy, whole.accuracy);
}
