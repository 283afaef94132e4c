//! Forward and backward of one layer: on the first GPU, or on the host (CPU) where there is none.
//!
//! `cargo run --release --example hello`

use syncbn::{Backward, BatchNormConfig, Device, SyncBatchNorm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    pollster::block_on(async {
        let device = Device::all().await?.swap_remove(0);
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()])?;
        // (N, C) = (3, 2): channel 0 is 1, 2, 3, channel 1 is 10, 40, 10.
        let x = device.upload(&[3, 2], &[1.0f32, 10.0, 2.0, 40.0, 3.0, 10.0])?;
        let dy = device.upload(&[3, 2], &[1.0f32, 0.0, 0.0, 1.0, 0.0, 0.0])?;

        let forward = bn.forward_train(&x).await?;
        let y = forward.output.to_vec().await?;
        let gradients = bn.backward(&forward.saved, Backward::of(&x, &dy)).await?;
        let dx = gradients.input.to_vec().await?;
        println!("on {device}\ny  = {y:.4?}\ndx = {dx:.4?}");

        // y of channel 0 is ±√1.5 and 0, that of channel 1 is −√0.5, √2, −√0.5.
        let expected = [-1.5f32.sqrt(), -0.5f32.sqrt(), 0.0, 2f32.sqrt(), 1.5f32.sqrt()];
        approx::assert_abs_diff_eq!(y[..5], expected, epsilon = 1e-4);
        Ok(())
    })
}
