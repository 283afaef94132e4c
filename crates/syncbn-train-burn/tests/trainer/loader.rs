//! A loader of given steps, which cuts every step into parts.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor};

use super::data::Digits;

/// What a worker gets for a step.
#[derive(Clone)]
pub struct Batch {
    pub pixels: Tensor<4>,
    pub labels: Tensor<2>,
    pub step: usize,
    /// Samples of the step, over all workers.
    pub samples: usize,
    pub losses: Losses,
}

/// Sums of what workers note for each step.
#[derive(Clone, Default)]
pub struct Losses(Arc<Mutex<Vec<f32>>>);

impl Losses {
    pub fn note(&self, step: usize, loss: f32) {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() <= step {
            losses.resize(step + 1, 0.0);
        }
        losses[step] += loss;
    }

    pub fn all(&self) -> Vec<f32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Steps as lists of samples, of which a slice has the same part of each.
#[derive(Clone)]
pub struct Schedule {
    digits: Arc<Digits>,
    steps: Arc<Vec<Vec<usize>>>,
    losses: Losses,
    device: Device,
    /// Of all samples.
    part: Range<usize>,
    total: usize,
}

impl Schedule {
    pub fn new(digits: Digits, steps: Vec<Vec<usize>>, losses: Losses, device: Device) -> Self {
        let total = steps.iter().map(Vec::len).sum();
        Self { digits: digits.into(), steps: steps.into(), losses, device, part: 0..total, total }
    }

    /// What makes a batch without samples.
    pub fn empty(&self) -> impl Fn(&Device) -> Batch + Send + Sync + 'static {
        let (digits, losses) = (self.digits.clone(), self.losses.clone());
        move |device| {
            let (pixels, labels) = digits.batch(&[], device);
            Batch { pixels, labels, step: 0, samples: 1, losses: losses.clone() }
        }
    }

    /// The part's samples of a step.
    fn own(&self, step: usize) -> &[usize] {
        let samples = &self.steps[step];
        let place = |at: usize| samples.len() * at / self.total;
        &samples[place(self.part.start)..place(self.part.end)]
    }

    fn batch(&self, step: usize) -> Batch {
        let (pixels, labels) = self.digits.batch(self.own(step), &self.device);
        let samples = self.steps[step].len();
        Batch { pixels, labels, step, samples, losses: self.losses.clone() }
    }
}

impl DataLoader<Batch> for Schedule {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(Steps { schedule: self, step: 0 })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let part = self.part.start + start..self.part.start + end;
        Arc::new(Self { part, ..self.clone() })
    }
}

struct Steps<'a> {
    schedule: &'a Schedule,
    step: usize,
}

impl Iterator for Steps<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step;
        let has_one = step < self.schedule.steps.len() && !self.schedule.own(step).is_empty();
        self.step += 1;
        has_one.then(|| Ok(self.schedule.batch(step)))
    }
}

impl DataLoaderIterator<Batch> for Steps<'_> {
    fn progress(&self) -> Progress {
        let steps = self.schedule.steps.len();
        Progress::new(self.step.min(steps), steps, None)
    }
}
