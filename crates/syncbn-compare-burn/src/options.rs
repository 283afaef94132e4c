//! Owns the command line.

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::workloads::{self, Workload};

/// Times Burn's batch normalization beside syncbn's, on the same device and shapes.
#[derive(Debug, Parser)]
#[command(name = "syncbn-compare-burn")]
pub struct Options {
    /// Workloads to run: groups or single names, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
          default_value = "rn_128x28,rn_2048x7,mlp,tiny",
          value_parser = PossibleValuesParser::new(workloads::names()))]
    workloads: Vec<String>,

    /// A ResNet-18 for pictures of 32×32, too, whose first stage has WIDTH channels
    #[arg(long, value_name = "WIDTH")]
    pub network: Option<usize>,

    /// Run on the first adapter whose name contains NAME, in any case [default: the first GPU, or
    /// a software driver]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,

    /// Timed repeats of every step
    #[arg(long, value_name = "COUNT", default_value_t = 15,
        value_parser = clap::value_parser!(u16).range(3..=10_000))]
    repeats: u16,
}

impl Options {
    /// The workloads that were asked for, each once, in the order of the list.
    pub fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        workloads::all()
            .filter(|workload| self.workloads.iter().any(|name| workload.answers_to(name)))
    }

    /// Timed repeats of every step.
    pub fn repeats(&self) -> usize {
        self.repeats.into()
    }
}
