//! A state that arrives and cannot be loaded: on one rank, or on every one.

use std::time::Duration;

use syncbn::low_level::Payload;
use syncbn::{
    BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, collective::LocalGroup,
    error::ExchangeError,
};

use crate::common::sabotage::{Sabotage, saboteur};
use crate::common::{adapter, on_threads, own_device, process_groups};

/// Long, because nobody may have to wait for it.
const DEADLINE: Duration = Duration::from_secs(20);
const CULPRIT: usize = 1;

/// Rank 1 has parameters that nothing may write to; the others have loaded the state when they
/// learn it.
#[test]
fn a_rank_that_cannot_load_the_state_fails_the_others_at_their_next_call() {
    on_threads(process_groups(3, DEADLINE), |group| {
        let culprit = group.rank() == CULPRIT;
        let gpu = culprit.then(|| own_device(&adapter(), |_| {}));
        let device = gpu
            .clone()
            .map_or(Device::host(), |(gpu, queue)| Device::from_wgpu(gpu, queue).unwrap());
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
        let mut layer = layer.named("only").in_group(&group).unwrap();
        if let Some((gpu, _)) = gpu {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let descriptor =
                wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false };
            let weight = device.wrap(gpu.create_buffer(&descriptor), 0, &[2]).unwrap();
            layer.set_parameter_tensors([weight], None).unwrap();
        } else {
            layer.set_parameters(Some(&[2.0, 3.0]), None).unwrap();
        }
        let before = pollster::block_on(layer.state()).unwrap();
        let shared = pollster::block_on(layer.broadcast_state(0));
        let after = pollster::block_on(layer.state()).unwrap();
        let next = pollster::block_on(layer.forward_train(&device.zeros(&[2, 2]).unwrap()))
            .expect_err("a failed group");
        if culprit {
            assert!(matches!(shared, Err(Error::Argument(_))), "{shared:?}");
            assert_eq!(after, before);
            assert!(matches!(next, Error::Exchange(ExchangeError::Poisoned { .. })), "{next}");
            return;
        }
        assert_eq!((shared, after.weight), (Ok(()), Some(vec![2.0, 3.0])));
        let Error::Exchange(ExchangeError::Aborted { rank: CULPRIT, reason, .. }) = &next else {
            panic!("{next}")
        };
        assert!(
            reason.starts_with("layer 0 \"only\", broadcast of the state, exchange 0: "),
            "{reason}"
        );
        assert_eq!(group.failure().map(Error::from), Some(next));
    });
}

/// The errors of all ranks where rank 1 shares its state as another payload.
fn shared_as(payload: &Payload) -> Vec<Error> {
    let groups = LocalGroup::ranks(3).into_iter().enumerate().map(|(rank, inner)| {
        let sabotage =
            if rank == CULPRIT { Sabotage::Replace(payload.clone()) } else { Sabotage::Nothing };
        ProcessGroup::new(saboteur(inner, sabotage, 0)).with_deadline(DEADLINE)
    });
    on_threads(groups.collect(), |group| {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [Device::host()]).unwrap();
        let mut layer = layer.in_group(&group).unwrap();
        let before = pollster::block_on(layer.state()).unwrap();
        let error = pollster::block_on(layer.broadcast_state(CULPRIT)).expect_err("no state");
        assert_eq!(pollster::block_on(layer.state()).unwrap(), before);
        assert!(group.failure().is_some());
        let next = pollster::block_on(layer.broadcast_state(0)).expect_err("a failed group");
        assert!(matches!(next, Error::Exchange(ExchangeError::Poisoned { .. })), "{next}");
        error
    })
}

#[test]
fn a_state_that_is_none_is_refused_on_every_rank() {
    for error in shared_as(&Payload::Bytes(b"not a state".to_vec())) {
        assert!(matches!(error, Error::State(_)), "{error}");
    }
    for error in shared_as(&Payload::Nodes(Vec::new())) {
        assert!(
            matches!(&error, Error::Exchange(ExchangeError::Frame { rank: CULPRIT, .. })),
            "{error}"
        );
    }
}
