//! What the kernels are told of every rank, on the device.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::{Merge, Share};

/// Cuts of a batch that are remembered: those of training and evaluation, and of a last batch.
const MOST: usize = 8;

/// The shares of the last calls: batches are mostly cut alike.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// The last one first.
    last: Mutex<Vec<(Vec<Share>, BufferSlice)>>,
}

impl Shares {
    /// The shares of a merge. A slice that was given before keeps its contents.
    pub fn of(&self, gpu: &Gpu, merge: &Merge) -> Result<BufferSlice, Error> {
        let wanted = merge.shares();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = last.iter().position(|(shares, _)| *shares == wanted) {
            last[..=index].rotate_right(1);
        } else {
            last.truncate(MOST - 1);
            last.insert(0, (wanted, gpu.upload(&merge.shares())?));
        }
        Ok(last[0].1.clone())
    }
}
