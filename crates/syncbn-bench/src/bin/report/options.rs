//! Owns the command line.

use std::path::PathBuf;

use clap::Parser;

/// Reports whether syncbn computes correctly on an adapter, and how fast.
///
/// The report has the adapter and its driver, golden cases, every kind of kernel, the accuracy on
/// hard inputs, every pass beside a copy of the same bytes, and the exchange beside a bare round
/// trip. It takes about a minute. Markdown goes to standard output: paste it into an issue. The
/// exit status is 1 if anything failed; the report then has the smallest input that fails.
#[derive(Debug, Default, Parser)]
#[command(name = "report", verbatim_doc_comment)]
pub struct Options {
    /// Use the first adapter whose name contains NAME, in any case, or the `host`
    /// [default: the first GPU; a software driver, or the host, where there is none]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    pub adapter: Option<String>,

    /// Check fewer cases and time fewer repeats: seconds instead of a minute
    #[arg(long)]
    pub quick: bool,

    /// Write the Markdown to FILE instead of standard output
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Write the report as JSON to FILE, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Print one line per adapter (device type, backend, name, driver, `f64` or `no f64`; separated
    /// by tabs) and end
    #[arg(long)]
    pub list_adapters: bool,
}

/// How much is checked and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Golden cases at most.
    pub cases: usize,
    /// Epilogues at most, with every storage type and layout.
    pub epilogues: usize,
    /// Sizes of each hard case at most.
    pub sizes: usize,
    /// Timed repeats of every pass.
    pub repeats: usize,
    /// Whether only the smallest tensors are timed.
    pub smallest: bool,
    /// Whether this is less than everything.
    pub quick: bool,
}

impl Effort {
    /// About a minute.
    pub const FULL: Self = Self {
        cases: usize::MAX,
        epilogues: usize::MAX,
        sizes: usize::MAX,
        repeats: 15,
        smallest: false,
        quick: false,
    };
    /// Seconds.
    pub const QUICK: Self =
        Self { cases: 4, epilogues: 1, sizes: 1, repeats: 3, smallest: true, quick: true };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_documentation() {
        let line = "report --adapter llvmpipe --quick --markdown a.md --json a.json";
        let options = Options::try_parse_from(line.split_whitespace()).expect("valid options");
        assert_eq!(options.adapter.as_deref(), Some("llvmpipe"));
        assert!(
            options.quick
                && options.markdown.is_some()
                && options.json.is_some()
                && !options.list_adapters
        );
        assert!(Options::try_parse_from(["report", "llvmpipe"]).is_err());
    }
}
