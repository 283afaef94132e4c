//! Batches that have one value per channel in the whole group, or none.

use syncbn::{Error, SyncBatchNorm};

use super::{Batch, Look, Row, both, mindspore, torch, train};

pub fn rows() -> Result<Vec<Row>, Error> {
    let one_value: Look = |bn, _| step(&bn, [&[5.0], &[]]);
    let no_value: Look = |bn, _| step(&bn, [&[], &[]]);
    Ok(vec![
        both("one value per channel on all ranks together", torch(), mindspore(), one_value)?,
        both("every rank empty", torch(), mindspore(), no_value)?,
    ])
}

/// What a step of training gives, and whether it changes the layer.
fn step(bn: &SyncBatchNorm, batch: Batch<'_>) -> Result<String, Error> {
    let before = bn.running_stats();
    let y = match train(bn, batch) {
        Ok(y) if y.is_empty() => "y is empty".to_owned(),
        Ok(y) => format!("y = {y:?}"),
        Err(Error::Batch(error)) => format!("refused: {error}"),
        Err(other) => return Err(other),
    };
    let is_same = bn.running_stats() == before;
    Ok(format!("{y}; {}", if is_same { "nothing changes" } else { "running statistics move" }))
}
