//! What does not fit together is an error with both values, before anything is computed; and what
//! a rank leaves open.

use burn::nn::BatchNorm;
use burn::tensor::{Device, Tensor};
use syncbn::ProcessGroup;
use syncbn_burn::{Activation, Convert, Error, Rank, SyncBatchNormConfig};

use crate::common::{CHANNELS, DEADLINE, alone, devices, on_threads, ours, ranks};

#[test]
fn a_residual_of_other_dimensions_is_refused_in_evaluation_of_any_size() {
    let devices = devices();
    let (device, setup) = &devices[0];
    for has_rank in [false, true] {
        let _rank =
            has_rank.then(|| Rank::of_device(device, setup, ProcessGroup::single()).unwrap());
        let norm = ours(device);
        for batch in [2, 70_000] {
            let x = Tensor::<3>::zeros([batch, CHANNELS, 4], device);
            for found in [[1, CHANNELS, 1], [batch, CHANNELS, 5]] {
                let residual = Tensor::zeros(found, device);
                let error = norm.try_forward_add(x.clone(), residual).unwrap_err();
                let expected = vec![batch, CHANNELS, 4];
                assert_eq!(error, Error::Residual { found: found.to_vec(), expected });
            }
        }
    }
}

#[test]
fn an_activation_is_not_lost_in_a_conversion() {
    let devices = devices();
    let norm = ours(&devices[0].0).with_activation(Activation::Relu);
    let converted: Result<BatchNorm, Error> = norm.convert();
    let error = converted.unwrap_err();
    assert!(matches!(&error, Error::NotInBurn { found } if found == "Relu"), "{error}");
    let plain: Result<Box<BatchNorm>, Error> = Box::new(ours(&devices[0].0)).convert();
    assert!(plain.is_ok());
}

#[test]
fn a_slope_that_is_no_number_is_refused_when_the_module_is_made() {
    let devices = devices();
    for activation in [Activation::LeakyRelu(f64::NAN), Activation::Elu(1e300)] {
        let config = SyncBatchNormConfig::new(CHANNELS).with_activation(activation);
        let error = config.try_init(&devices[0].0).unwrap_err();
        assert!(matches!(error, Error::Layer(syncbn::Error::Config(_))), "{error}");
    }
}

#[test]
fn the_setup_of_another_device_is_refused() {
    let devices = devices();
    let own = &devices[0].0;
    let other = &devices[1].1;
    let error = Rank::of_device(own, other, ProcessGroup::single()).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert!(error.to_string().contains("the setup is not that of"), "{error}");
    // Nothing is left of it.
    Rank::of_device(own, &devices[0].1, ProcessGroup::single()).unwrap();
}

#[test]
fn an_input_on_another_device_than_the_module_is_refused() {
    let devices = devices();
    let others = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let norm = ours(&devices[0].0);
        let other = devices[1].0.clone();
        if index == 0 {
            let x = |device: &Device| Tensor::<3>::ones([2, CHANNELS, 4], device);
            for error in [
                norm.try_forward(x(&other)).unwrap_err(),
                norm.try_forward(x(&other.clone().autodiff())).unwrap_err(),
            ] {
                assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
            }
            return None;
        }
        let norm = ours(&rank.device());
        let x = Tensor::<3>::ones([2, CHANNELS, 4], &rank.device().autodiff());
        Some(norm.try_forward(x).unwrap_err().to_string())
    });
    let told = others[1].as_deref().expect("that of rank 1");
    assert!(told.contains("rank 0 failed") && told.contains("input lies on"), "{told}");
}

#[test]
fn a_residual_on_another_device_than_the_module_is_refused() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let norm = alone(&rank.device());
    let ones = |device: &Device| Tensor::<3>::ones([2, CHANNELS, 4], device);
    let [own, other] = [rank.device(), devices[1].0.clone()];
    for (own, other) in [
        (own.clone(), other.clone()),
        (own.clone().autodiff(), other.clone().autodiff()),
        (own.autodiff(), other),
    ] {
        for error in [
            norm.try_forward_add(ones(&own), ones(&other)).unwrap_err(),
            norm.try_forward_add_all(vec![ones(&own)], vec![ones(&other)]).unwrap_err(),
        ] {
            assert!(matches!(error, Error::OtherDevice { argument: "residual", .. }), "{error}");
        }
    }
}

#[test]
fn a_rank_leaves_burn_s_default_types_open() {
    let adapter = devices()[0].1.adapter.clone();
    let rank = Rank::open(&adapter, ProcessGroup::single()).unwrap();
    rank.device().configure(burn::tensor::FloatDType::F16).unwrap();
    // Of a device with another default the setup is still its own.
    let setup = syncbn_burn::setup(&adapter).unwrap();
    let mut device = Device::wgpu_options().setup(setup.clone()).init().unwrap();
    device.configure(burn::tensor::FloatDType::F16).unwrap();
    Rank::of_device(&device, &setup, ProcessGroup::single()).unwrap();
}
