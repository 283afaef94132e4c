//! Owns the tensors of a run: random, the same in every run, and more of them than caches hold.

use syncbn::low_level::Epilogue;
use syncbn::tensor::Element;
use syncbn::{DType, Device, Error, Layout, Saved, Tensor};
use syncbn_testkit::Random;

use crate::workloads::{Workload, stored};

/// Seed of every run.
const SEED: u64 = 0x5eed_bea7;
/// Bytes of all sets of a workload together: well above the caches of any processor or GPU, of
/// which the largest have a few hundred MiB.
const ROTATED_BYTES: u64 = 768 << 20;
/// The same for a quick run.
const QUICK_ROTATED_BYTES: u64 = 8 << 20;
/// Sets of the smallest workloads. Those fit a cache in any number that can be allocated in
/// reasonable time.
const MAX_SETS: u64 = 64;

/// Storage type, layout and epilogue of one run.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub dtype: DType,
    pub layout: Layout,
    pub epilogue: Epilogue,
    /// Whether forward keeps a bit per value where backward would read the residual otherwise.
    pub mask: bool,
}

/// Everything that the passes of one call read and write, one tensor per rank each.
#[derive(Debug)]
pub struct Set {
    pub x: Vec<Tensor>,
    pub residuals: Option<Vec<Tensor>>,
    pub grad_outputs: Vec<Tensor>,
    /// Written by forward and by evaluation.
    pub y: Vec<Tensor>,
    pub grad_inputs: Vec<Tensor>,
    pub grad_residuals: Option<Vec<Tensor>>,
    /// Of the last forward call over this set: of an ordinary layer, and of a reproducible one.
    pub saved: [Option<Saved>; 2],
}

/// How many sets calls rotate over that are to find nothing in a cache.
pub fn rotation(workload: &Workload, form: Form, quick: bool) -> u64 {
    set_count(workload.bytes(form.dtype), form.epilogue, quick)
}

/// So many sets.
pub fn sets(
    workload: &Workload,
    form: Form,
    ranks: &[Device],
    count: u64,
) -> Result<Vec<Set>, Error> {
    let shards = workload.shards(ranks.len());
    (0..count).map(|index| set(&shards, form, ranks, SEED + index)).collect()
}

/// Number of sets for an x of `bytes` bytes. At least two, because no call should find data of the
/// previous one.
fn set_count(bytes: u64, epilogue: Epilogue, quick: bool) -> u64 {
    let tensors = if epilogue.adds_residual() { 6 } else { 4 };
    let rotated_bytes = if quick { QUICK_ROTATED_BYTES } else { ROTATED_BYTES };
    rotated_bytes.div_ceil(tensors * bytes).clamp(2, MAX_SETS)
}

/// One set. Inputs are random, outputs are zero.
pub fn set(shards: &[Vec<usize>], form: Form, ranks: &[Device], seed: u64) -> Result<Set, Error> {
    let mut random = Random::new(seed);
    let tensors = |make: &mut Make<'_>| -> Result<Vec<Tensor>, Error> {
        let pairs = ranks.iter().zip(shards);
        pairs
            .map(|(device, dims)| {
                Ok(make(device, &stored(dims, form.layout))?.with_layout(form.layout))
            })
            .collect()
    };
    let mut normal =
        |device: &Device, dims: &[usize]| normal(device, dims, form.dtype, &mut random);
    let mut zeros = |device: &Device, dims: &[usize]| device.zeros_of(dims, form.dtype);
    let adds = form.epilogue.adds_residual();
    Ok(Set {
        x: tensors(&mut normal)?,
        residuals: adds.then(|| tensors(&mut normal)).transpose()?,
        grad_outputs: tensors(&mut normal)?,
        y: tensors(&mut zeros)?,
        grad_inputs: tensors(&mut zeros)?,
        grad_residuals: adds.then(|| tensors(&mut zeros)).transpose()?,
        saved: [None, None],
    })
}

/// Makes a tensor of some dimensions on a device.
type Make<'a> = dyn FnMut(&Device, &[usize]) -> Result<Tensor, Error> + 'a;

/// A tensor of numbers of mean 0 and deviation 1.
fn normal(
    device: &Device,
    dims: &[usize],
    dtype: DType,
    random: &mut Random,
) -> Result<Tensor, Error> {
    match dtype {
        DType::F32 => uploaded::<f32>(device, dims, random),
        DType::F16 => uploaded::<half::f16>(device, dims, random),
        DType::BF16 => uploaded::<half::bf16>(device, dims, random),
    }
}

fn uploaded<T: Element>(
    device: &Device,
    dims: &[usize],
    random: &mut Random,
) -> Result<Tensor, Error> {
    let values: Vec<T> =
        (0..dims.iter().product()).map(|_| T::from_f32(random.normal() as f32)).collect();
    device.upload(dims, &values)
}

/// Values for a parameter, a little different for every channel.
pub fn parameter(channels: usize, mean: f32, seed: u64) -> Vec<f32> {
    let mut random = Random::new(SEED ^ seed);
    (0..channels).map(|_| mean + 0.25 * random.normal() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_exceed_the_caches_and_small_workloads_are_many() {
        assert_eq!(set_count(102_760_448, Epilogue::NONE, false), 2);
        assert_eq!(set_count(12_845_056, Epilogue::NONE, false), 16);
        assert_eq!(set_count(12_845_056, Epilogue::ADD_RELU, false), 11);
        assert_eq!(set_count(32_768, Epilogue::NONE, false), MAX_SETS);
        assert_eq!(set_count(12_845_056, Epilogue::NONE, true), 2);
    }

    #[test]
    fn a_seed_gives_the_same_values_again() {
        let draw = |seed| parameter(1000, 0.0, seed);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
