//! A data loader whose parts all end at the same step: the uneven last batch of a trainer that
//! skips a worker without one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;

/// Makes a batch without samples on a device.
type Empty<B> = Arc<dyn Fn(&Device) -> B + Send + Sync>;

/// A loader whose parts, one per device, go on with empty batches until the last of them has ended.
///
/// Burn's trainer cuts a loader into one part per device and gives no step to a worker whose part
/// has ended. The layers of the other workers would wait for it until their deadline. With this
/// loader every worker has a step as long as any has one:
///
/// ```ignore
/// let loader = EvenLoader::new(loader, |device| Batch::empty(device));
/// ```
///
/// The loss of an empty batch must be 0 and its gradients must be there: divide a sum of losses by
/// the samples of all workers, not by those of the batch.
///
/// The iterators of all parts are made before the first step and are asked in turn, by one thread,
/// as `ExecutionStrategy::MultiDevice` does.
pub struct EvenLoader<B> {
    loader: Arc<dyn DataLoader<B>>,
    device: Option<Device>,
    empty: Empty<B>,
    parts: Arc<Mutex<Vec<Weak<Mutex<Part>>>>>,
}

/// How far a part is.
#[derive(Debug, Default)]
struct Part {
    /// Batches given, empty ones too.
    given: usize,
    /// Batches of its own, as far as is known.
    own: usize,
}

impl<B: Send + 'static> EvenLoader<B> {
    /// Of any loader, with what makes a batch without samples on a device.
    pub fn new(
        loader: Arc<dyn DataLoader<B>>,
        empty: impl Fn(&Device) -> B + Send + Sync + 'static,
    ) -> Self {
        Self { loader, device: None, empty: Arc::new(empty), parts: Arc::default() }
    }

    fn with(&self, loader: Arc<dyn DataLoader<B>>, device: Option<Device>) -> Arc<Self> {
        let (empty, parts) = (self.empty.clone(), self.parts.clone());
        Arc::new(Self { loader, device, empty, parts })
    }
}

impl<B: Send + 'static> DataLoader<B> for EvenLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<B> + 'a> {
        let mut batches = self.loader.iter();
        let next = batches.next();
        let part = Arc::new(Mutex::new(Part { given: 0, own: usize::from(next.is_some()) }));
        let mut parts = lock(&self.parts);
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(&part));
        Box::new(EvenBatches { loader: self, batches, next, part })
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<B>> {
        self.with(self.loader.to_device(device), Some(device.clone()))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B>> {
        self.with(self.loader.slice(start, end), self.device.clone())
    }
}

/// The batches of one part.
struct EvenBatches<'a, B> {
    loader: &'a EvenLoader<B>,
    batches: Box<dyn DataLoaderIterator<B> + 'a>,
    /// Fetched ahead, so that the others know that there is one.
    next: Option<Result<B, DatasetError>>,
    part: Arc<Mutex<Part>>,
}

impl<B> EvenBatches<'_, B> {
    /// Whether any part has a batch of its own for a step.
    fn any_has(&self, step: usize) -> bool {
        let parts = lock(&self.loader.parts);
        parts.iter().filter_map(Weak::upgrade).any(|part| lock(&part).own > step)
    }
}

impl<B> Iterator for EvenBatches<'_, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = lock(&self.part).given;
        let batch = match self.next.take() {
            Some(batch) => {
                self.next = self.batches.next();
                Some(batch)
            }
            // A loader that never moved to a device is alone.
            None => {
                let device = self.loader.device.as_ref().filter(|_| self.any_has(step))?;
                Some(Ok((self.loader.empty)(device)))
            }
        };
        let mut part = lock(&self.part);
        part.given += 1;
        part.own += usize::from(self.next.is_some());
        batch
    }
}

impl<B> DataLoaderIterator<B> for EvenBatches<'_, B> {
    fn progress(&self) -> Progress {
        self.batches.progress()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
