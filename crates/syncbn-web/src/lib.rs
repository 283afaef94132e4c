//! A page that shows synchronized batch normalization over several WebGPU devices.
//!
//! [`photos`] normalizes a batch of photos that is split over ranks. [`training`] trains a small
//! network with different data on each rank. Both run natively too, and the page is compared with
//! those results. `page` is the interface for JavaScript.

#[cfg(target_arch = "wasm32")]
mod page;
pub mod photos;
pub mod training;
