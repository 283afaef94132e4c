//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;

/// Synchronized batch normalization of photos, each shard of the batch on its own device.
///
/// The photos form one batch (N, 3, H, W) with pixel values from 0 to 255. It is cut
/// into contiguous shards, one for each device; where photos are fewer than devices,
/// the last shards are empty. Every device takes the statistics of its shard, the host
/// merges them, and every device normalizes its shard with those of the whole batch.
///
/// Printed are the statistics of every device and of the group, how far the result is
/// from the definition in f64 and from a run on one device, and the time and bytes of
/// each phase. Drawn are the photos as they are, normalized each on its own, and
/// normalized together. A result further off than rounding explains is an error.
#[derive(Debug, Parser)]
#[command(name = "quickstart", after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Args {
    /// Number of devices. Every real GPU gives one device, then further ones are
    /// opened on the same GPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=MAX_DEVICES))]
    #[arg(verbatim_doc_comment)]
    devices: u16,

    /// Take the adapters whose name contains NAME, in any case, or `host` for the
    /// processor without a driver [default: real GPUs, else a software adapter,
    /// else the host]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    pub adapter: Option<String>,

    /// Folder of PNG files, all of one size, taken in the order of their names
    /// [default: the project's four photos]
    #[arg(long, value_name = "FOLDER", verbatim_doc_comment)]
    input: Option<PathBuf>,

    /// Where the picture goes, a PNG file [default: the project's
    /// target/quickstart.png]
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    output: Option<PathBuf>,
}

/// Beyond this a machine runs out of device handles and the tables out of sense.
const MAX_DEVICES: i64 = 64;

const EXAMPLES: &str = "\
Examples:
  cargo run --release --example quickstart
  cargo run --release --example quickstart -- --devices 3
  cargo run --release --example quickstart -- --devices 2 --adapter host
  cargo run --release --example quickstart -- --input my/photos --output normalized.png";

impl Args {
    pub fn devices(&self) -> usize {
        usize::from(self.devices)
    }

    pub fn input(&self) -> PathBuf {
        self.input.clone().unwrap_or_else(|| project().join("examples/data/photos"))
    }

    pub fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| project().join("target/quickstart.png"))
    }
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_device_and_too_many_devices_are_refused() {
        let devices = |count| {
            Args::try_parse_from(["quickstart", "--devices", count]).map(|args| args.devices())
        };
        assert!(devices("0").is_err());
        assert!(devices("65").is_err());
        assert_eq!(devices("64").ok(), Some(64));
    }
}
