//! A report that any user can send about a GPU: whether syncbn computes correctly on it, and its
//! speed.
//!
//! `cargo run --release -p syncbn-bench --bin report -- --help` lists the options. The sections, in
//! their order:
//!
//! ```text
//! targets      the files, opened first
//! machine      adapter, driver, limits, features, fast paths
//! conformance  golden cases of other programs
//! kernels      every storage type, layout and epilogue
//! accuracy     hard inputs against the definition in f64
//!              each of the three: problem -> layers -> judge -> shrink, where it fails
//! passes       each pass beside a copy of the same bytes, the exchange beside bare programs:
//!              the measurement of `bench`
//! ```

mod check;
mod golden;
mod hard;
mod judge;
mod layers;
mod machine;
mod markdown;
mod options;
mod problem;
mod record;
mod shrink;
mod sizes;
mod targets;
#[cfg(test)]
mod tests;
mod timed;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pollster::block_on;
use syncbn::Device;
use syncbn_bench::devices::{self, Machine};

use layers::{Layers, OnDevice};
use machine::Facts;
use options::{Effort, Options};
use record::Report;
use targets::Targets;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is no other place to report a failure of this.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything passed.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    if options.list_adapters {
        let lines: Vec<String> = block_on(Device::adapters()).iter().map(machine::line).collect();
        lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))?;
        return Ok(true);
    }
    // First: a report takes a minute, and must have a place to go to.
    let targets = Targets::open(options)?;
    let machine = block_on(devices::open(options.adapter.as_deref(), 1, false))?;
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let report = report(&machine, &OnDevice(machine.ranks[0].clone()), effort)?;
    let unwritten = targets.write(&report, &mut io::stdout()).err().unwrap_or_default();
    unwritten.iter().try_for_each(|error| writeln!(io::stderr(), "error: {error}"))?;
    if options.markdown.is_some() {
        writeln!(io::stderr(), "{}", report.verdict())?;
    }
    Ok(report.passed && unwritten.is_empty())
}

/// Runs every section. Progress goes to standard error.
fn report(
    machine: &Machine,
    layers: &dyn Layers,
    effort: Effort,
) -> Result<Report, Box<dyn Error>> {
    let mut seconds = Vec::new();
    let mut ended = |section: &'static str, started: Instant| {
        let took = started.elapsed().as_secs_f64();
        seconds.push((section, took));
        writeln!(io::stderr(), "{section}: {took:.1} s")
    };
    let facts = Facts::of(&machine.ranks[0]);
    writeln!(io::stderr(), "{}", machine.adapter)?;
    facts.notice().into_iter().try_for_each(|notice| writeln!(io::stderr(), "{notice}"))?;
    let started = Instant::now();
    let conformance = check::conformance(layers, effort.cases)?;
    ended("conformance", started)?;
    let started = Instant::now();
    let kernels = check::kernels(layers, effort.epilogues);
    ended("kernels", started)?;
    let started = Instant::now();
    let accuracy = check::accuracy(layers, effort.sizes);
    ended("accuracy", started)?;
    let started = Instant::now();
    let passes = timed::passes(machine, layers, effort)?;
    ended("passes", started)?;
    let mut failures = conformance.failures;
    failures.extend(kernels.failures);
    failures.extend(accuracy.failures);
    failures.extend(passes.failures);
    Ok(Report {
        schema: record::SCHEMA,
        passed: failures.is_empty(),
        quick: effort.quick,
        version: machine::version_of("syncbn"),
        wgpu: machine::version_of("wgpu"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        machine: facts,
        conformance: conformance.checked,
        kernels: kernels.checked,
        accuracy: accuracy.checked,
        passes: passes.timed,
        passes_left_out: passes.left_out,
        failures,
        seconds,
    })
}
