//! Probes a driver's real behaviour at the opening of a device, by one submission of a few small
//! kernels.
//!
//! The answers belong to the driver, so later devices of an adapter reuse the first one's. If an
//! answer does not come, its fast path stays off. Opening always ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

use super::opening::Opening;
use super::pipelines::Pipeline;
use super::scope::Scope;
use super::trace;
use crate::error::{Error, GpuError};
use crate::fast_paths::FastPaths;
use crate::probe::{Answer, Defect, Findings, INPUTS, Params, Question, judge};
use crate::shaders::Access;

/// Time for which opening waits for the answers. They take a millisecond, but an application's
/// queue may be full of work.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at a future that is driven on the calling thread.
const PAUSE: Duration = Duration::from_micros(50);
const PHASE: &str = "asking the driver";

/// Results of the probe for an opened device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub paths: FastPaths,
    /// `None` if the driver was not probed.
    pub findings: Option<Arc<Findings>>,
}

/// The answers depend on these: adapter and driver, the features that shaders are compiled with,
/// and the questions.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    adapter: wgpu::AdapterInfo,
    features: wgpu::Features,
    asked: FastPaths,
}

/// Complete answers of this process, judged.
static KNOWN: Mutex<Vec<(Key, Found)>> = Mutex::new(Vec::new());

impl Opening {
    /// [`probe`](Self::probe) on this thread. In a browser it probes nothing, because callbacks
    /// come only after this returns.
    pub fn probe_now(&self, paths: FastPaths) -> Found {
        if cfg!(target_arch = "wasm32") {
            return Found { paths: paths.without_proof(), findings: None };
        }
        let mut found = self.probe(paths);
        loop {
            if let Some(found) = (&mut found).now_or_never() {
                return found;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The fast paths at which the driver is sound, and other findings. Ends after [`DEADLINE`] at
    /// the latest.
    ///
    /// Boxed, and so compiled once, not by each application that awaits it.
    pub fn probe(&self, paths: FastPaths) -> BoxFuture<'_, Found> {
        self.probe_paths(paths).boxed()
    }

    async fn probe_paths(&self, paths: FastPaths) -> Found {
        let adapter = self.device.adapter_info();
        let backend = adapter.backend;
        if backend == wgpu::Backend::Noop {
            // The no-op backend runs nothing.
            return Found { paths: paths.without_proof(), findings: None };
        }
        let asked = self.offered(paths);
        // Quads need no proof.
        let key = Key { adapter, features: self.device.features(), asked: asked.with_quads(true) };
        let known = trace::lock(&KNOWN)
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, found)| found.clone());
        let is_known = known.is_some();
        let found = match known {
            Some(found) => Found { paths: found.paths.with_quads(asked.quads), ..found },
            None => {
                let (paths, findings) =
                    judge(asked, &self.ask(asked, DEADLINE, Question::source).await);
                Found { paths, findings: Some(Arc::new(findings)) }
            }
        };
        let defects = || found.findings.iter().flat_map(|findings| &findings.defects);
        for defect in defects() {
            trace::defect(&self.name, defect);
        }
        let is_complete = !defects().any(|defect| matches!(defect, Defect::NoAnswer { .. }));
        // Two instances may compile for one adapter of DX12 by different compilers.
        if !is_known && is_complete && backend != wgpu::Backend::Dx12 {
            trace::lock(&KNOWN).push((key, found.clone()));
        }
        found
    }

    /// Answers to the questions of these fast paths that come within a deadline, by kernels of
    /// these sources.
    async fn ask(
        &self,
        asked: FastPaths,
        deadline: Duration,
        source_of: impl Fn(Question) -> String,
    ) -> Vec<(Question, Answer)> {
        let mut answers = Vec::new();
        let mut kernels = Vec::new();
        for question in Question::ALL.into_iter().filter(|question| question.is_asked(asked)) {
            // Each in a scope of its own: a driver that refuses one kernel still answers the
            // others.
            let scope = Scope::on(&self.device, &self.name, "building a probe");
            let kernel = Kernel::new(&self.device, question, source_of(question));
            match scope.close().await {
                Ok(()) => kernels.push(kernel),
                Err(error) => answers.push((question, Err(error.to_string()))),
            }
        }
        match self.run(&kernels, deadline).await {
            Ok(found) => answers.extend(
                kernels.iter().map(|kernel| kernel.question).zip(found.into_iter().map(Ok)),
            ),
            Err(error) => answers
                .extend(kernels.iter().map(|kernel| (kernel.question, Err(error.to_string())))),
        }
        answers
    }

    /// Output of each kernel.
    async fn run(&self, kernels: &[Kernel], deadline: Duration) -> Result<Vec<Vec<u32>>, Error> {
        if kernels.is_empty() {
            return Ok(Vec::new());
        }
        let scope = Scope::on(&self.device, &self.name, PHASE);
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(PHASE) };
        let mut encoder = self.device.create_command_encoder(&descriptor);
        let params = self.buffer(bytemuck::bytes_of(&Params::ALL), wgpu::BufferUsages::UNIFORM);
        let answers: Vec<wgpu::Buffer> =
            kernels.iter().map(|kernel| self.dispatch(kernel, &params, &mut encoder)).collect();
        let size = answers.iter().map(wgpu::Buffer::size).sum();
        let staging =
            self.allocate(size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut end = 0;
        for answer in &answers {
            encoder.copy_buffer_to_buffer(answer, 0, &staging, end, answer.size());
            end += answer.size();
        }
        trace::submission();
        let submission = self.queue.submit([encoder.finish()]);
        let refused = |message: String| GpuError::Readback { device: self.name.clone(), message };
        let mapped = self.poller.watch(submission, deadline, |reply| {
            let device = self.name.clone();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                reply.send(
                    result
                        .map_err(|error| GpuError::Readback { device, message: error.to_string() }),
                );
            });
        });
        scope.close().await?;
        mapped.await?;
        let view = staging.get_mapped_range(..).map_err(|error| refused(error.to_string()))?;
        let mut words: Vec<u32> = bytemuck::pod_collect_to_vec(&view[..]);
        Ok(kernels
            .iter()
            .map(|kernel| words.drain(..kernel.question.answer_words()).collect())
            .collect())
    }

    /// Records a kernel with its inputs. Returns the buffer that it writes.
    fn dispatch(
        &self,
        kernel: &Kernel,
        params: &wgpu::Buffer,
        encoder: &mut wgpu::CommandEncoder,
    ) -> wgpu::Buffer {
        let question = kernel.question;
        let storage = wgpu::BufferUsages::STORAGE;
        let inputs =
            question.inputs().map(|words| self.buffer(bytemuck::cast_slice(&words), storage));
        let answer = self
            .allocate(4 * question.answer_words() as u64, storage | wgpu::BufferUsages::COPY_SRC);
        let buffers = inputs.iter().chain([&answer]).map(wgpu::Buffer::as_entire_binding);
        let group = kernel.pipeline.bind(&self.device, params, buffers);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        kernel.pipeline.dispatch(&mut pass, &group, [question.workgroups(), 1]);
        drop(pass);
        answer
    }

    fn buffer(&self, contents: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.allocate(contents.len() as u64, usage | wgpu::BufferUsages::COPY_DST);
        self.queue.write_buffer(&buffer, 0, contents);
        buffer
    }

    fn allocate(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        trace::allocation(size);
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn probe"),
            size,
            usage,
            mapped_at_creation: false,
        })
    }
}

/// A question's kernel, compiled.
struct Kernel {
    question: Question,
    pipeline: Pipeline,
}

impl Kernel {
    fn new(device: &wgpu::Device, question: Question, source: String) -> Self {
        let storage = [Access::Read; INPUTS].into_iter().chain([Access::Write]);
        let pipeline = Pipeline::new(device, question.name(), source, storage, false);
        Self { question, pipeline }
    }
}

#[cfg(test)]
mod tests;
