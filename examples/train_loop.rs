//! A training loop with a checkpoint, which PyTorch reads too. Resumed, it has the losses of one
//! that was never stopped. `cargo run --release --example train_loop` runs it on the host (CPU).
use std::{error::Error, ops::Range, path::Path};

use syncbn::state::{Checkpoint, LoadOptions};
use syncbn::{Backward, BatchNormConfig, Device, SyncBatchNorm, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join("syncbn_train_loop.safetensors");
    let straight = pollster::block_on(train(0..10, &path))?;
    let stopped = pollster::block_on(train(0..5, &path))?;
    let resumed = pollster::block_on(train(5..10, &path))?;
    println!("losses  {straight:.4?}\nstopped {stopped:.4?}\nresumed {resumed:.4?}");
    assert!([stopped, resumed].concat() == straight && straight[9] < 0.5 * straight[0]);
    Ok(())
}

/// The losses of some steps. All but step 0 begins with the file; after the last it is written.
async fn train(steps: Range<u32>, path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let config = BatchNormConfig::torch(3);
    let mut layers = Vec::new();
    for name in ["bn1", "bn2"] {
        let mut bn = SyncBatchNorm::new(config.clone(), [Device::host()])?.named(name);
        if steps.start > 0 {
            bn.load_state(&Checkpoint::open(path)?.layer(name)?, &LoadOptions::default())?;
        }
        layers.push(bn);
    }
    let mut losses = Vec::new();
    for step in steps {
        // To be learned is y = 2x + 1; the loss is Σ (y − 2x − 1)² / 2.
        let values: Vec<f32> = (0..48).map(|i| (1.7 * i as f32 + step as f32).sin()).collect();
        let x = Device::host().upload(&[16, 3], &values)?;
        let hidden = layers[0].forward_train(&x).await?;
        let y = layers[1].forward_train(&hidden.output).await?;
        let mut errors = y.output.to_vec().await?;
        errors.iter_mut().zip(&values).for_each(|(y, x)| *y -= 2.0 * x + 1.0);
        losses.push(errors.iter().map(|error| error * error / 2.0).sum());
        let dy = Device::host().upload(&[16, 3], &errors)?;
        let of_y = layers[1].backward(&y.saved, Backward::of(&hidden.output, &dy)).await?;
        let of_x = layers[0].backward(&hidden.saved, Backward::of(&x, &of_y.input)).await?;
        for (bn, gradients) in layers.iter_mut().zip([of_x, of_y]) {
            let mut state = bn.state().await?;
            descend(&mut state.weight, &gradients.weight);
            descend(&mut state.bias, &gradients.bias);
            bn.load_state(&state, &LoadOptions::default())?;
        }
    }
    let states = [("bn1", layers[0].state().await?), ("bn2", layers[1].state().await?)];
    Checkpoint::update(path, states)?; // and leaves other tensors of the file as they are
    Ok(losses)
}

fn descend(parameter: &mut Option<Vec<f32>>, gradient: &Option<Tensor>) {
    let gradient = gradient.iter().filter_map(|tensor| tensor.as_slice::<f32>()).flatten();
    for (value, gradient) in parameter.iter_mut().flatten().zip(gradient) {
        *value -= 0.01 * gradient;
    }
}
