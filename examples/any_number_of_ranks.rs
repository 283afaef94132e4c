//! Training whose loss has the same bits over any number of ranks.
//!
//! A small dense network, y = W₂·relu(bn(W₁·x)) + b, learns a function of eight numbers. Each
//! step's 96 samples are spread over 1, 2, 3, 4 and 8 ranks, which are threads here and might be
//! machines. Three things make the bits the same:
//!
//! 1. The layer is `reproducible`: statistics and gradient sums do not depend on who has which
//!    sample, and the gradients of weight and bias are those of the group (`GroupSum`).
//! 2. The work on one sample alone (products with W₁ and W₂, their gradients) has an order of
//!    its own, whichever rank computes it. A matrix product that picks its order by the size of
//!    the batch would break this.
//! 3. Gradients of other parameters, and the loss, are added up exactly: sample by sample into
//!    `ExactSums`, then over ranks.
//!
//! The same run with ordinary sums diverges, which is printed too.
//!
//! ```sh
//! cargo run --release --example any_number_of_ranks
//! ```

use std::thread;

use pollster::block_on;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use syncbn::collective::LocalGroup;
use syncbn::config::{Activation, AffineGradient};
use syncbn::stats::ExactSums;
use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

const INPUTS: usize = 8;
const HIDDEN: usize = 16;
const SAMPLES: usize = 96;
const STEPS: usize = 100;
const RATE: f32 = 0.2;

/// W₁ (HIDDEN, INPUTS), then W₂ (HIDDEN) and b; the loss is summed beside their gradients.
const SECOND: usize = HIDDEN * INPUTS;
const PARAMETERS: usize = SECOND + HIDDEN + 1;

/// In −1 … 1.
fn number(random: &mut ChaCha8Rng) -> f32 {
    random.next_u32() as f32 / (1u32 << 31) as f32 - 1.0
}

/// Inputs of a sample, and the target of its output.
fn sample(step: usize, sample: usize) -> ([f32; INPUTS], f32) {
    let mut random = ChaCha8Rng::seed_from_u64((step * SAMPLES + sample) as u64);
    let inputs = std::array::from_fn(|_| number(&mut random));
    (inputs, inputs[0] * inputs[1] + (3.0 * inputs[2]).sin() - inputs[3])
}

/// Gradients and loss of all ranks: exactly, or in the order that ranks and samples have.
enum Total {
    Exact(ExactSums),
    Ordered(Vec<f32>),
}

impl Total {
    fn new(reproducible: bool) -> Self {
        let len = PARAMETERS + 1;
        if reproducible { Self::Exact(ExactSums::new(len)) } else { Self::Ordered(vec![0.0; len]) }
    }

    fn add(&mut self, of_sample: &[f32]) -> Result<(), Error> {
        match self {
            Self::Exact(sums) => sums.add(of_sample),
            Self::Ordered(sums) => {
                sums.iter_mut().zip(of_sample).for_each(|(sum, value)| *sum += value);
                Ok(())
            }
        }
    }

    async fn of_all(self, group: &ProcessGroup) -> Result<Vec<f32>, Error> {
        match self {
            Self::Exact(mut sums) => {
                group.all_reduce_exact(&mut sums).await?;
                Ok(sums.to_f32())
            }
            Self::Ordered(mut sums) => {
                group.all_reduce_sum([&mut sums]).await?;
                Ok(sums)
            }
        }
    }
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// The loss of every step on one rank of a group.
async fn train(group: ProcessGroup, reproducible: bool) -> Result<Vec<f32>, Error> {
    let host = Device::host();
    let config = BatchNormConfig::torch(HIDDEN)
        .with_activation(Activation::Relu)
        .with_affine_gradient(AffineGradient::GroupSum)
        .with_reproducible(reproducible);
    let mut bn = SyncBatchNorm::new(config, [host.clone()])?.in_group(&group)?;
    let mut affine = [vec![1.0f32; HIDDEN], vec![0.0f32; HIDDEN]];
    let mut random = ChaCha8Rng::seed_from_u64(u64::MAX);
    let mut parameters: Vec<f32> = (0..PARAMETERS).map(|_| 0.5 * number(&mut random)).collect();
    // Contiguous here; any other way to deal samples out gives the same bits.
    let own: Vec<usize> = (0..SAMPLES)
        .filter(|sample| sample * group.world_size() / SAMPLES == group.rank())
        .collect();
    let mut losses = Vec::with_capacity(STEPS);
    for step in 0..STEPS {
        let batch: Vec<_> = own.iter().map(|&at| sample(step, at)).collect();
        let hidden: Vec<f32> = batch
            .iter()
            .flat_map(|(inputs, _)| {
                parameters[..SECOND].chunks(INPUTS).map(move |row| product(row, inputs))
            })
            .collect();
        let x = host.upload(&[batch.len(), HIDDEN], &hidden)?;
        let forward = bn.forward_train(&x).await?;
        let active = forward.output.to_vec().await?;

        let mut total = Total::new(reproducible);
        let mut of_samples = Vec::with_capacity(batch.len());
        let mut grad_output = Vec::with_capacity(hidden.len());
        for ((_, expected), active) in batch.iter().zip(active.chunks(HIDDEN)) {
            let found =
                product(&parameters[SECOND..SECOND + HIDDEN], active) + parameters[PARAMETERS - 1];
            let error = found - expected;
            let mut of_sample = vec![0.0; PARAMETERS + 1];
            let of_second = &mut of_sample[SECOND..SECOND + HIDDEN];
            of_second.iter_mut().zip(active).for_each(|(to, active)| *to = error * active);
            of_sample[PARAMETERS - 1] = error;
            of_sample[PARAMETERS] = 0.5 * error * error;
            grad_output.extend(parameters[SECOND..SECOND + HIDDEN].iter().map(|w| error * w));
            of_samples.push(of_sample);
        }
        let grad_output = host.upload(&[batch.len(), HIDDEN], &grad_output)?;
        let gradients = bn.backward(&forward.saved, Backward::of(&x, &grad_output)).await?;
        let grad_hidden = gradients.input.to_vec().await?;
        for (((inputs, _), mut of_sample), grad) in
            batch.iter().zip(of_samples).zip(grad_hidden.chunks(HIDDEN))
        {
            for (row, grad) in of_sample[..SECOND].chunks_mut(INPUTS).zip(grad) {
                row.iter_mut().zip(inputs).for_each(|(to, input)| *to = grad * input);
            }
            total.add(&of_sample)?;
        }

        let total = total.of_all(&group).await?;
        let rate = RATE / SAMPLES as f32;
        parameters.iter_mut().zip(&total).for_each(|(to, gradient)| *to -= rate * gradient);
        for (to, gradient) in affine.iter_mut().zip([gradients.weight, gradients.bias]) {
            let Some(gradient) = gradient else { continue };
            let gradient = gradient.to_vec().await?;
            to.iter_mut().zip(&gradient).for_each(|(to, gradient)| *to -= rate * gradient);
        }
        bn.set_parameters(Some(&affine[0]), Some(&affine[1]))?;
        losses.push(total[PARAMETERS] / SAMPLES as f32);
    }
    Ok(losses)
}

/// The losses of a run over so many ranks, the same on each.
fn run(ranks: usize, reproducible: bool) -> Result<Vec<f32>, Error> {
    let threads: Vec<_> = LocalGroup::ranks(ranks)
        .into_iter()
        .map(|rank| thread::spawn(move || block_on(train(ProcessGroup::new(rank), reproducible))))
        .collect();
    let mut losses = Vec::new();
    for thread in threads {
        losses = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(losses)
}

fn main() -> Result<(), Error> {
    let mut last = Vec::new();
    for reproducible in [true, false] {
        println!("reproducible = {reproducible}: loss of the first step and after {STEPS} steps");
        let mut bits = Vec::new();
        for ranks in [1, 2, 3, 4, 8] {
            let losses = run(ranks, reproducible)?;
            let [first, end] = [losses[0], losses[STEPS - 1]];
            let [first_bits, end_bits] = [first, end].map(f32::to_bits);
            let found: Vec<u32> = losses.iter().map(|loss| loss.to_bits()).collect();
            let of_one = bits.first().unwrap_or(&found);
            let others = found.iter().zip(of_one).filter(|(found, of_one)| found != of_one).count();
            println!(
                "  {ranks} rank(s): {first_bits:#010x} {end_bits:#010x}  ({first:.6}, {end:.6}), \
                 other bits than on one rank in {others} steps"
            );
            bits.push(found);
            assert!(end < 0.5 * first, "the network has learnt nothing");
        }
        last.push(bits);
    }
    assert!(last[0].iter().all(|bits| *bits == last[0][0]), "every step's loss has the same bits");
    assert!(last[1].iter().skip(1).all(|bits| *bits != last[1][0]), "ordinary sums have an order");
    println!("The same bits in every step on 1, 2, 3, 4 and 8 ranks, and other ones without.");
    Ok(())
}
