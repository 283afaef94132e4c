//! Taking a layer apart into local ones and putting layers together: parameters are shared, not
//! copied.

use syncbn::{
    Device, Error,
    error::{ArgumentError, ConfigError},
};
use wgpu::BufferUsages;

use super::*;

/// What one rank alone gives in evaluation for its share of the inputs of `behaviour`.
fn evaluated(bn: &SyncBatchNorm, batches: &[Batch]) -> Vec<Vec<u32>> {
    bits(&read(&block_on(bn.forward_eval(&upload(bn, batches))).unwrap().output))
}

fn batches() -> Vec<Batch> {
    let mut random = Random::new(40);
    [[2, CHANNELS, 6], [3, CHANNELS, 1]]
        .iter()
        .map(|dims| Batch::random(dims, &mut random))
        .collect()
}

#[test]
fn local_layers_evaluate_as_the_group_and_become_the_group_again() {
    for kind in Kind::ALL {
        let mut bn = trained(torch(), kind, 41);
        let state = state_of(&bn);
        let acts = behaviour(&mut bn);
        let devices = bn.devices().to_vec();
        let y = evaluated(&bn, &batches());
        let locals = bn.into_local();
        assert_eq!(locals.len(), 2);
        for (rank, local) in locals.iter().enumerate() {
            assert_eq!((local.devices().len(), &local.devices()[0]), (1, &devices[rank]));
            assert_eq!(local.config(), &torch());
            assert_eq!(state_of(local), state, "{kind:?}");
            assert_eq!(evaluated(local, &batches()[rank..=rank]), y[rank..=rank], "{kind:?}");
        }
        let mut again = SyncBatchNorm::synchronized(locals).unwrap();
        assert_eq!(again.devices(), devices);
        assert_eq!(state_of(&again), state);
        assert_eq!(behaviour(&mut again), acts, "{kind:?}");
    }
}

#[test]
fn a_local_layer_normalizes_with_its_own_batch_and_the_group_with_all() {
    for kind in Kind::ALL {
        let batches = batches();
        let locals = trained(torch(), kind, 42).into_local();
        let parameters = {
            let StateDict { weight, bias, .. } = state_of(&locals[0]);
            Parameters { weight: weight.unwrap(), bias: bias.unwrap() }
        };
        for (local, batch) in locals.iter().zip(&batches) {
            let one = std::slice::from_ref(batch);
            let y = read(&block_on(local.forward_train(&upload(local, one))).unwrap().output);
            compare(one, &y, &definition(one, Some(&parameters), 1e-5).outputs, TOLERANCE_ULP)
                .unwrap();
        }
        // Their statistics went different ways; the group's are the first's.
        let running: Vec<_> = locals.iter().map(|local| local.running_stats().unwrap()).collect();
        assert_ne!(running[0], running[1]);
        let bn = SyncBatchNorm::synchronized(locals).unwrap();
        assert_eq!(bn.running_stats(), Some(running[0].clone()));
        let y = read(&block_on(bn.forward_train(&upload(&bn, &batches))).unwrap().output);
        compare(
            &batches,
            &y,
            &definition(&batches, Some(&parameters), 1e-5).outputs,
            TOLERANCE_ULP,
        )
        .unwrap();
    }
}

#[test]
fn layers_of_several_ranks_are_put_together_in_order() {
    let config = torch().with_affine(false);
    let layer =
        |kind: Kind, ranks| SyncBatchNorm::new(config.clone(), kind.devices(ranks)).unwrap();
    let parts = vec![layer(Kind::Gpu, 2), layer(Kind::Host, 1), layer(Kind::Mixed, 2)];
    let devices: Vec<Device> = parts.iter().flat_map(|part| part.devices().to_vec()).collect();
    let synchronized = SyncBatchNorm::synchronized(parts).unwrap();
    assert_eq!((synchronized.devices().len(), synchronized.devices()), (5, &devices[..]));
}

#[test]
fn a_parameter_of_the_caller_stays_the_caller_s_through_both() {
    let (device, queue) = own_device(&adapter(), |_| {});
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1024,
        usage,
        mapped_at_creation: false,
    });
    let handle = Device::from_wgpu(device, queue.clone()).unwrap();
    let slice = |slot: u64| handle.wrap(buffer.clone(), 256 * slot, &[CHANNELS]).unwrap();
    let write = |value: f32| {
        for slot in 0..2 {
            queue.write_buffer(&buffer, 256 * slot, bytemuck::cast_slice(&[value; CHANNELS]));
        }
    };
    let mut bn = SyncBatchNorm::new(torch(), [handle.clone(), handle.clone()]).unwrap();
    bn.set_parameter_tensors([slice(0), slice(1)], None).unwrap();
    let scaled = |layer: &SyncBatchNorm, batches: &[Batch], weight: f32| {
        let y = evaluated(layer, batches);
        let mut fresh = SyncBatchNorm::new(torch(), layer.devices().to_vec()).unwrap();
        fresh.set_parameters(Some(&[weight; CHANNELS]), None).unwrap();
        assert_eq!(y, evaluated(&fresh, batches), "weight {weight}");
    };
    write(2.0);
    scaled(&bn, &batches(), 2.0);
    let locals = bn.into_local();
    write(-3.0);
    for (rank, local) in locals.iter().enumerate() {
        scaled(local, &batches()[rank..=rank], -3.0);
    }
    let bn = SyncBatchNorm::synchronized(locals).unwrap();
    write(0.5);
    scaled(&bn, &batches(), 0.5);
}

#[test]
fn layers_of_different_configuration_or_none_are_refused() {
    assert_eq!(
        SyncBatchNorm::synchronized(vec![]).unwrap_err(),
        Error::Config(ConfigError::NoDevices)
    );
    let layer = |config| SyncBatchNorm::new(config, [Device::host()]).unwrap();
    let layers = vec![layer(torch()), layer(torch()), layer(torch().with_eps(1e-3))];
    let error = SyncBatchNorm::synchronized(layers).unwrap_err();
    let [name, found, expected] = ["eps", "1e-3", "1e-5"].map(str::to_owned);
    let argument = "layers";
    assert_eq!(
        error,
        Error::Argument(ArgumentError::Config { argument, index: 2, name, found, expected })
    );
    assert_eq!(error.to_string(), "eps of layers[2] is 1e-3, expected 1e-5, as of the first");
}
