//! A data loader that deals every batch to all workers, for trainers whose workers each have a
//! loader of their own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::transform::ShuffledDataset;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Tensor};

/// A loader that deals each batch evenly to the workers of a trainer.
///
/// `ExecutionStrategy::MultiDevice` of Burn's trainer cuts a loader into one part per device, and
/// gives a worker whose part has ended no step. Synchronized layers of the others would wait for it
/// until their deadline. This loader cuts every batch instead: all workers have as many steps, each
/// step has the samples that one worker would have, and where the last batch has fewer samples than
/// there are workers, some get an empty one.
///
/// ```
/// use std::sync::Arc;
/// use burn::data::dataloader::{DataLoader, batcher::Batcher, split::split_dataloader};
/// use burn::data::dataset::InMemDataset;
/// use burn::tensor::Device;
/// use syncbn_burn::EvenLoader;
///
/// struct Numbers;
/// impl Batcher<i32, Vec<i32>> for Numbers {
///     fn batch(&self, items: Vec<i32>, _: &Device) -> Vec<i32> {
///         items
///     }
/// }
///
/// let numbers = InMemDataset::new(vec![0, 1, 2, 3, 4]);
/// let loader = EvenLoader::new(numbers, Numbers, 4, &Device::default());
/// // What Burn's trainer does with it, over two devices.
/// let parts = split_dataloader(Arc::new(loader), &[Device::default(), Device::default()]);
/// let steps = parts.iter().map(|part| part.iter().map(|step| step.unwrap().batch).collect());
/// let steps: Vec<Vec<Vec<i32>>> = steps.collect();
/// assert_eq!(steps, [[vec![0, 1], vec![]], [vec![2, 3], vec![4]]]);
/// ```
pub struct EvenLoader<I, O> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<dyn Batcher<I, O>>,
    /// Samples of a batch of all workers, at least 1.
    batch_size: usize,
    seed: Option<u64>,
    /// Iterators made.
    epochs: AtomicU64,
    device: Device,
    /// The samples that this part would have of the whole data, if they were cut.
    part: Range<usize>,
}

/// A worker's part of a batch.
#[derive(Clone, Debug)]
pub struct WorkerBatch<O> {
    /// Of the worker's samples, of which there may be none.
    pub batch: O,
    /// The worker's samples.
    pub samples: usize,
    /// Those of all workers.
    pub samples_of_all: usize,
}

impl<O> WorkerBatch<O> {
    /// The worker's part of the mean over the samples of all workers: a sum over its own samples,
    /// divided by the samples of all. As the loss of a worker it makes the sum of the workers'
    /// gradients, which Burn's trainer takes, that of the mean loss of the batch.
    pub fn part_of_mean(&self, sum: Tensor<1>) -> Tensor<1> {
        sum.div_scalar(self.samples_of_all as f64)
    }
}

impl<I, O> EvenLoader<I, O> {
    /// Of a data set, in its order. `batch_size` counts the samples of all workers; 0 is taken as
    /// 1. The batcher must be able to make a batch of no samples.
    pub fn new(
        dataset: impl Dataset<I> + 'static,
        batcher: impl Batcher<I, O> + 'static,
        batch_size: usize,
        device: &Device,
    ) -> Self {
        Self {
            part: 0..dataset.len(),
            dataset: Arc::new(dataset),
            batcher: Arc::new(batcher),
            batch_size: batch_size.max(1),
            seed: None,
            epochs: AtomicU64::new(0),
            device: device.clone(),
        }
    }

    /// Shuffled, anew in each epoch and in all parts alike. An epoch is an iterator of a part.
    #[must_use]
    pub fn with_shuffle(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    fn with(&self, part: Range<usize>, device: &Device) -> Self {
        Self {
            dataset: self.dataset.clone(),
            batcher: self.batcher.clone(),
            batch_size: self.batch_size,
            seed: self.seed,
            epochs: AtomicU64::new(self.epochs.load(Ordering::Relaxed)),
            device: device.clone(),
            part,
        }
    }

    /// This part's samples of those of a batch.
    fn own(&self, batch: Range<usize>) -> Range<usize> {
        let total = self.dataset.len().max(1);
        // Rounded to the nearest, so that parts of the data that are nearly as long get as many.
        let place = |at: usize| batch.start + (batch.len() * at + total / 2) / total;
        place(self.part.start)..place(self.part.end)
    }

    fn batches(&self) -> impl Iterator<Item = Range<usize>> {
        let total = self.dataset.len();
        (0..total)
            .step_by(self.batch_size)
            .map(move |start| start..total.min(start + self.batch_size))
    }
}

impl<I, O> DataLoader<WorkerBatch<O>> for EvenLoader<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<WorkerBatch<O>> + 'a> {
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
        let dataset: Arc<dyn Dataset<I>> = match self.seed {
            Some(seed) => {
                let seed = seed.wrapping_add(epoch);
                Arc::new(ShuffledDataset::new(self.dataset.clone(), seed))
            }
            None => self.dataset.clone(),
        };
        let batches = self.batches().map(|batch| (batch.len(), self.own(batch)));
        let batches: Vec<_> = batches.collect();
        Box::new(Steps { loader: self, dataset, batches, step: 0 })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<WorkerBatch<O>>> {
        Arc::new(self.with(self.part.clone(), device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<WorkerBatch<O>>> {
        let at = |index: usize| self.part.end.min(self.part.start + index);
        Arc::new(self.with(at(start)..at(end), &self.device))
    }
}

/// The steps of one epoch.
struct Steps<'a, I, O> {
    loader: &'a EvenLoader<I, O>,
    dataset: Arc<dyn Dataset<I>>,
    /// Samples of each batch, and those of this part.
    batches: Vec<(usize, Range<usize>)>,
    step: usize,
}

impl<I, O> Iterator for Steps<'_, I, O> {
    type Item = Result<WorkerBatch<O>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (samples_of_all, own) = self.batches.get(self.step)?.clone();
        self.step += 1;
        let samples = own.len();
        let items = match self.dataset.get_many(own.collect()) {
            Ok(items) => items,
            Err(error) => return Some(Err(error)),
        };
        let batch = self.loader.batcher.batch(items, &self.loader.device);
        Some(Ok(WorkerBatch { batch, samples, samples_of_all }))
    }
}

impl<I, O> DataLoaderIterator<WorkerBatch<O>> for Steps<'_, I, O> {
    fn progress(&self) -> Progress {
        let mut own = self.batches.iter().map(|(_, own)| own.len());
        let processed: usize = own.by_ref().take(self.step).sum();
        let left: usize = own.sum();
        Progress::new(processed, processed + left, Some("items".to_owned()))
    }
}

#[cfg(test)]
mod tests;
