//! What a subscriber of `tracing` hears of passes and of exchanges.

mod listener;

use std::sync::Mutex;
use std::time::Instant;

use crate::common::events::keep_asking;
use crate::common::transport::Tapped;
use listener::{Heard, Listener};
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, ProcessGroup, SyncBatchNorm, joint,
};
use tracing::subscriber::with_default;

/// Listens on this thread as long as `work` runs.
fn listening<T>(listener: &Listener, work: impl FnOnce() -> T) -> T {
    keep_asking();
    with_default(listener.clone(), work)
}

fn spans(heard: &[Heard], name: &str, rank: u64) -> Vec<Heard> {
    let is_asked = |span: &&Heard| span.name == name && span.number("rank") == rank;
    heard.iter().filter(is_asked).cloned().collect()
}

#[test]
fn a_forward_and_a_backward_over_two_ranks_have_a_span_each_and_one_for_each_message() {
    const SAMPLES: [usize; 2] = [3, 5];
    const VALUES: usize = 2 * 4;
    let listener = Listener::default();
    // The messages of each rank, in bytes.
    let sent = [const { Mutex::new(Vec::new()) }; 2];
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (rank, transport) in LocalGroup::ranks(2).into_iter().enumerate() {
            let listener = listener.clone();
            let sent = &sent[rank];
            scope.spawn(move || {
                let sizes = std::sync::Arc::new(Mutex::new(Vec::new()));
                let kept = sizes.clone();
                let tapped = Tapped::new(transport, move |message: Vec<u8>| {
                    kept.lock().unwrap().push(message.len() as u64);
                    message
                });
                listening(&listener, || block_on(train(ProcessGroup::new(tapped), SAMPLES[rank])));
                sent.lock().unwrap().append(&mut sizes.lock().unwrap());
            });
        }
    });
    let elapsed = started.elapsed().as_micros() as u64;
    let heard = listener.heard();
    for rank in 0..2 {
        let passes = spans(&heard, "pass", rank);
        let phases: Vec<&str> = passes.iter().map(|pass| pass.text("phase")).collect();
        assert_eq!(phases, ["forward", "backward"]);
        for pass in &passes {
            assert_eq!(pass.target, "syncbn::pass");
            assert_eq!(pass.text("layer"), "layer1.0.bn1");
            assert_eq!(pass.number("ranks"), 1);
            assert_eq!(pass.number("bytes"), (4 * VALUES * SAMPLES[rank as usize]) as u64);
            assert!(pass.number("micros") <= elapsed, "{pass:?}, of {elapsed} µs in all");
            assert_eq!(pass.parent, None);
        }
        let exchanges = spans(&heard, "exchange", rank);
        let bytes: Vec<u64> = exchanges.iter().map(|span| span.number("bytes")).collect();
        assert_eq!(bytes, *sent[rank as usize].lock().unwrap());
        for exchange in &exchanges {
            assert_eq!(exchange.target, "syncbn::exchange");
            assert_eq!(exchange.text("layer"), "layer1.0.bn1");
            let pass = &heard[exchange.parent.expect("an exchange is a part of a pass")];
            assert_eq!((pass.name, pass.number("rank")), ("pass", rank));
            assert_eq!(exchange.text("phase"), pass.text("phase"));
            assert!(exchange.number("micros") <= pass.number("micros"), "{exchange:?}, {pass:?}");
        }
        let of = |phase: &str| exchanges.iter().filter(|span| span.text("phase") == phase).count();
        assert!(of("forward") >= 1 && of("backward") == 1, "{exchanges:?}");
    }
}

async fn train(group: ProcessGroup, samples: usize) {
    let host = Device::host();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [host.clone()]).unwrap();
    let layer = layer.named("layer1.0.bn1").in_group(&group).unwrap();
    let dims = [samples, 2, 4];
    let values: Vec<f32> = (0..8 * samples).map(|value| value as f32).collect();
    let x = host.upload(&dims, &values).unwrap();
    let dy = host.zeros(&dims).unwrap();
    let forward = layer.forward_train(&x).await.unwrap();
    layer.backward(&forward.saved, Backward::of(&x, &dy)).await.unwrap();
}

#[test]
fn layers_of_one_call_have_one_span_with_all_names_and_bytes() {
    let listener = Listener::default();
    let host = Device::host();
    let layer = |channels, name| {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(channels), [host.clone()]);
        layer.unwrap().named(name)
    };
    let a = layer(1, "a");
    let b = layer(3, "");
    let x = host.zeros(&[5, 1]).unwrap();
    let z = host.zeros(&[7, 3]).unwrap();
    listening(&listener, || {
        block_on(joint::forward_train([(&a, &x), (&b, &z)])).unwrap();
        block_on(a.forward_eval(&x)).unwrap();
        block_on(a.forward_train(Forward::of(&x).untracked())).unwrap();
    });
    let heard = listener.heard();
    let phases: Vec<&str> = heard.iter().map(|pass| pass.text("phase")).collect();
    assert_eq!(phases, ["forward", "forward in evaluation", "recomputed forward"]);
    assert_eq!(heard[0].text("layer"), "a, #0", "one without a name has the number of its group");
    assert_eq!(heard[0].number("bytes"), 4 * (5 + 21));
    assert_eq!(heard[0].number("ranks"), 2);
    assert_eq!(heard[1].text("layer"), "a");
}

#[test]
fn a_pass_on_one_gpu_has_a_span() {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let device = Device::from_wgpu(device, queue).unwrap();
    let layer = BatchNorm::new(BatchNormConfig::torch(3), &device).unwrap();
    let tensors = [2, 4].map(|samples| device.zeros(&[samples, 3]).unwrap());
    let listener = Listener::default();
    listening(&listener, || {
        let forward = layer.forward_train(&tensors).unwrap();
        layer.backward(&forward.saved, Backward::of(&tensors, &tensors)).unwrap();
    });
    let heard = listener.heard();
    let phases: Vec<&str> = heard.iter().map(|pass| pass.text("phase")).collect();
    assert_eq!(phases, ["forward", "backward"]);
    for pass in &heard {
        assert_eq!((pass.name, pass.number("rank"), pass.number("ranks")), ("pass", 0, 2));
        assert_eq!(pass.number("bytes"), 4 * 3 * 6);
        assert!(pass.numbers.contains_key("micros"));
    }
}
