//! Conversion of layers and of models, and what Burn does with a module: forks, moves, checkpoints,
//! several models.

use burn::module::{Module, ModuleDisplay};
use burn::nn::{BatchNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use syncbn::ProcessGroup;
use syncbn_burn::{Activation, BatchNormConfig, Convert, SyncBatchNorm, convertible};

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, alone, burns, devices, difference, on_threads,
    ours, ranks, step, values,
};

#[derive(Module, Debug)]
struct Model<N: Module + ModuleDisplay> {
    linear: Linear,
    norms: Vec<N>,
    last: Option<N>,
}

/// What the models are generic over.
trait Layer: Module + ModuleDisplay {}
impl<N: Module + ModuleDisplay> Layer for N {}

convertible!(Model<Layer> { norms, last } keeps { linear });

fn model(device: &Device) -> Model<BatchNorm> {
    let problem = Problem::random(&[4], 3, 110);
    let norm = || burns(device).set(&problem.gamma, &problem.beta);
    let model = Model {
        linear: LinearConfig::new(2, 2).init(device),
        norms: vec![norm(), norm()],
        last: Some(norm()),
    };
    step(&model.norms[0], &problem.ranks[0], device);
    model
}

fn ids<M: Module>(model: &M) -> Vec<String> {
    struct Ids(Vec<String>);
    impl burn::module::ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            self.0.push(param.id.to_string());
        }
    }
    let mut ids = Ids(Vec::new());
    model.visit(&mut ids);
    ids.0
}

#[test]
fn a_model_converts_to_every_kind_of_layer_and_back_with_its_ids_and_values() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let burns = model(&device);
    let running = burns.norms[0].running();
    assert_ne!(running[0], [0.0; CHANNELS]);
    let before = ids(&burns);
    let synchronized: Model<SyncBatchNorm> = burns.convert().unwrap();
    assert_eq!(ids(&synchronized), before);
    let alone: Model<syncbn_burn::BatchNorm> = synchronized.convert().unwrap();
    let back: Model<BatchNorm> = alone.clone().convert().unwrap();
    assert_eq!(ids(&back), before);
    assert_eq!(back.norms[0].running(), running);
    // The converted one trains: an optimizer's states, which are kept by id, still fit.
    let batch = &Problem::random(&[4], 5, 111).ranks[0];
    let fresh: Model<BatchNorm> = model(&device).load_record(back.clone().into_record());
    let found = step(&alone.norms[1], batch, &device);
    found.assert_close(&step(&fresh.norms[1], batch, &device).widen(), 36.0, "converted");
    let kept = BatchNormConfig::new(CHANNELS)
        .with_name(Some("stem".to_owned()))
        .with_activation(Activation::Relu)
        .init(&device);
    let kept: SyncBatchNorm = kept.convert().unwrap();
    assert_eq!((kept.name(), kept.activation()), ("stem", Activation::Relu));
}

#[test]
fn a_layer_whose_settings_left_their_range_is_refused() {
    let devices = devices();
    let mut norm = burns(&devices[0].0);
    norm.momentum = 2.0;
    let refused = SyncBatchNorm::from_burn(norm).unwrap_err();
    assert!(refused.to_string().contains("momentum is 2"), "{refused}");
}

#[test]
fn training_evaluation_and_freezing_are_those_of_burn_s_layer() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let batch = &Problem::random(&[4], 5, 112).ranks[0];
    let x = |device: &Device| {
        Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), device)
    };
    fn state<N: Norm>(norm: N, x: impl Fn(&Device) -> Tensor<3>, device: &Device) -> [Vec<f32>; 4] {
        let plain = device.clone().without_autodiff();
        let first = values(norm.apply(x(device)));
        let evaluated = values(norm.valid().apply(x(&plain)));
        // Thawed after a rest, without a gradient, and a copy.
        let thawed = norm.valid().freeze().unfreeze().train();
        let again = values(thawed.clone().no_grad().apply(x(device)));
        let [mean, _] = thawed.running();
        [first, evaluated, again, mean]
    }
    let theirs = state(burns(&device), x, &device);
    for found in [state(ours(&device), x, &device), state(alone(&device), x, &device)] {
        for (index, (found, expected)) in found.iter().zip(&theirs).enumerate() {
            let expected: Vec<f64> = expected.iter().copied().map(f64::from).collect();
            assert!(difference(found, &expected) <= DEFINITION + 20.0, "{index}");
        }
    }
}

#[test]
fn gradient_checkpointing_gives_the_same_gradients_and_counts_a_batch_once() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let batch = &Problem::random(&[4], 5, 113).ranks[0];
    let run = |device: Device| {
        let norm = BatchNormConfig::new(CHANNELS).init(&device);
        let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device)
            .require_grad();
        let g = Tensor::<3>::from_data(TensorData::new(batch.g.clone(), batch.dims), &device);
        // The input and what follows are memory-bound operations, which checkpointing computes
        // again.
        let y = norm.forward(x.clone().mul_scalar(2.0).exp()).mul_scalar(0.5).exp();
        let gradients = (y * g).sum().backward();
        (values(x.grad(&gradients).unwrap()), norm.running())
    };
    let device = rank.device().autodiff();
    let plain = run(device.clone());
    assert_eq!(run(device.gradient_checkpointing()), plain);
}

#[test]
fn a_module_that_moves_to_another_rank_s_device_normalizes_there() {
    let devices = devices();
    let groups = || ProcessGroup::single();
    let both: Vec<_> = devices
        .iter()
        .map(|(device, setup)| syncbn_burn::Rank::of_device(device, setup, groups()).unwrap())
        .collect();
    let problem = Problem::random(&[4], 5, 114);
    let norm = ours(&both[0].device()).set(&problem.gamma, &problem.beta);
    let expected = step(&norm, &problem.ranks[0], &both[0].device());
    let moved = ours(&both[0].device()).set(&problem.gamma, &problem.beta);
    let moved = moved.fork(&both[1].device().autodiff());
    assert_eq!(step(&moved, &problem.ranks[0], &both[1].device()), expected);
    // And one that only evaluates, by Burn's other way to move it.
    let x = |device: &Device| {
        let batch = &problem.ranks[0];
        Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), device)
    };
    let expected = values(norm.valid().apply(x(&both[0].device())));
    let moved = norm.valid().to_device(&both[1].device());
    assert_eq!(values(moved.apply(x(&both[1].device()))), expected);
}

#[test]
fn two_models_of_one_process_train_in_turn() {
    let devices = devices();
    let problems = [115, 116].map(|seed| Problem::random(&[2, 3], 4, seed));
    let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device();
        let models = problems.each_ref().map(|p| ours(&device).set(&p.gamma, &p.beta));
        let step = |which: usize| step(&models[which], &problems[which].ranks[index], &device);
        [step(0), step(1)]
    });
    for (rank, found) in found.iter().enumerate() {
        for (found, problem) in found.iter().zip(&problems) {
            found.assert_close(&problem.expected()[rank], DEFINITION, "of two models");
        }
    }
}

#[test]
fn a_rank_without_a_batch_goes_on_until_all_have_ended() {
    use std::time::{Duration, Instant};
    let devices = devices();
    // Three batches and one: with the deadline of a minute, nobody is late.
    let problems: Vec<Problem> = (0..3)
        .map(|step| Problem::random(&[2, if step == 0 { 2 } else { 0 }], 4, 120 + step))
        .collect();
    let started = Instant::now();
    let found = on_threads(ranks(&devices[..], Duration::from_secs(60)), |index, rank| {
        let device = rank.device().autodiff();
        let norm = ours(&device);
        let mut own = problems.iter().map(|p| &p.ranks[index]).filter(|batch| batch.dims[0] > 0);
        let mut seen = Vec::new();
        loop {
            let batch = own.next();
            if !rank.any_has_batch(batch.is_some()).unwrap() {
                break;
            }
            let x = match batch {
                Some(batch) => {
                    Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device)
                }
                None => Tensor::<3>::empty([0, CHANNELS, 4], &device),
            };
            let y = norm.forward(x.require_grad());
            y.clone().powi_scalar(2).sum().backward();
            seen.push(y.dims()[0]);
        }
        (seen, norm.running())
    });
    assert_eq!((&found[0].0, &found[1].0), (&vec![2, 2, 2], &vec![2, 0, 0]));
    assert_eq!(found[0].1, found[1].1);
    assert!(started.elapsed() < Duration::from_secs(40), "nobody waited for the deadline");
}
