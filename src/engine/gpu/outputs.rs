//! Activations that a pass writes. The commands need no statistics, so they are recorded while the
//! sums run. Then the host writes the coefficients, and submits.

use bytemuck::Pod;
use futures::future::{FutureExt, ready};

use super::Slices;
use crate::engine::{BackwardRank, ForwardRank};
use crate::error::Error;
use crate::gpu::{Gpu, Lease, Memory, Pending, Recorded};
use crate::plan::ApplyPlan;
use crate::stats::{Centering, GradCentering};
use crate::tensor::Tensor;

const NORMALIZE: &str = "normalize";
const GRADIENT: &str = "gradient of the input";

/// The outputs of all ranks of one device: recorded commands, and the memory that they use.
pub(crate) struct Ahead {
    /// `None` where nothing is written.
    commands: Option<Recorded>,
    /// For the coefficients of every rank that writes something.
    coefficients: Vec<Lease>,
    /// For gradients that nobody wants.
    _unwanted: Vec<Lease>,
}

impl Ahead {
    /// Sends the coefficients of every rank that writes something, in order, and submits.
    fn submit<'c, C: Pod>(
        self,
        gpu: &Gpu,
        phase: &'static str,
        coefficients: impl Iterator<Item = &'c [C]>,
    ) -> Pending<()> {
        let Some(commands) = self.commands else { return ready(Ok(())).boxed() };
        let bytes = coefficients.map(bytemuck::cast_slice);
        let contents = self.coefficients.iter().map(|lease| &**lease).zip(bytes);
        gpu.submit_recorded(phase, commands, contents)
    }
}

/// Memory for the coefficients of a rank.
fn coefficients<C>(gpu: &Gpu, channels: usize) -> Result<Lease, Error> {
    gpu.scratch((channels * size_of::<C>()) as u64)
}

/// Records the outputs of ranks of several layers, with the plans that they have.
pub(in crate::engine) fn record_normalize<'r, 'a: 'r>(
    gpu: &Gpu,
    ranks: impl Iterator<Item = &'r ForwardRank<'a>>,
) -> Result<Ahead, Error> {
    let written = ranks.filter_map(|rank| Some((rank, rank.apply.as_ref()?)));
    let written = written.map(|(rank, plan)| {
        let centering = coefficients::<Centering>(gpu, rank.shape.channels())?;
        Ok((plan, Slices::forward(gpu, rank), centering))
    });
    record(gpu, NORMALIZE, written.collect::<Result<_, Error>>()?, Vec::new())
}

/// Writes the outputs of ranks of several layers, with the coefficients of each.
pub(in crate::engine) fn normalize(
    gpu: &Gpu,
    mut ranks: Vec<(&mut ForwardRank<'_>, &[Centering])>,
    ahead: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    let ahead = match ahead {
        Some(ahead) => ahead,
        None => record_normalize(gpu, ranks.iter().map(|(rank, _)| &**rank))?,
    };
    ranks.iter_mut().for_each(|(rank, _)| note_write(&mut rank.y));
    let written = ranks.iter().filter(|(rank, _)| rank.apply.is_some());
    Ok(ahead.submit(gpu, NORMALIZE, written.map(|(_, centering)| *centering)))
}

/// Records the gradients of activations of ranks of several layers, with the plans that they have.
pub(in crate::engine) fn record_input_gradients<'r, 'a: 'r>(
    gpu: &Gpu,
    ranks: impl Iterator<Item = &'r BackwardRank<'a>>,
) -> Result<Ahead, Error> {
    let written = ranks.filter_map(|rank| Some((rank, rank.apply.as_ref()?)));
    let written = written.map(|(rank, plan)| {
        let centering = coefficients::<GradCentering>(gpu, rank.shape.channels())?;
        Ok((plan, rank, centering, unwanted(gpu, rank, None)?))
    });
    let written = written.collect::<Result<Vec<_>, Error>>()?;
    let mut kernels = Vec::with_capacity(written.len());
    let mut memory = Vec::new();
    for (plan, rank, centering, unwanted) in written {
        kernels.push((plan, Slices::backward(gpu, rank), centering));
        memory.push(unwanted);
    }
    record(gpu, GRADIENT, kernels, memory)
}

/// Writes the gradients of activations of ranks of several layers, with the coefficients of each.
pub(in crate::engine) fn input_gradients(
    gpu: &Gpu,
    mut ranks: Vec<(&mut BackwardRank<'_>, &[GradCentering])>,
    ahead: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    let ahead = match ahead {
        Some(ahead) => ahead,
        None => record_input_gradients(gpu, ranks.iter().map(|(rank, _)| &**rank))?,
    };
    for (rank, _) in &mut ranks {
        note_write(&mut rank.grad_input);
        note_write(&mut rank.grad_residual);
    }
    let written = ranks.iter().filter(|(rank, _)| rank.apply.is_some());
    Ok(ahead.submit(gpu, GRADIENT, written.map(|(_, centering)| *centering)))
}

/// The plan, the memory and the coefficients of one rank.
type Kernel<'a> = (&'a ApplyPlan, Slices<'a>, Lease);

/// Records kernels that write activations. A kernel that has an entry in `unwanted` writes a
/// gradient of x there.
fn record(
    gpu: &Gpu,
    phase: &'static str,
    kernels: Vec<Kernel<'_>>,
    unwanted: Vec<Option<Lease>>,
) -> Result<Ahead, Error> {
    if kernels.is_empty() {
        return Ok(Ahead { commands: None, coefficients: Vec::new(), _unwanted: Vec::new() });
    }
    let commands = gpu.record_ahead(phase, |recorder| {
        let mut unwanted = unwanted.iter().map(Option::as_deref);
        for (plan, slices, centering) in &kernels {
            let to = unwanted.next().flatten();
            let slices = slices.with_centering(centering).with_unwanted(to);
            plan.dispatches
                .iter()
                .for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    })?;
    let coefficients = kernels.into_iter().map(|(_, _, centering)| centering).collect();
    let unwanted = unwanted.into_iter().flatten().collect();
    Ok(Ahead { commands: Some(commands), coefficients, _unwanted: unwanted })
}

/// Memory for a gradient of x that nobody wants: one kernel writes it and that of the residual.
pub(in crate::engine) fn unwanted(
    gpu: &Gpu,
    rank: &BackwardRank<'_>,
    pool: Option<&Memory>,
) -> Result<Option<Lease>, Error> {
    let bytes = rank.shape.elements().saturating_mul(rank.x.dtype().size_bytes());
    rank.grad_input.is_none().then(|| gpu.scratch_of(pool, bytes)).transpose()
}

/// Notes that a tensor is about to be written.
pub(in crate::engine) fn note_write(tensor: &mut Option<&mut Tensor>) {
    if let Some(tensor) = tensor {
        tensor.memory_mut();
    }
}
