//! The interface for JavaScript. Every function that waits for a device is a promise.

use std::cell::RefCell;
use std::rc::Rc;

use futures::lock::Mutex;
use serde::Serialize;
use syncbn::wgpu::{Instance, InstanceDescriptor, PowerPreference, RequestAdapterOptions};
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Forward, Layout, Tensor};
use wasm_bindgen::prelude::*;

use crate::photos::{self, Picture, Statistics, Times};
use crate::training::{Training, Way};

/// Panics go to the console, where a page's errors are looked for.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The ranks of the page, and its photos.
#[wasm_bindgen]
pub struct Session {
    devices: Vec<Device>,
    picture: RefCell<Option<Rc<Picture>>>,
}

#[wasm_bindgen]
impl Session {
    /// Opens `ranks` ranks: WebGPU devices, or the host if `gpu` is false. A browser gives one
    /// device for each requested adapter, so every rank requests a new one, in turn the fast GPU
    /// and the one that saves power. If all ranks get the same adapter, they are virtual devices on
    /// it.
    pub async fn open(ranks: usize, gpu: bool) -> Result<Session, JsError> {
        let mut devices = Vec::with_capacity(ranks);
        for rank in 0..ranks {
            devices.push(if gpu { open_gpu(PREFERENCES[rank % 2]).await? } else { Device::host() });
        }
        Ok(Self { devices, picture: RefCell::new(None) })
    }

    /// The browser's device of a rank, a `GPUDevice`, which knows its adapter and its limits. None
    /// on the host.
    pub fn device(&self, rank: usize) -> Option<JsValue> {
        let (device, _) = self.devices.get(rank)?.wgpu()?;
        device.as_webgpu().map(|device| device.clone().into())
    }

    /// Takes photos of one width, one below the other, as a canvas gives their pixels.
    pub fn set_photos(&self, rgba: &[u8], width: usize) -> Result<(), JsError> {
        let picture = Picture::from_rgba(rgba, width)?;
        self.picture.replace(Some(Rc::new(picture)));
        Ok(())
    }

    /// Normalizes the photos over the first ranks, one more than there are `ends`: rows at which
    /// the parts of the ranks end.
    pub async fn normalize(&self, ends: Vec<u32>) -> Result<Normalized, JsError> {
        let picture = self.picture.borrow().clone();
        let picture = picture.ok_or_else(|| JsError::new("there are no photos yet"))?;
        let ends: Vec<usize> = ends.into_iter().map(|end| end as usize).collect();
        let devices = self.devices.get(..=ends.len());
        let devices = devices.ok_or_else(|| JsError::new("there are fewer ranks than parts"))?;
        Ok(Normalized(photos::normalize(devices, &picture, &ends).await?))
    }
}

/// Power preferences of the ranks in turn. With them a machine with two GPUs shows both.
const PREFERENCES: [PowerPreference; 2] =
    [PowerPreference::HighPerformance, PowerPreference::LowPower];

async fn open_gpu(power_preference: PowerPreference) -> Result<Device, JsError> {
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
    let options = RequestAdapterOptions { power_preference, ..Default::default() };
    let adapter = instance.request_adapter(&options).await?;
    Ok(Device::from_adapter(&adapter).await?)
}

/// The photos, normalized.
#[wasm_bindgen]
pub struct Normalized(photos::Normalized);

#[derive(Serialize)]
struct Report<'a> {
    ranks: &'a [Statistics],
    all: &'a Statistics,
    times: Times,
}

#[wasm_bindgen]
impl Normalized {
    /// Pixels by the statistics of all ranks.
    pub fn synchronized_pixels(&self) -> Vec<u8> {
        photos::to_rgba(&self.0.synchronized)
    }

    /// Pixels by each rank's own statistics.
    pub fn local_pixels(&self) -> Vec<u8> {
        photos::to_rgba(&self.0.local)
    }

    /// Values by the statistics of all ranks, (3, rows, width).
    pub fn synchronized(&self) -> Vec<f32> {
        self.0.synchronized.clone()
    }

    /// `{ranks, all, times}` in JSON: statistics of each rank and of all, times in milliseconds.
    pub fn report(&self) -> Result<String, JsError> {
        let photos::Normalized { ranks, all, times, .. } = &self.0;
        json(&Report { ranks, all, times: *times })
    }
}

/// A layer on the first rank, with tensors of its own: steps that are timed.
#[wasm_bindgen]
pub struct Step {
    layer: BatchNorm,
    x: Tensor,
    grad_output: Tensor,
    output: RefCell<Tensor>,
    grad_input: RefCell<Tensor>,
}

#[wasm_bindgen]
impl Step {
    /// A layer for tensors of these dimensions, (N, C, H, W), or (N, H, W, C) with channels last.
    #[wasm_bindgen(constructor)]
    pub fn new(session: &Session, dims: Vec<u32>, channels_last: bool) -> Result<Step, JsError> {
        let device = session.devices.first().ok_or_else(|| JsError::new("there is no rank"))?;
        let dims: Vec<usize> = dims.into_iter().map(|size| size as usize).collect();
        let (layout, axis) = match channels_last {
            true => (Layout::ChannelsLast, dims.len().saturating_sub(1)),
            false => (Layout::ChannelsFirst, 1),
        };
        let channels = *dims.get(axis).ok_or_else(|| JsError::new("too few dimensions"))?;
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|i: usize| ((i * 7919) % 1009) as f32 / 1009.0)
            .collect();
        let zeros = || device.zeros(&dims).map(|tensor| tensor.with_layout(layout));
        let upload = || device.upload(&dims, &values).map(|tensor| tensor.with_layout(layout));
        let layer = BatchNorm::new(BatchNormConfig::torch(channels), device)?;
        let x = upload()?;
        let grad_output = upload()?;
        let output = RefCell::new(zeros()?);
        let grad_input = RefCell::new(zeros()?);
        Ok(Self { layer, x, grad_output, output, grad_input })
    }

    /// Submits `count` steps, each a forward and a backward pass.
    pub fn submit(&self, count: usize) -> Result<(), JsError> {
        for _ in 0..count {
            let mut y = self.output.borrow_mut();
            let mut dx = self.grad_input.borrow_mut();
            let saved = self.layer.forward_train(Forward::of(&self.x).write_to(&mut *y))?.saved;
            let request = Backward::of(&self.x, &self.grad_output).input_gradient(&mut *dx);
            self.layer.backward(&saved, request)?;
        }
        Ok(())
    }

    /// Waits until everything that was submitted is done.
    pub async fn wait(&self) -> Result<(), JsError> {
        Ok(self.x.device().wait().await?)
    }
}

/// A network in training.
#[wasm_bindgen]
pub struct Trainer(Mutex<Training>);

#[wasm_bindgen]
impl Trainer {
    /// A training over the first ranks of a session; `way` is `"local"`, `"synchronized"` or
    /// `"one"`.
    #[wasm_bindgen(constructor)]
    pub fn new(session: &Session, ranks: usize, way: &str) -> Result<Trainer, JsError> {
        let way: Way = serde_json::from_value(way.into())?;
        let devices = session.devices.get(..ranks);
        let devices = devices.ok_or_else(|| JsError::new("there are fewer ranks"))?;
        Ok(Self(Mutex::new(Training::new(way, devices)?)))
    }

    /// Takes `count` steps. Returns the loss before each.
    pub async fn steps(&self, count: usize) -> Result<Vec<f64>, JsError> {
        let mut training = self.0.lock().await;
        let mut losses = Vec::with_capacity(count);
        for _ in 0..count {
            losses.push(training.step().await?);
        }
        Ok(losses)
    }

    /// The part of the points that the network tells right.
    pub async fn accuracy(&self) -> Result<f64, JsError> {
        Ok(self.0.lock().await.accuracy().await?)
    }
}

fn json(value: &impl Serialize) -> Result<String, JsError> {
    Ok(serde_json::to_string(value)?)
}
