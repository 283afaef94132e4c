//! A page that shows synchronized batch normalization over several WebGPU devices.
//!
//! [`photos`] normalizes a batch of photos that is cut over ranks, [`training`] trains a small
//! network whose ranks see different data. Both run natively as well, which gives the numbers that
//! the page is compared with. `page` is what JavaScript sees.

#[cfg(target_arch = "wasm32")]
mod page;
pub mod photos;
pub mod training;
