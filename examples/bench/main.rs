//! Times the layer: every pass beside a copy kernel that moves the same bytes, measured in turn on
//! the same adapter.
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
mod names;
mod options;
mod report;
mod run;
mod timestamps;
mod timing;
mod workloads;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use devices::Machine;
use names::{DTYPES, EPILOGUES, LAYOUTS, name_of};
use options::Options;
use report::Report;
use run::Run;
use workloads::Pass;

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
            return Err(format!(
                "{name} has a batch of {batch}, which cannot be cut over {ranks} devices"
            )
            .into());
        }
    }
    let machine = pollster::block_on(devices::open(
        options.adapter.as_deref(),
        options.ranks(),
        options.shared_device,
    ))?;
    let mut report = Report::new(options.json);
    report.remark(&headline(options, &machine))?;
    let progress = progress(options);
    for workload in options.workloads() {
        progress.set_message(workload.name);
        let (form, repeats) = (options.form(), options.repeats());
        let (quick, reuse) = (options.quick, options.reuse);
        let run = Run { machine: &machine, workload, form, repeats, quick, reuse };
        run.lines(|| progress.inc(1), |line| Ok(progress.suspend(|| report.line(&line))?))?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// What holds for every row.
fn headline(options: &Options, machine: &Machine) -> String {
    let devices = if options.ranks() == 1 { "device" } else { "devices" };
    let place =
        if options.shared_device && options.ranks() > 1 { ", all ranks on one" } else { "" };
    let clock = if machine.has_clock() {
        "by the devices' own clocks"
    } else {
        "wall times, as no device tells its own"
    };
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
