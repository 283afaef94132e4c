//! Times the layer: every pass beside a copy kernel that moves the same bytes, measured in turn on the same adapter.
//!
//! `cargo run --release --example bench -- --help` lists the options. The way of one workload:
//!
//! ```text
//! random tensors, several sets  ->  forward, backward, evaluation, each in turn with the copy  ->  a line of the table each
//!                               ->  outputs of one set, checked once against the definition in f64
//! ```

mod check;
mod copy;
mod devices;
mod exchange;
mod inputs;
mod layer;
mod measure;
mod options;
mod report;
mod timestamps;
mod timing;
mod workloads;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use copy::Copier;
use devices::Machine;
use exchange::{Exchange, Exchanged};
use layer::Layer;
use measure::{Bench, Measured};
use options::{DTYPES, EPILOGUES, LAYOUTS, Options, name_of};
use report::{Line, Report};
use workloads::{Pass, Workload};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    for workload in options.workloads() {
        let (name, batch, ranks) = (workload.name, workload.batch(), options.ranks());
        if ranks > batch {
            return Err(format!("{name} has a batch of {batch}, which cannot be cut over {ranks} devices").into());
        }
    }
    let machine =
        pollster::block_on(devices::open(options.adapter.as_deref(), options.ranks(), options.shared_device))?;
    let mut report = Report::new(options.json);
    report.remark(&headline(options, &machine))?;
    let progress = progress(options);
    for workload in options.workloads() {
        progress.set_message(workload.name);
        run_workload(options, &machine, workload, &progress, &mut report)?;
    }
    progress.finish_and_clear();
    Ok(())
}

fn run_workload(
    options: &Options,
    machine: &Machine,
    workload: &'static Workload,
    progress: &ProgressBar,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let form = options.form();
    let mut layer = Layer::new(workload.channels(), form, machine)?;
    let rotation = inputs::rotation(workload, form, options.quick);
    let mut sets = inputs::sets(workload, form, &machine.ranks, if options.reuse { 1 } else { rotation })?;
    check::outputs(&mut layer, workload, form, &mut sets[0])
        .map_err(|wrong| format!("{} does not compute what it should: {wrong}", workload.name))?;
    let bytes = workload.bytes(form.dtype);
    let mut copier = Copier::new(machine, &shares(workload, machine, bytes), rotation as usize)?;
    let mut exchange = Exchange::new(machine, workload.channels(), form, options.repeats())?;
    let (copier, sets, repeats) = (&mut copier, &mut sets, options.repeats());
    let mut bench = Bench { machine, layer: &mut layer, sets, copier, repeats };
    let tensors = |pass: Pass| pass.tensors_moved(form.epilogue, form.dtype, form.mask);
    let reused = if options.reuse { Some(bench.reused(tensors, || progress.inc(1))?) } else { None };
    for (index, pass) in Pass::ALL.into_iter().enumerate() {
        let measured = match &reused {
            Some(measured) => measured[index],
            None => bench.pass(pass, tensors(pass), || progress.inc(1))?,
        };
        let exchanged = exchange.measure(machine, pass)?;
        let line = line(options, machine, workload, pass, measured, exchanged);
        progress.suspend(|| report.line(&line))?;
    }
    Ok(())
}

fn line(
    options: &Options,
    machine: &Machine,
    workload: &'static Workload,
    pass: Pass,
    measured: Measured,
    exchanged: Option<Exchanged>,
) -> Line {
    let form = options.form();
    let tensors = pass.tensors_moved(form.epilogue, form.dtype, form.mask);
    let bytes = (tensors * workload.bytes(form.dtype) as f64) as u64;
    let gb_per_s = |milliseconds: f64| bytes as f64 / milliseconds / 1e6;
    Line {
        workload: workload.name,
        shape: workload.dims,
        pass: pass.name(),
        dtype: name_of(&DTYPES, &options.dtype),
        layout: name_of(&LAYOUTS, &options.layout),
        epilogue: name_of(&EPILOGUES, &options.epilogue),
        devices: options.ranks(),
        adapter: machine.adapter.clone(),
        bytes,
        device_ms: measured.device.median,
        wall_ms: measured.wall.median,
        wall_min_ms: measured.wall.least,
        gb_per_s: gb_per_s(measured.device.median),
        copy_gb_per_s: gb_per_s(measured.copy.median),
        copy_ratio: measured.ratio.median,
        exchange_us: exchanged.map(|exchanged| exchanged.exchange_us),
        round_trip_us: exchanged.map(|exchanged| exchanged.round_trip_us),
        spread: [measured.device, measured.wall],
        copied_by: measured.copied_by,
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

/// What holds for every row.
fn headline(options: &Options, machine: &Machine) -> String {
    let devices = if options.ranks() == 1 { "device" } else { "devices" };
    let place = if options.shared_device && options.ranks() > 1 { ", all ranks on one" } else { "" };
    let clock =
        if machine.has_clock() { "by the devices' own clocks" } else { "wall times, as no device tells its own" };
    format!(
        "{} {devices}{place}: {}; {}, channels {}, epilogue {}\n\
         Medians and quartiles of {} repeats; device times are {clock}\n\n",
        options.ranks(),
        machine.adapter,
        name_of(&DTYPES, &options.dtype),
        name_of(&LAYOUTS, &options.layout),
        name_of(&EPILOGUES, &options.epilogue),
        options.repeats(),
    )
}

/// A bar on a terminal, and nothing elsewhere.
fn progress(options: &Options) -> ProgressBar {
    let steps = options.workloads().count() * Pass::ALL.len() * options.repeats();
    let bar = ProgressBar::new(steps as u64);
    // The template is a constant: one that does not parse leaves the standard one.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}
