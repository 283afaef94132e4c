//! Sums of ranks, brought to the host: one submission and one readback for all of a device.

use std::ops::Range;
use std::time::Duration;

use bytemuck::Pod;
use futures::future::FutureExt;

use super::Slices;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Pending, Recorder};
use crate::plan::{CHANNEL_SUMS_BYTES, Role, SumsPlan};
use crate::stats::{Centering, GridParams};

/// Four sums per channel, as a kernel leaves them.
pub(super) type Sums = Vec<[f32; 4]>;

/// Sums over one rank, which can be taken more than once.
pub(super) struct Job<C = Centering> {
    plan: Box<SumsPlan>,
    /// The bindings that are the same for every submission.
    bound: Vec<(Role, BufferSlice)>,
    /// The coefficients of every channel, where the kernel needs them.
    centering: Vec<C>,
    /// How values become integers, where the kernel sums those.
    grids: Vec<GridParams>,
}

impl<C: Pod> Job<C> {
    pub fn new(plan: Box<SumsPlan>, slices: Slices<'_>, centering: Vec<C>) -> Self {
        let bindings = plan.partials.iter().take(1).flat_map(|partial| partial.variant.bindings());
        let own = |role: &Role| {
            !matches!(role, Role::Centering | Role::Grids | Role::Tiles | Role::Local)
        };
        let roles = bindings.map(|binding| binding.role).filter(own).chain([Role::Lengths]);
        let bound = roles.map(|role| (role, slices.role(role).clone())).collect();
        Self { plan, bound, centering, grids: Vec::new() }
    }

    /// The same with the grids of every channel.
    pub fn with_grids(self, grids: Vec<GridParams>) -> Self {
        Self { grids, ..self }
    }

    /// The slice to bind for a role: the job's, or one uploaded for a submission.
    fn slice<'a>(
        &'a self,
        role: Role,
        [centering, grids]: [&'a BufferSlice; 2],
    ) -> &'a BufferSlice {
        match self.bound.iter().find(|(of, _)| *of == role) {
            Some((_, slice)) => slice,
            None if role == Role::Grids => grids,
            None => centering,
        }
    }
}

/// A device that computes sums, and its deadline.
#[derive(Clone)]
pub(super) struct Taker {
    pub gpu: Gpu,
    pub deadline: Duration,
    pub phase: &'static str,
}

impl Taker {
    /// Sums of every job, `[job][channel]`.
    pub fn take<C: Pod>(&self, jobs: &[&Job<C>]) -> Result<Pending<Vec<Sums>>, Error> {
        let bytes = self.take_bytes(jobs)?;
        Ok(async move { Ok(bytes.await?.iter().map(|bytes| sums_of(bytes)).collect()) }.boxed())
    }

    /// The bytes that the kernels of every job write, by job.
    pub fn take_bytes<C: Pod>(&self, jobs: &[&Job<C>]) -> Result<Pending<Vec<Vec<u8>>>, Error> {
        let Self { gpu, deadline, phase } = self;
        let alignment_bytes = u64::from(gpu.caps().offset_alignment_bytes);
        let mut parts = Vec::with_capacity(jobs.len());
        let mut end = 0;
        for job in jobs {
            let start = u64::next_multiple_of(end, alignment_bytes);
            end = start + job.plan.local_bytes;
            let tiles =
                job.plan.combine.as_ref().map(|_| gpu.scratch(job.plan.tiles_bytes)).transpose()?;
            let centering = Upload::of_any(gpu, &job.centering)?;
            let grids = Upload::of_any(gpu, &job.grids)?;
            parts.push(Part { job, tiles, uploads: [centering, grids], place: start..end });
        }
        let local = gpu.scratch(end)?;
        let bytes = gpu.submit_and_read(phase, *deadline, &local, |recorder| {
            for Part { job, tiles, uploads, place } in &parts {
                uploads.iter().flatten().for_each(|upload| upload.send(recorder));
                let uploaded = uploads.each_ref().map(|upload| match upload {
                    Some(upload) => &*upload.lease,
                    None => gpu.dummy(0),
                });
                let tiles = tiles.as_deref();
                let local = local.part(place.clone());
                record_sums(recorder, &job.plan, tiles, &local, |role| job.slice(role, uploaded));
            }
        });
        let places: Vec<Range<u64>> = parts.into_iter().map(|part| part.place).collect();
        Ok(async move {
            let bytes = bytes.await?;
            let part = |place: Range<u64>| bytes.get(place.start as usize..place.end as usize);
            Ok(places.into_iter().map(|place| part(place).unwrap_or_default().to_vec()).collect())
        }
        .boxed())
    }

    /// The sums of a job with what is summed multiplied by a power of two.
    pub async fn take_in_units<C: Pod>(&self, job: &Job<C>, unit: f32) -> Result<Sums, Error> {
        let again = Job {
            plan: Box::new(job.plan.in_units(unit)),
            bound: job.bound.clone(),
            centering: job.centering.clone(),
            grids: Vec::new(),
        };
        let sums = self.take(&[&again])?;
        Ok(sums.await?.pop().unwrap_or_default())
    }
}

/// One job of a submission.
struct Part<'a, C> {
    job: &'a Job<C>,
    /// `None` where a channel has one tile.
    tiles: Option<Lease>,
    /// Centering and grids.
    uploads: [Option<Upload<'a>>; 2],
    /// Bytes of its sums among those of all jobs.
    place: Range<u64>,
}

/// Four sums per channel.
fn sums_of(bytes: &[u8]) -> Sums {
    bytes.chunks_exact(CHANNEL_SUMS_BYTES as usize).map(bytemuck::pod_read_unaligned).collect()
}

/// Records both kernels of a plan. `slice_of` gives all slices but the scratch.
pub(in crate::engine) fn record_sums<'s>(
    recorder: &mut Recorder<'_>,
    plan: &SumsPlan,
    tiles: Option<&BufferSlice>,
    local: &BufferSlice,
    slice_of: impl Fn(Role) -> &'s BufferSlice,
) {
    let slice_of = |role| match role {
        Role::Tiles => tiles.unwrap_or(local),
        Role::Local => local,
        _ => slice_of(role),
    };
    plan.partials.iter().for_each(|partial| recorder.dispatch(partial, slice_of));
    plan.combine.iter().for_each(|combine| recorder.dispatch(combine, slice_of));
}

/// Coefficients that the host sends, and the memory on the device that they go to for one call.
pub(in crate::engine) struct Upload<'a> {
    bytes: &'a [u8],
    pub lease: Lease,
}

impl<'a> Upload<'a> {
    pub fn new<T: Pod>(gpu: &Gpu, values: &'a [T]) -> Result<Self, Error> {
        let bytes = bytemuck::cast_slice(values);
        Ok(Self { bytes, lease: gpu.scratch(bytes.len() as u64)? })
    }

    /// `None` without values.
    fn of_any<T: Pod>(gpu: &Gpu, values: &'a [T]) -> Result<Option<Self>, Error> {
        (!values.is_empty()).then(|| Self::new(gpu, values)).transpose()
    }

    pub fn send(&self, recorder: &mut Recorder<'_>) {
        recorder.write(&self.lease, self.bytes);
    }
}
