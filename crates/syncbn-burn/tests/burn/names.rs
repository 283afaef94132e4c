//! Modules that ranks use in another order.

use burn::tensor::Tensor;
use syncbn_burn::{Error, SyncBatchNorm, SyncBatchNormConfig};

use crate::common::{CHANNELS, DEADLINE, Norm, devices, on_threads, ours, ranks};

fn is_about_the_name(error: &Error, names: [&str; 2]) {
    assert!(matches!(error, Error::Layer(syncbn::Error::Exchange(_))), "{error}");
    let message = error.to_string();
    assert!(message.contains("layer name of rank"), "{message}");
    assert!(names.iter().all(|name| message.contains(name)), "{message}");
}

#[test]
fn modules_used_in_another_order_are_found_out_on_every_rank() {
    let devices = devices();
    for names in [None, Some(["stem", "head"])] {
        let errors = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
            let device = rank.device().autodiff();
            let made = |which: usize| -> SyncBatchNorm {
                let name = names.map(|names| names[which].to_owned());
                SyncBatchNormConfig::new(CHANNELS).with_name(name).init(&device)
            };
            let norms = [made(0), made(1)];
            let x = |value: f32| {
                Tensor::<2>::full([4, CHANNELS], value, &device)
                    + Tensor::random([4, CHANNELS], burn::tensor::Distribution::Default, &device)
            };
            // The first is meant for values about 100, the second for values about 0.
            let order = if index == 0 { [(0, 100.0), (1, 0.0)] } else { [(1, 0.0), (0, 100.0)] };
            let errors =
                order.map(|(which, about)| norms[which].try_forward(x(about)).unwrap_err());
            assert_eq!(norms[0].running(), [vec![0.0; CHANNELS], vec![1.0; CHANNELS]]);
            errors
        });
        for [first, _] in &errors {
            is_about_the_name(first, names.unwrap_or(["module 0", "module 1"]));
        }
    }
}

#[test]
fn replicas_forked_from_one_module_have_one_name() {
    use burn::module::Module;
    let devices = devices();
    let [a, b] = [ours(&devices[0].0), ours(&devices[0].0)];
    assert_ne!(a.name(), b.name());
    on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device().autodiff();
        // A module that one rank alone makes is not counted for these.
        let _more = (index == 0).then(|| ours(&rank.device()));
        let [a, b] = [&a, &b].map(|norm| norm.clone().fork(&device));
        let x = Tensor::<3>::random([2, CHANNELS, 3], burn::tensor::Distribution::Default, &device);
        b.try_forward(a.try_forward(x).unwrap()).unwrap();
    });
}

#[test]
fn a_module_made_without_a_rank_is_not_taken_for_one_made_on_it() {
    use burn::module::Module;
    let devices = devices();
    let shared = ours(&devices[0].0);
    let errors = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device().autodiff();
        let shared = shared.clone().fork(&device);
        let own = ours(&rank.device());
        let x = Tensor::<3>::random([2, CHANNELS, 3], burn::tensor::Distribution::Default, &device);
        let first = if index == 0 { &shared } else { &own };
        first.try_forward(x).unwrap_err()
    });
    for error in &errors {
        is_about_the_name(error, ["shared module", "\"module 0\""]);
    }
}
