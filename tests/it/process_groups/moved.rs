//! Layers that move into a new group after an exchange has failed.

use futures::future::join;
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::error::{Error, ExchangeError};
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

fn groups() -> [ProcessGroup; 2] {
    LocalGroup::ranks(2)
        .into_iter()
        .map(ProcessGroup::new)
        .collect::<Vec<_>>()
        .try_into()
        .expect("two ranks")
}

#[test]
fn a_layer_moves_into_a_new_group_and_goes_on_from_its_state() {
    let host = Device::host();
    let x = [[0.0f32, 2.0], [4.0, 6.0]].map(|values| host.upload(&[2, 1], &values).unwrap());
    let [first, second] = groups();
    let layer = |group: &ProcessGroup| {
        SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])
            .unwrap()
            .named("bn")
            .in_group(group)
            .unwrap()
    };
    let layers = [layer(&first), layer(&second)];
    let step = |layers: &[SyncBatchNorm; 2]| {
        let [a, b] = layers;
        let (a, b) = block_on(join(a.forward_train(&x[0]), b.forward_train(&x[1])));
        [a.map(|forward| forward.saved), b.map(|forward| forward.saved)]
    };
    for saved in step(&layers) {
        assert_eq!(saved.unwrap().statistics().unwrap().channels()[0].mean, 3.0);
    }
    let before = layers.each_ref().map(|layer| layer.running_stats());

    second.abort("planted");
    for error in step(&layers).map(Result::unwrap_err) {
        let Error::Exchange(error) = error else { panic!("{error}") };
        let message = error.to_string();
        match error {
            ExchangeError::Aborted { rank: 1, .. } => assert!(message.ends_with("planted")),
            ExchangeError::Poisoned { .. } => {
                assert!(message.contains("go on in a new group"), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(layers.each_ref().map(|layer| layer.running_stats()), before);

    let [first, second] = groups();
    let [a, b] = layers;
    let layers = [a.in_group(&first).unwrap(), b.in_group(&second).unwrap()];
    for saved in step(&layers) {
        assert_eq!(saved.unwrap().statistics().unwrap().count(), 4);
    }
    let [a, b] = layers.each_ref().map(|layer| layer.running_stats().unwrap());
    assert_eq!(a, b);
    assert_eq!(a.num_batches_tracked, 2);
    assert_ne!(Some(a), before[0]);
}
