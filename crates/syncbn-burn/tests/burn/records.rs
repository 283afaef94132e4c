//! Records: from Burn's `BatchNorm` and back, within a model too, as values and as bytes.

use burn::module::Module;
use burn::nn::{BatchNorm, Linear, LinearConfig};
use burn::store::ModuleRecord;
use burn::tensor::Device;
use syncbn_burn::SyncBatchNorm;

use crate::common::{DEADLINE, Norm, Problem, burns, devices, ours, ranks, step, values};

#[derive(Module, Debug)]
struct Model<N: Norm> {
    linear: Linear,
    norms: Vec<N>,
}

fn model<N: Norm>(norm: impl Fn() -> N, device: &Device) -> Model<N> {
    Model { linear: LinearConfig::new(2, 2).init(device), norms: vec![norm(), norm()] }
}

fn all<N: Norm>(model: &Model<N>) -> Vec<Vec<f32>> {
    let mut found = vec![values(model.linear.weight.val())];
    for norm in &model.norms {
        found.extend(norm.affine().map(values));
        found.extend(norm.running());
    }
    found
}

#[test]
fn a_record_of_burn_s_layer_loads_into_ours_and_back() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let mut theirs = model(|| burns(&device), &device);
    let mut own = model(|| ours(&device), &device);
    // Parameters and running statistics away from their initial values.
    for (seed, (theirs, own)) in (50..).zip(theirs.norms.iter_mut().zip(&mut own.norms)) {
        let [first, second] = [Problem::random(&[4], 3, seed), Problem::random(&[4], 3, seed + 10)];
        *theirs = theirs.clone().set(&first.gamma, &first.beta);
        step(theirs, &first.ranks[0], &device);
        *own = own.clone().set(&second.gamma, &second.beta);
        step(own, &second.ranks[0], &device);
    }
    let of_theirs = all(&theirs);
    let of_own = all(&own);
    assert_ne!(of_theirs, of_own);
    // Into models of their own: Burn's clones share their running statistics.
    let loaded = model(|| ours(&device), &device).load_record(theirs.into_record());
    assert_eq!(all(&loaded), of_theirs);
    let bytes = own.into_record().into_bytes().unwrap();
    let loaded_back =
        model(|| burns(&device), &device).load_record(ModuleRecord::from_bytes(bytes).unwrap());
    assert_eq!(all(&loaded_back), of_own);

    // What was loaded trains and evaluates as what it came from.
    let problem = Problem::random(&[4], 3, 55);
    let fresh: Model<BatchNorm> =
        model(|| burns(&device), &device).load_record(loaded.clone().into_record());
    let found = step(&loaded.norms[0], &problem.ranks[0], &device);
    let expected = step(&fresh.norms[0], &problem.ranks[0], &device);
    found.assert_close(&expected.widen(), 16.0 + 12.0, "after loading");
}

#[test]
fn a_layer_shows_what_burn_s_shows() {
    let devices = devices();
    let (device, _) = &devices[0];
    let own: SyncBatchNorm = ours(device);
    let theirs: BatchNorm = burns(device);
    assert_eq!(own.to_string(), theirs.to_string().replace("BatchNorm", "SyncBatchNorm"));
    assert_eq!(own.num_params(), theirs.num_params());
}
