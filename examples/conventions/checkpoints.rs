//! Inputs, and files under the names of either framework.

use pollster::block_on;
use syncbn::state::{Checkpoint, LoadOptions, Naming};
use syncbn::{Device, Error, SyncBatchNorm};

use super::{BATCH, Look, Row, both, layer, mindspore, torch, train, upload, values};

pub fn rows() -> Result<Vec<Row>, Error> {
    let dimensions: Look = |bn, _| {
        let mut taken = Vec::new();
        for dims in [&[4][..], &[4, 1], &[4, 1, 2], &[4, 1, 2, 3], &[4, 1, 1, 2, 3]] {
            let ramp: Vec<f32> = (0..dims.iter().product()).map(|i: usize| i as f32).collect();
            let x = [Device::host().upload(dims, &ramp)?, Device::host().upload(dims, &ramp)?];
            if block_on(bn.forward_train(&x)).is_ok() {
                taken.push(format!("{}-D", dims.len()));
            }
        }
        Ok(taken.join(", "))
    };
    let counter: Look = |bn, naming| {
        (0..3).try_for_each(|_| train(&bn, BATCH).map(drop))?;
        let count = |bn: &SyncBatchNorm| bn.running_stats().map_or(0, |of| of.num_batches_tracked);
        let loaded = through_file(&bn, naming)?;
        Ok(format!("{} before it is saved, {} when it is loaded", count(&bn), count(&loaded)))
    };
    // The same layer through a file under the names of the other convention.
    let other: Look = |bn, naming| {
        train(&bn, BATCH)?;
        let is_torch = naming == Naming::TORCH;
        let naming = if is_torch { Naming::MINDSPORE } else { Naming::TORCH };
        let loaded = through_file(&bn, naming)?;
        let x = upload(BATCH)?;
        let y = [block_on(bn.forward_eval(&x))?, block_on(loaded.forward_eval(&x))?];
        let same = values(&y[0].output)? == values(&y[1].output)?;
        Ok(String::from(if same { "loads, and gives the same bits" } else { "gives other bits" }))
    };
    let listed: Look = |bn, naming| Ok(names(&bn, naming)?.join(", "));
    Ok(vec![
        both("dimensions of x that are taken, of 1 to 5", torch(), mindspore(), dimensions)?,
        both("names in a file", torch(), mindspore(), listed)?,
        both("counter of steps", torch(), mindspore(), counter)?,
        both("a file with the names of the other one", torch(), mindspore(), other)?,
    ])
}

/// The names of the vectors in a file of the layer.
pub fn names(bn: &SyncBatchNorm, naming: Naming) -> Result<Vec<String>, Error> {
    Ok(checkpoint(bn, naming)?.names().map(str::to_owned).collect())
}

/// A file of the layer alone.
fn checkpoint(bn: &SyncBatchNorm, naming: Naming) -> Result<Checkpoint, Error> {
    let mut checkpoint = Checkpoint::new().with_namings([naming]);
    checkpoint.set_layer("", &block_on(bn.state())?)?;
    Ok(Checkpoint::from_bytes(checkpoint.to_bytes()?)?)
}

/// A new layer with the state of this one, by way of a file.
fn through_file(bn: &SyncBatchNorm, naming: Naming) -> Result<SyncBatchNorm, Error> {
    let mut loaded = layer(bn.config().clone())?;
    loaded.load_state(&checkpoint(bn, naming)?.layer("")?, &LoadOptions::default())?;
    Ok(loaded)
}
