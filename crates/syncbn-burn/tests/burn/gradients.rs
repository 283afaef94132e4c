//! Gradients of all ranks: sums and means, and a loss that is no single number.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use syncbn_burn::{Error, average_gradients, sum_gradients};

use crate::common::{DEADLINE, devices, on_threads, ranks, values};

#[derive(Module, Debug)]
struct Slope {
    slope: Param<Tensor<1>>,
}

/// The sum over ranks and the mean of slope·x for x = 3 on rank 0, and −1 and 5 on rank 1.
#[test]
fn gradients_of_uneven_ranks_are_summed_and_averaged() {
    let devices = devices();
    let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device().autodiff();
        let slope = Tensor::<1>::from_data(TensorData::from([2.0f32]), &device);
        let model = Slope { slope: Param::from_tensor(slope) };
        let x = [vec![3.0f32], vec![-1.0, 5.0]][index].clone();
        let x = Tensor::<1>::from_data(TensorData::from(x.as_slice()), &device);
        [sum_gradients, average_gradients].map(|reduce| {
            let loss = (model.slope.val() * x.clone()).sum();
            let mut gradients = loss.backward();
            let loss = reduce(&model, &mut gradients, loss, rank.group()).unwrap();
            [values(loss)[0], values(model.slope.val().grad(&gradients).unwrap())[0]]
        })
    });
    assert_eq!(found, [[[14.0, 7.0], [7.0, 3.5]]; 2]);
}

#[test]
fn a_loss_of_several_elements_is_refused_and_the_others_are_told() {
    let devices = devices();
    let errors = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device().autodiff();
        let slope = Tensor::<1>::ones([1], &device);
        let model = Slope { slope: Param::from_tensor(slope) };
        let losses = model.slope.val() * Tensor::<1>::ones([2], &device);
        let loss = if index == 0 { losses } else { losses.sum() };
        let mut gradients = loss.clone().sum().backward();
        average_gradients(&model, &mut gradients, loss, rank.group()).unwrap_err()
    });
    assert!(matches!(errors[0], Error::Setting { found: 2.0, .. }), "{}", errors[0]);
    assert!(matches!(errors[1], Error::Layer(syncbn::Error::Exchange(_))), "{}", errors[1]);
    assert!(errors[1].to_string().contains("elements of the loss is 2"), "{}", errors[1]);
}
