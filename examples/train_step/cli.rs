//! The command line.

use clap::Parser;

/// Training of a perceptron over several ranks, beside the same training on one device.
///
/// A regression in two variables is learned by gradient descent: a linear layer, batch
/// normalization, tanh, a linear layer. The ranks are threads with a shard of the batch
/// each, of different sizes, and share the statistics of the batch; their gradients are
/// added up. The losses must be those of one device with the whole batch, up to
/// rounding: a larger difference is an error. A last column shows the losses when every
/// rank normalizes with the statistics of its own shard.
#[derive(Debug, Parser)]
#[command(name = "train_step", after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Args {
    /// Number of ranks
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=16))]
    ranks: u16,

    /// Number of samples in the batch, of all ranks together
    #[arg(long, value_name = "COUNT", default_value_t = 96, value_parser = clap::value_parser!(u16).range(64..=4096))]
    samples: u16,

    /// Number of steps
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,

    /// Open the ranks' devices on the first adapter whose name contains NAME, in any
    /// case, such as `llvmpipe` [default: host, the processor without a driver]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    pub adapter: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release --example train_step
  cargo run --release --example train_step -- --ranks 7 --steps 100
  cargo run --release --example train_step -- --adapter llvmpipe";

impl Args {
    pub fn ranks(&self) -> usize {
        self.ranks.into()
    }

    pub fn samples(&self) -> usize {
        self.samples.into()
    }

    pub fn steps(&self) -> usize {
        self.steps.into()
    }
}
