//! Times the layer: every pass beside a copy kernel that moves the same bytes, measured in turn on
//! the same adapter.
//!
//! `cargo run --release -p syncbn-bench -- --help` lists the options.

mod options;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use syncbn_bench::devices::{self, Machine};
use syncbn_bench::names::{DTYPES, EPILOGUES, LAYOUTS, name_of};
use syncbn_bench::output::Output;
use syncbn_bench::run::Run;
use syncbn_bench::workloads::Pass;

use options::Options;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a failure of this.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let most = options.ranks().max().unwrap_or(1);
    for workload in options.workloads() {
        let name = workload.name;
        let batch = workload.batch();
        let ranks = most;
        if ranks > batch {
            return Err(format!(
                "{name} has a batch of {batch}, which cannot be cut over {ranks} devices"
            )
            .into());
        }
    }
    options.ranks().try_for_each(|ranks| run_over(options, ranks))
}

/// The run over so many ranks.
fn run_over(options: &Options, ranks: usize) -> Result<(), Box<dyn Error>> {
    let adapter = options.adapter.as_deref();
    let machine = pollster::block_on(devices::open(adapter, ranks, options.shared_device))?;
    let mut output = Output::new(options.json);
    output.remark(&headline(options, &machine))?;
    let measured = measure(options, &machine, &mut output);
    // Prints the rows before a failure too.
    output.finish()?;
    measured
}

fn measure(
    options: &Options,
    machine: &Machine,
    output: &mut Output,
) -> Result<(), Box<dyn Error>> {
    let progress = progress(options);
    for workload in options.workloads() {
        progress.set_message(workload.name);
        let run = Run {
            machine,
            workload,
            form: options.form(),
            repeats: options.repeats(),
            quick: options.quick,
            reuse: options.reuse,
            reproducible: options.reproducible,
        };
        run.lines(|| progress.inc(1), |line| Ok(progress.suspend(|| output.line(&line))?))?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// The line above the table, valid for every row.
fn headline(options: &Options, machine: &Machine) -> String {
    let ranks = machine.ranks.len();
    let devices = if ranks == 1 { "device" } else { "devices" };
    let place = if options.shared_device && ranks > 1 { ", all ranks on one" } else { "" };
    let clock = if machine.has_clock() {
        "by the devices' own clocks"
    } else {
        "wall times, as no device measures its own"
    };
    format!(
        "{} {devices}{place}: {}; {}, channels {}, epilogue {}\n\
         Medians and quartiles of {} repeats; device times are {clock}\n\n",
        ranks,
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
