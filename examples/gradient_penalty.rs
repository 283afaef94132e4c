//! A critic whose loss contains the gradient with respect to its input, as in a gradient penalty.
//! Over three uneven ranks it trains as on one device: second derivatives are synchronized too.
//! `cargo run --release --example gradient_penalty` runs it on the host (CPU).
use syncbn::config::{Activation, AffineGradient};
use syncbn::{Backward, BatchNormConfig, Device, DoubleBackward, Error, SyncBatchNorm, Tensor};

fn main() -> Result<(), Error> {
    let one = pollster::block_on(train(&[24]))?;
    let three = pollster::block_on(train(&[3, 8, 13]))?;
    println!("one device  {one:.5?}\nthree ranks {three:.5?}");
    approx::assert_relative_eq!(one[..], three[..], max_relative = 1e-4);
    assert!(three[11] < 0.5 * three[0]);
    Ok(())
}

/// The losses of some steps, with so many samples on each rank.
async fn train(ranks: &[usize]) -> Result<Vec<f32>, Error> {
    let config = BatchNormConfig::torch(3).with_affine_gradient(AffineGradient::GroupSum);
    let config = config.with_activation(Activation::LeakyRelu(0.2));
    let mut bn = SyncBatchNorm::new(config, ranks.iter().map(|_| Device::host()))?;
    let mut weight = vec![1.0, 1.0, 1.0];
    let mut a = vec![0.9, -0.6, 0.4];
    let upload = |values: &[f32]| -> Result<Vec<Tensor>, Error> {
        let start = |rank: usize| 3 * ranks[..rank].iter().sum::<usize>();
        let values = |rank: usize| &values[start(rank)..start(rank + 1)];
        let of_rank = |rank: usize| Device::host().upload(&[ranks[rank], 3], values(rank));
        (0..ranks.len()).map(of_rank).collect()
    };
    let every = |value: &dyn Fn(usize) -> f32| upload(&(0..72).map(value).collect::<Vec<f32>>());
    let values = |tensors: &[Tensor]| -> Vec<f32> {
        tensors.iter().flat_map(|of| of.as_slice::<f32>()).flatten().copied().collect()
    };
    let x = every(&|i| (1.7 * i as f32).sin() + 0.3 * (i % 3) as f32)?;
    let mut losses = Vec::new();
    for _ in 0..12 {
        // The critic: D = Σ a·y over the channels of a sample. Its slope: dΣD/dx.
        bn.set_parameters(Some(&weight), None)?;
        let forward = bn.forward_train(&x).await?;
        let saved = forward.saved;
        let y = values(&forward.output);
        let dy = every(&|i| a[i % 3])?;
        let slope = bn.backward(&saved, Backward::of(&x, &dy)).await?.input;
        // The loss: Σ (D − 1)²/2 + Σ slope²/2.
        let d = y.chunks(3).map(|y| y.iter().zip(&a).map(|(y, a)| y * a).sum::<f32>());
        let errors: Vec<f32> = d.map(|d| d - 1.0).collect();
        losses.push(errors.iter().chain(&values(&slope)).map(|of| of * of / 2.0).sum());
        let de = every(&|i| errors[i / 3] * a[i % 3])?;
        let first = bn.backward(&saved, Backward::of(&x, &de)).await?;
        let request = DoubleBackward::of(&x, &dy).input_cotangent(&slope);
        let second = bn.double_backward(&saved, request).await?;
        let of_dy = values(&second.grad_output);
        (0..72).for_each(|i| a[i % 3] -= 0.01 * (errors[i / 3] * y[i] + of_dy[i]));
        for gradient in [first.weight, second.weight].iter().flatten() {
            let gradient = values(&gradient[..1]);
            weight.iter_mut().zip(gradient).for_each(|(to, of)| *to -= 0.01 * of);
        }
    }
    Ok(losses)
}
