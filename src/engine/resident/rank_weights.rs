//! The weights of ranks in a merge, on the device.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::{Merge, RankWeight};

/// Cuts of a batch that are remembered: those of training and evaluation, and of a last batch.
const MOST: usize = 8;

/// The rank weights of the last calls: batches are mostly cut alike.
#[derive(Debug, Default)]
pub(crate) struct RankWeights {
    /// The last one first.
    last: Mutex<Vec<(Vec<RankWeight>, BufferSlice)>>,
}

impl RankWeights {
    /// The rank weights of a merge. A slice that was given before keeps its contents.
    pub fn of(&self, gpu: &Gpu, merge: &Merge) -> Result<BufferSlice, Error> {
        let wanted = merge.rank_weights();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = last.iter().position(|(rank_weights, _)| *rank_weights == wanted) {
            last[..=index].rotate_right(1);
        } else {
            last.truncate(MOST - 1);
            last.insert(0, (wanted, gpu.upload(&merge.rank_weights())?));
        }
        Ok(last[0].1.clone())
    }
}
