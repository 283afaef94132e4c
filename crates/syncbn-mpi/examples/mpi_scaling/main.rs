//! The cost of exchanges in a training step of ResNet-50 with 8 to 65,536 ranks, computed from
//! measurements of this run.
//!
//! `scripts/mpi.sh 2 scaling -- --help` describes it and its options. `measure` takes the times of
//! messages and of merging, `model` computes, `plot` draws.

mod measure;
mod model;
mod plot;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use syncbn_mpi::Mpi;

use measure::Costs;
use model::{GROUP, RANKS, Way};

/// Cost of the exchanges of a training step of ResNet-50 with 8 to 65,536 ranks.
///
/// Measured between ranks 0 and 1, in this run: how long a message takes by itself, how
/// long each of many at once, both with few bytes and with many, and how long a rank
/// takes to decode and merge one. Computed of it is the time of the 106 exchanges of a
/// step (53 layers, forward and backward) in three ways: everyone gathers everything;
/// messages merge along the tree; process groups, which gather among themselves.
#[derive(Debug, Parser)]
#[command(name = "mpi_scaling", verbatim_doc_comment)]
struct Args {
    /// Time of a short message from rank to rank in microseconds, of another network
    /// [default: as measured]
    #[arg(long, value_name = "US", verbatim_doc_comment)]
    latency: Option<f64>,

    /// Bytes per second and direction of another network, in gigabytes
    /// [default: as measured]
    #[arg(long, value_name = "GB", verbatim_doc_comment)]
    bandwidth: Option<f64>,

    /// Where the plot goes, a PNG file [default: the project's target/scaling.png]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a failure of this.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mpi = Mpi::initialize()?;
    let mut costs = Costs::measure(&mpi)?;
    if mpi.rank() != 0 {
        return Ok(());
    }
    if let Some(latency) = args.latency {
        costs.alone.fixed = latency * 1e-6;
    }
    if let Some(bandwidth) = args.bandwidth {
        costs.alone.per_byte = 1e-9 / bandwidth;
        costs.of_many.per_byte = costs.of_many.per_byte.max(1e-9 / bandwidth);
    }
    let mut text =
        format!("{costs}\nMilliseconds of a step for its {} exchanges:\n\n", model::exchanges());
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ranks", "gathered", "merged", "groups of 8"]);
    table.column_iter_mut().for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    for ranks in RANKS {
        let times = [Way::Gathered, Way::Merged, Way::Groups(GROUP)]
            .map(|way| format!("{:.2}", 1e3 * way.step_seconds(&costs, ranks)));
        table.add_row([ranks.to_string()].into_iter().chain(times));
    }
    text += &format!("{table}\n");
    if let Some(ranks) = (2..).take(1 << 16).find(|&ranks| model::merging_pays(&costs, ranks)) {
        text += &format!(
            "\nAll-reduce along the tree costs less than gathering from {ranks} ranks on.\n"
        );
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = args.output.clone().unwrap_or_else(|| project.join("target/scaling.png"));
    plot::draw(&costs, &file)?;
    text += &format!("Plot: {}\n", file.display());
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
