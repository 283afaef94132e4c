//! Names of a layer's tensors in the files of each framework, as tables that a caller can extend.

use std::borrow::Cow;

/// A template of a name: `{}` stands for the path of the layer, such as `layer1.0.bn1`.
type Template = Cow<'static, str>;

/// How a framework names the tensors of a batch normalization layer: a table with one template per
/// tensor, in which `{}` stands for the path of the layer.
///
/// [`known`](Self::known) lists the tables that a [`Checkpoint`](crate::state::Checkpoint) tries. A
/// table of your own differs from one of them in some fields:
///
/// ```
/// use syncbn::state::Naming;
/// let caffe = Naming {
///     framework: "Caffe2".into(),
///     weight: Some("{}_s".into()),
///     bias: Some("{}_b".into()),
///     running_mean: Some("{}_rm".into()),
///     running_var: Some("{}_riv".into()),
///     ..Naming::MINDSPORE
/// };
/// assert_eq!(caffe.names("conv1_bn")[0].as_deref(), Some("conv1_bn_s"));
/// ```
///
/// When a name is looked up, `/` and `.` are the same separator, and an ending `:0` is left out.
/// When a name is written, it is exactly what the template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The framework of these names, for messages.
    pub framework: Cow<'static, str>,
    /// Weight (gamma). `None`: files of this kind have none.
    pub weight: Option<Template>,
    /// Bias (beta).
    pub bias: Option<Template>,
    /// Running mean.
    pub running_mean: Option<Template>,
    /// Running variance.
    pub running_var: Option<Template>,
    /// Counter of training steps.
    pub num_batches_tracked: Option<Template>,
    /// Type of the counter in files that are written. All types are read.
    pub counter: Counter,
    /// Value of the entry `format` in the metadata of files that are written, such as `pt`.
    pub format: Option<Cow<'static, str>>,
}

/// The type of the counter of training steps in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counter {
    /// i64, as PyTorch writes it; u64 for a count that i64 does not hold.
    #[default]
    I64,
    /// f32, as versions of MindSpore's mint layer may have it. Counts above 2²⁴ are rounded.
    F32,
}

/// Number of tensors of a layer: weight, bias, running mean, running variance, counter.
pub(super) const TENSORS: usize = 5;

const fn table(
    framework: &'static str,
    vectors: [&'static str; 4],
    count: Option<&'static str>,
    counter: Counter,
    format: Option<&'static str>,
) -> Naming {
    const fn borrowed(name: Option<&'static str>) -> Option<Template> {
        match name {
            Some(name) => Some(Cow::Borrowed(name)),
            None => None,
        }
    }
    let [weight, bias, running_mean, running_var] = vectors;
    Naming {
        framework: Cow::Borrowed(framework),
        weight: borrowed(Some(weight)),
        bias: borrowed(Some(bias)),
        running_mean: borrowed(Some(running_mean)),
        running_var: borrowed(Some(running_var)),
        num_batches_tracked: borrowed(count),
        counter,
        format: borrowed(format),
    }
}

/// A table without a counter, and without an entry in the metadata.
const fn plain(framework: &'static str, vectors: [&'static str; 4]) -> Naming {
    table(framework, vectors, None, Counter::I64, None)
}

const TORCH_NAMES: [&str; 4] = ["{}.weight", "{}.bias", "{}.running_mean", "{}.running_var"];

impl Naming {
    /// PyTorch: `weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`. Files that
    /// are written say `{"format": "pt"}`.
    pub const TORCH: Self =
        table("PyTorch", TORCH_NAMES, Some("{}.num_batches_tracked"), Counter::I64, Some("pt"));

    /// PyTorch, saved from `DataParallel` or `DistributedDataParallel`, which put `module.` in
    /// front. Not among those [`known`](Self::known): a layer is one path in a file, not two.
    pub const TORCH_DATA_PARALLEL: Self = table(
        "PyTorch, data parallel",
        ["module.{}.weight", "module.{}.bias", "module.{}.running_mean", "module.{}.running_var"],
        Some("module.{}.num_batches_tracked"),
        Counter::I64,
        Some("pt"),
    );

    /// MindSpore's `nn` layers: `gamma`, `beta`, `moving_mean`, `moving_variance`, no counter.
    /// Files that are written say `{"format": "ms"}`.
    pub const MINDSPORE: Self = table(
        "MindSpore",
        ["{}.gamma", "{}.beta", "{}.moving_mean", "{}.moving_variance"],
        None,
        Counter::I64,
        Some("ms"),
    );

    /// MindSpore's `mint.nn` layers: PyTorch's names. MindSpore 2.7 to 2.10 loads a counter of type
    /// i64 alone; for a version that has it as f32, change [`counter`](Self::counter).
    pub const MINDSPORE_MINT: Self = table(
        "MindSpore mint",
        TORCH_NAMES,
        Some("{}.num_batches_tracked"),
        Counter::I64,
        Some("ms"),
    );

    /// Keras, by the path of a variable: `bn/gamma`, `bn/beta`, `bn/moving_mean`,
    /// `bn/moving_variance`. The older `bn/gamma:0` is read too.
    pub const KERAS: Self =
        plain("Keras", ["{}/gamma", "{}/beta", "{}/moving_mean", "{}/moving_variance"]);

    /// Keras's `.weights.h5`, which numbers the variables of a layer: `bn/vars/0` to `bn/vars/3`
    /// are gamma, beta, moving mean and moving variance. All four must be there. For a layer
    /// without gamma or beta, make a table in which the numbers after it are one less.
    pub const KERAS_NUMBERED: Self =
        plain("Keras, numbered", ["{}/vars/0", "{}/vars/1", "{}/vars/2", "{}/vars/3"]);

    /// Flax linen, in which parameters and statistics are two trees: `params/bn/scale`,
    /// `params/bn/bias`, `batch_stats/bn/mean`, `batch_stats/bn/var`.
    pub const FLAX: Self = plain(
        "Flax",
        ["params/{}/scale", "params/{}/bias", "batch_stats/{}/mean", "batch_stats/{}/var"],
    );

    /// Flax NNX: `bn.scale`, `bn.bias`, `bn.mean`, `bn.var`.
    pub const FLAX_NNX: Self = plain("Flax NNX", ["{}.scale", "{}.bias", "{}.mean", "{}.var"]);

    /// Paddle: `weight`, `bias`, `_mean`, `_variance`.
    pub const PADDLE: Self = plain("Paddle", ["{}.weight", "{}.bias", "{}._mean", "{}._variance"]);

    /// ONNX initializers under the names of the operator's inputs: `scale`, `B`, `input_mean`,
    /// `input_var`. Exporters choose names of their own: PyTorch's keeps those of
    /// [`TORCH`](Self::TORCH).
    pub const ONNX: Self = plain("ONNX", ["{}.scale", "{}.B", "{}.input_mean", "{}.input_var"]);

    /// Burn, and MXNet: `gamma`, `beta`, `running_mean`, `running_var`.
    pub const BURN: Self =
        plain("Burn", ["{}.gamma", "{}.beta", "{}.running_mean", "{}.running_var"]);

    /// The tables that a checkpoint tries, PyTorch's first.
    pub fn known() -> Vec<Self> {
        KNOWN.to_vec()
    }

    /// The same names with a prefix, such as `module.` or `model/`.
    pub fn behind(&self, prefix: &str) -> Self {
        let [weight, bias, running_mean, running_var, num_batches_tracked] =
            self.templates().map(|name| name.map(|name| format!("{prefix}{name}").into()));
        Self { weight, bias, running_mean, running_var, num_batches_tracked, ..self.clone() }
    }

    /// The names of the layer at a path: weight, bias, running mean, running variance, counter. The
    /// path is empty if the layer is the whole model. A separator at the end of the path is left
    /// out.
    pub fn names(&self, path: &str) -> [Option<String>; TENSORS] {
        let path = path.trim_end_matches(['.', '/']);
        self.templates().map(|template| template.map(|template| fill(template, path)))
    }

    pub(super) fn templates(&self) -> [Option<&str>; TENSORS] {
        [
            self.weight.as_deref(),
            self.bias.as_deref(),
            self.running_mean.as_deref(),
            self.running_var.as_deref(),
            self.num_batches_tracked.as_deref(),
        ]
    }

    /// Whether names are numbers. Then a missing tensor shifts the others.
    pub(super) fn is_numbered(&self) -> bool {
        self.running_mean
            .as_deref()
            .is_some_and(|name| name.ends_with(|c: char| c.is_ascii_digit()))
    }
}

/// The tables that a checkpoint tries, PyTorch's first.
pub(super) static KNOWN: [Naming; 9] = [
    Naming::TORCH,
    Naming::MINDSPORE,
    Naming::KERAS,
    Naming::KERAS_NUMBERED,
    Naming::FLAX,
    Naming::FLAX_NNX,
    Naming::PADDLE,
    Naming::ONNX,
    Naming::BURN,
];

/// The template with the path in its place.
fn fill(template: &str, path: &str) -> String {
    let (before, after) = template.split_once("{}").unwrap_or((template, ""));
    let after = if path.is_empty() { after.trim_start_matches(['.', '/']) } else { after };
    format!("{before}{path}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(naming: &Naming) -> [String; 2] {
        ["a.bn", ""].map(|path| naming.names(path)[0].clone().unwrap_or_default())
    }

    #[test]
    fn names_have_the_path_in_its_place_and_no_separator_without_one() {
        assert_eq!(weights(&Naming::TORCH), ["a.bn.weight", "weight"]);
        assert_eq!(weights(&Naming::TORCH_DATA_PARALLEL), ["module.a.bn.weight", "module.weight"]);
        assert_eq!(weights(&Naming::FLAX), ["params/a.bn/scale", "params/scale"]);
        assert_eq!(Naming::TORCH.names("a.bn."), Naming::TORCH.names("a.bn"));
        assert_eq!(Naming::MINDSPORE.names("bn")[4], None);
    }

    #[test]
    fn a_prefix_stands_before_every_name() {
        let behind = Naming::TORCH.behind("module.");
        assert_eq!(behind.names("bn"), Naming::TORCH_DATA_PARALLEL.names("bn"));
    }

    #[test]
    fn only_the_numbered_table_is_numbered() {
        let numbered: Vec<_> = Naming::known().into_iter().filter(Naming::is_numbered).collect();
        assert_eq!(numbered, [Naming::KERAS_NUMBERED]);
    }
}
