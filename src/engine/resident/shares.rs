//! What the kernels are told of every rank, on the device.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::{Merge, Share};

/// The shares of the last call: batches are mostly cut alike.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    last: Mutex<Option<(Vec<Share>, BufferSlice)>>,
}

impl Shares {
    /// The shares of a merge. A slice that was given before keeps its contents.
    pub fn of(&self, gpu: &Gpu, merge: &Merge) -> Result<BufferSlice, Error> {
        let wanted = merge.shares();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((shares, slice)) if *shares == wanted => Ok(slice.clone()),
            _ => {
                let slice = gpu.upload(&wanted)?;
                *last = Some((wanted, slice.clone()));
                Ok(slice)
            }
        }
    }
}
