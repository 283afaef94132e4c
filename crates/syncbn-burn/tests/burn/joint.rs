//! Several ranks on one device, in one call.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::common::{
    Batch, DEADLINE, DEFINITION, Norm, Problem, Seen, alone, devices, difference, ranks, values,
};
use crate::on_device::{Cost, counted};

/// A step of all ranks, of which some do not reach the loss.
fn step(
    norm: &syncbn_burn::BatchNorm,
    problem: &Problem,
    reaches: &[bool],
    device: &Device,
) -> Vec<Seen<f32>> {
    let device = device.clone().autodiff();
    let tensor = |values: &[f32], batch: &Batch| {
        Tensor::<3>::from_data(TensorData::new(values.to_vec(), batch.dims), &device)
    };
    // What comes before the layer has gradients too.
    let leaves: Vec<_> =
        problem.ranks.iter().map(|batch| tensor(&batch.x, batch).require_grad()).collect();
    let x = leaves.iter().map(|x| x.clone() * 2.0 - x.clone()).collect();
    let y = norm.forward_all(x);
    let losses = y.iter().zip(&problem.ranks).zip(reaches).filter(|(_, reaches)| **reaches);
    let losses = losses.map(|((y, batch), _)| (y.clone() * tensor(&batch.g, batch)).sum());
    let gradients = losses.reduce(|sum, loss| sum + loss).unwrap().backward();
    let [gamma, beta] = norm.affine().map(|parameter| values(parameter.grad(&gradients).unwrap()));
    let of = |(leaf, y): (&Tensor<3>, &Tensor<3>)| Seen {
        y: values(y.clone()),
        grad_x: values(leaf.grad(&gradients).unwrap()),
        grad_gamma: gamma.clone(),
        grad_beta: beta.clone(),
        running: norm.running(),
    };
    leaves.iter().zip(&y).map(of).collect()
}

/// What the definition says, with the gradients of the parameters summed over ranks.
fn expected(problem: &Problem) -> Vec<Seen<f64>> {
    summed(problem.expected())
}

/// The same with the gradients of the parameters that a call on all ranks has.
pub fn summed(mut expected: Vec<Seen<f64>>) -> Vec<Seen<f64>> {
    let sum = |of: fn(&Seen<f64>) -> &Vec<f64>| -> Vec<f64> {
        let channels = 0..of(&expected[0]).len();
        channels.map(|channel| expected.iter().map(|rank| of(rank)[channel]).sum()).collect()
    };
    let gamma = sum(|rank| &rank.grad_gamma);
    let beta = sum(|rank| &rank.grad_beta);
    for rank in &mut expected {
        (rank.grad_gamma, rank.grad_beta) = (gamma.clone(), beta.clone());
    }
    expected
}

#[test]
fn ranks_of_one_device_have_the_statistics_of_all() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    // More than one link holds, and sizes that differ.
    for batches in [&[4][..], &[3, 2], &[2, 1, 4, 1, 3, 2, 1]] {
        let problem = Problem::random(batches, 5, 140);
        let norm = alone(&device).set(&problem.gamma, &problem.beta);
        let found = step(&norm, &problem, &vec![true; batches.len()], &device);
        for (index, (found, expected)) in found.iter().zip(expected(&problem)).enumerate() {
            found.assert_close(&expected, DEFINITION, &format!("rank {index} of {batches:?}"));
        }
    }
}

#[test]
fn an_output_that_does_not_reach_the_loss_has_no_part_in_its_gradient() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let mut problem = Problem::random(&[3, 2, 2], 4, 141);
    let norm = alone(&rank.device()).set(&problem.gamma, &problem.beta);
    let found = step(&norm, &problem, &[true, false, true], &rank.device());
    problem.ranks[1].g.fill(0.0);
    let expected = expected(&problem);
    for (found, expected) in found.iter().zip(&expected) {
        found.assert_close(expected, DEFINITION, "a loss of two outputs of three");
    }
    // By way of the statistics its x has a gradient.
    assert!(found[1].grad_x.iter().any(|value| value.abs() > 1e-3));
}

#[test]
fn a_call_on_all_ranks_is_one_submission_and_reads_nothing_back() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let norm = alone(&device);
    let problem = Problem::random(&[4, 2], 7, 142);
    let mut costs = [Cost::default(); 2];
    // The first steps compile.
    for _ in 0..3 {
        let tensor = |batch: &Batch| {
            let data = TensorData::new(batch.x.clone(), batch.dims);
            Tensor::<3>::from_data(data, &device.clone().autodiff()).require_grad()
        };
        let x = problem.ranks.iter().map(tensor).collect();
        // Running statistics that an earlier step has left are divided by the threads that did.
        drop(norm.valid());
        let mut y = Vec::new();
        costs[0] = counted(&device, || y = norm.forward_all(x));
        let loss = y.into_iter().map(Tensor::sum).reduce(|sum, y| sum + y).unwrap();
        let mut gradients = None;
        costs[1] = counted(&device, || gradients = Some(loss.backward()));
        assert!(gradients.is_some());
    }
    println!("forward and backward: {costs:?}");
    assert_eq!(costs.map(|cost| cost.read), [0; 2]);
    let [forward, backward] = costs.map(|cost| cost.submitted);
    // What Burn has queued before goes first.
    assert!(forward == 1 && backward <= 2, "{costs:?}");
}

#[test]
fn evaluation_of_several_tensors_is_that_of_each() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let norm = alone(&device).valid();
    let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
    let y = norm.forward_all(vec![x.clone(), x.clone() * 2.0]);
    for (y, x) in y.into_iter().zip([x.clone(), x * 2.0]) {
        let expected: Vec<f64> = values(norm.forward(x)).into_iter().map(f64::from).collect();
        assert_eq!(difference(&values(y), &expected), 0.0);
    }
    assert!(norm.forward_all(Vec::<Tensor<2>>::new()).is_empty());
    // A device has one call.
    let other = Tensor::<2>::ones([2, 3], &devices[1].0);
    let error = norm.try_forward_all(vec![Tensor::ones([2, 3], &device), other]).unwrap_err();
    assert!(error.to_string().contains("a call takes tensors of one"), "{error}");
}
