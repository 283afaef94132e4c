//! Owns the command line: the options, their meaning, and the refusal of wrong ones.

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use syncbn::{DType, Layout, low_level::Epilogue};

use syncbn_bench::inputs::Form;
use syncbn_bench::names::{DTYPES, EPILOGUES, LAYOUTS};
use syncbn_bench::workloads::{self, Workload};

/// Times the passes of a layer beside a copy kernel that moves the same bytes.
///
/// Forward in training, backward and evaluation run in turn with the copy, on the same
/// adapter and in the same run. A table shows medians with quartiles; --json prints
/// one line per workload and pass instead. Outputs are checked once per workload
/// against the definition in f64. Before each timed run a GPU is kept busy for 5 ms,
/// so that it runs at full clock; software drivers and the host are not.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Options {
    /// Print JSON lines instead of a table
    #[arg(long)]
    pub json: bool,

    /// Workloads to run: groups or single names, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = workloads::ALL,
          value_parser = PossibleValuesParser::new(workloads::names()))]
    workloads: Vec<String>,

    /// Run on the adapters whose name contains NAME, in any case, or on the `host`
    /// [default: the first GPU; a software driver, or the host, where there is none]
    #[arg(long, value_name = "NAME", verbatim_doc_comment)]
    pub adapter: Option<String>,

    /// How activations are stored
    #[arg(long, default_value = "f32", value_parser = one_of(&DTYPES))]
    pub dtype: DType,

    /// Where the channel axis lies
    #[arg(long, default_value = "first", value_parser = one_of(&LAYOUTS))]
    pub layout: Layout,

    /// Operation after the normalization
    #[arg(long, default_value = "none", value_parser = one_of(&EPILOGUES))]
    pub epilogue: Epilogue,

    /// Keep no mask for backward with add_relu: it reads the residual again
    #[arg(long)]
    pub no_mask: bool,

    /// Number of ranks that the batch is cut over, each with a device of its own; with
    /// several numbers, separated by commas, a table for each
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=64), verbatim_doc_comment)]
    devices: Vec<u16>,

    /// Put all ranks on one GPU, where they merge statistics without the host
    #[arg(long)]
    pub shared_device: bool,

    /// Timed repeats of every pass
    #[arg(long, value_name = "COUNT", default_value_t = 21,
        value_parser = clap::value_parser!(u16).range(3..=10_000))]
    repeats: u16,

    /// Use one set of tensors again and again, forward and backward in turn, without a copy in
    /// between: a call may then find data of the previous one in a cache, as in other tools that
    /// measure so
    #[arg(long, verbatim_doc_comment)]
    pub reuse: bool,

    /// Time a layer with reproducible sums too, in turn with the ordinary one
    #[arg(long)]
    pub reproducible: bool,

    /// Few repeats over little memory: a test that it runs, without useful times
    #[arg(long, conflicts_with = "repeats")]
    pub quick: bool,
}

const EXAMPLES: &str = "\
Workloads:
  resnet50  rn_64x112, rn_256x56, rn_128x28, rn_512x28, rn_1024x14, rn_2048x7
  mlp       mlp_4096x1024
  video     video
  points    pointcloud
  tiny      tiny
  growth    1MB, 2MB, 4MB to 1GB, 2GB, the bytes of x in f32; not among `all`

Examples:
  cargo run --release -p syncbn-bench
  cargo run --release -p syncbn-bench -- --workloads resnet50,tiny --epilogue add_relu
  cargo run --release -p syncbn-bench -- --adapter llvmpipe --dtype f16 --layout last
  cargo run --release -p syncbn-bench -- --adapter host --json > host.jsonl
  cargo run --release -p syncbn-bench -- --reuse --workloads growth
  cargo run --release -p syncbn-bench -- --workloads rn_512x28 --devices 1,2,4,8,16,32";

/// Timed repeats of a quick run.
const QUICK_REPEATS: usize = 3;

impl Options {
    /// The workloads that were asked for, each once, in the order of the list.
    pub fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        workloads::all()
            .filter(|workload| self.workloads.iter().any(|name| workload.answers_to(name)))
    }

    /// Numbers of ranks, each of which has a run.
    pub fn ranks(&self) -> impl Iterator<Item = usize> {
        self.devices.iter().map(|&count| count.into())
    }

    /// Storage type, layout and epilogue of tensors and layers.
    pub fn form(&self) -> Form {
        // Backward of a curve needs v, and not a bit.
        let mask = !self.no_mask && self.epilogue.curve().is_none();
        Form { dtype: self.dtype, layout: self.layout, epilogue: self.epilogue, mask }
    }

    /// Timed repeats of every pass.
    pub fn repeats(&self) -> usize {
        if self.quick { QUICK_REPEATS } else { self.repeats.into() }
    }
}

/// Reads one of these names.
fn one_of<T: Copy + Send + Sync>(
    choices: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let names = choices.iter().map(|(name, _)| *name);
    PossibleValuesParser::new(names.collect::<Vec<_>>()).try_map(move |given| {
        let found = choices.iter().find(|(name, _)| *name == given);
        found.map(|(_, value)| *value).ok_or_else(|| format!("{given} is not known"))
    })
}

#[cfg(test)]
mod tests {
    use syncbn_bench::names::name_of;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()))
    }

    fn names(line: &str) -> Vec<&'static str> {
        parse(line).expect("valid options").workloads().map(|workload| workload.name).collect()
    }

    #[test]
    fn without_options_every_workload_runs_on_one_device() {
        let options = parse("").expect("valid options");
        assert_eq!(options.workloads().count(), workloads::WORKLOADS.len());
        assert_eq!(
            (options.ranks().collect(), options.dtype, options.layout),
            (vec![1], DType::F32, Layout::ChannelsFirst)
        );
        assert!(options.repeats() >= 15);
    }

    #[test]
    fn workloads_are_groups_or_names_and_run_once() {
        assert_eq!(names("--workloads tiny,rn_2048x7"), ["rn_2048x7", "tiny"]);
        assert_eq!(names("--workloads resnet50,rn_2048x7").len(), 6);
        assert_eq!(names("--workloads points"), ["pointcloud"]);
        assert_eq!(names("--workloads growth").len(), 12);
        let several = parse("--devices 1,2,64").expect("valid options");
        assert_eq!(several.ranks().collect::<Vec<_>>(), [1, 2, 64]);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for (line, allowed) in [
            ("--workloads resnet", "resnet50"),
            ("--dtype f64", "bf16"),
            ("--layout nhwc", "last"),
            ("--epilogue mish", "add_gelu"),
            ("--devices 0", "1..=64"),
            ("--repeats 2", "3..=10000"),
        ] {
            let refused = parse(line).expect_err("an unknown value").to_string();
            assert!(refused.contains(allowed), "{line}: {refused}");
        }
        assert!(parse("--quick --repeats 5").is_err());
    }

    #[test]
    fn values_have_the_names_they_are_given_by() {
        let options =
            parse("--dtype bf16 --layout last --epilogue add_relu").expect("valid options");
        assert_eq!(name_of(&DTYPES, &options.dtype), "bf16");
        assert_eq!(name_of(&LAYOUTS, &options.layout), "last");
        assert_eq!(name_of(&EPILOGUES, &options.epilogue), "add_relu");
        let options = parse("--epilogue add_elu").expect("valid options");
        assert_eq!(name_of(&EPILOGUES, &options.epilogue), "add_elu");
    }
}
