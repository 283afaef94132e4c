//! Owns the run of one workload: its outputs are checked, then every pass is timed beside its copy.

use std::error::Error;

use crate::check;
use crate::copy::Copier;
use crate::devices::Machine;
use crate::exchange::{Exchange, Exchanged};
use crate::inputs::{self, Form};
use crate::layer::Layer;
use crate::measure::{Bench, Measured};
use crate::names::{DTYPES, EPILOGUES, LAYOUTS, name_of};
use crate::output::Line;
use crate::workloads::{Pass, Workload};

/// The workload of a run, and the number of repeats.
pub struct Run<'a> {
    pub machine: &'a Machine,
    pub workload: &'static Workload,
    pub form: Form,
    /// Timed repeats of every pass.
    pub repeats: usize,
    /// Whether tensors need not exceed the caches.
    pub quick: bool,
    /// Whether one set of tensors is used again and again.
    pub reuse: bool,
    /// Whether a reproducible layer is timed too, in turn with the ordinary one.
    pub reproducible: bool,
}

impl Run<'_> {
    /// Hands over a line per pass as soon as it is measured; `tick` is called after each repeat.
    ///
    /// # Errors
    ///
    /// Where the layer or the copy fails, or the outputs are not those of the definition.
    pub fn lines(
        &self,
        tick: impl Fn(),
        mut line: impl FnMut(Line) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let Self { machine, workload, form, repeats, .. } = *self;
        let mut layers = vec![Layer::new(workload.channels(), form, machine)?];
        if self.reproducible {
            layers.push(Layer::reproducible(workload.channels(), form, machine)?);
        }
        let rotation = inputs::rotation(workload, form, self.quick);
        let mut sets =
            inputs::sets(workload, form, &machine.ranks, if self.reuse { 1 } else { rotation })?;
        for layer in &mut layers {
            check::outputs(layer, workload, form, &mut sets[0]).map_err(|wrong| {
                format!("{} does not compute what it should: {wrong}", workload.name)
            })?;
        }
        let bytes = workload.bytes(form.dtype);
        let mut copier =
            Copier::new(machine, &shares(workload, machine, bytes), rotation as usize)?;
        let mut exchange = Exchange::new(machine, workload.channels(), form, repeats)?;
        let copier = &mut copier;
        let sets = &mut sets;
        let mut bench = Bench { machine, layers: &mut layers, sets, copier, repeats };
        let tensors = |pass: Pass| pass.tensors_moved(form.epilogue, form.dtype, form.mask);
        let reused = if self.reuse { Some(bench.reused(tensors, &tick)?) } else { None };
        for (index, pass) in Pass::ALL.into_iter().enumerate() {
            let measured = match &reused {
                Some(measured) => measured[index],
                None => bench.pass(pass, tensors(pass), &tick)?,
            };
            let exchanged = exchange.measure(machine, pass)?;
            line(self.line(pass, measured, exchanged))?;
        }
        Ok(())
    }

    fn line(&self, pass: Pass, measured: Measured, exchanged: Option<Exchanged>) -> Line {
        let Self { machine, workload, form, .. } = self;
        let tensors = pass.tensors_moved(form.epilogue, form.dtype, form.mask);
        let bytes = (tensors * workload.bytes(form.dtype) as f64) as u64;
        let gb_per_s = |milliseconds: f64| bytes as f64 / milliseconds / 1e6;
        Line {
            workload: workload.name,
            shape: workload.dims,
            pass: pass.name(),
            dtype: name_of(&DTYPES, &form.dtype),
            layout: name_of(&LAYOUTS, &form.layout),
            epilogue: name_of(&EPILOGUES, &form.epilogue),
            devices: machine.ranks.len(),
            adapter: machine.adapter.clone(),
            bytes,
            device_ms: measured.device.median,
            wall_ms: measured.wall.median,
            wall_min_ms: measured.wall.least,
            gb_per_s: gb_per_s(measured.device.median),
            copy_gb_per_s: gb_per_s(measured.copy.median),
            copy_ratio: measured.ratio.median,
            exchange_us: exchanged.map(|exchanged| exchanged.exchange_us),
            bare_exchange_us: exchanged.map(|exchanged| exchanged.bare_exchange_us),
            round_trip_us: exchanged.map(|exchanged| exchanged.round_trip_us),
            spread: [measured.device, measured.wall],
            copied_by: measured.copied_by,
            reproducible_ms: measured.reproducible.map(|of| of.device.median),
            reproducible_ratio: measured.reproducible.map(|of| of.ratio.median),
            reproducible_spread: measured.reproducible.map(|of| of.ratio),
        }
    }
}

/// The bytes of x that lie on each GPU, or all of them on the host.
fn shares(workload: &Workload, machine: &Machine, bytes: u64) -> Vec<u64> {
    if machine.gpus.len() != machine.ranks.len() {
        return vec![bytes];
    }
    let per_sample = bytes / workload.batch() as u64;
    workload.shards(machine.ranks.len()).iter().map(|dims| dims[0] as u64 * per_sample).collect()
}
