//! Reads cases of the formats `syncbn-golden-1` and `syncbn-golden-2`: per-rank inputs, and
//! everything that follows from them in f64.
//!
//! `step` reads a step, `lengths` and `cotangents` what only some have; `statistics` has checks
//! whose tolerance is derived.

mod cotangents;
mod lengths;
mod statistics;
mod step;

use serde::Deserialize;
use serde_json::Value;
use syncbn::low_level::Epilogue;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, DType, Layout, config::Momentum};
use syncbn_testkit::golden::{Store, dtype_of};

use crate::compare::{Check, Part, Quantity};
use crate::entry::{Entry, State, fields};
use crate::manifest::Manifest;
use crate::not_yet;
use crate::scenario::{Group, RankTensor, Scenario};
use crate::ulp;

/// The kinds on which [`ulp::BOUND`] is asserted: those where other implementations lose y.
const ULP_KINDS: [&str; 6] =
    ["huge_mean", "constant_channel", "constant_per_rank", "rank_skew", "dynamic_range", "eps"];

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    world: usize,
    batch_per_rank: Vec<usize>,
    channels: usize,
    channel_axis: usize,
    groups: Vec<Vec<usize>>,
    dtype: String,
    param_dtype: String,
    modes: Vec<String>,
    /// Only in the first format; the second makes every call once.
    #[serde(default)]
    repeat_same_step: usize,
    eps: f64,
    momentum: Option<f64>,
    affine: bool,
    has_bias: bool,
    track_running_stats: bool,
    fused: Option<String>,
    /// Only in the second format: what the case is about.
    family: Option<Family>,
    /// Only in the second format: `fused`, taken apart.
    activation: Option<Activation>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Family {
    Activation,
    DoubleBackward,
    Lengths,
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct Activation {
    slope: Option<f32>,
    alpha: Option<f32>,
}

pub fn entry(manifest: &Manifest, case: &Value, name: String) -> Result<Entry, String> {
    let case: Case = fields(manifest, case, &name)?;
    let state = match case.epilogue() {
        Ok(epilogue) => State::Ready(groups(manifest, &case, epilogue, &name)?),
        Err(reason) => State::NotYet(reason),
    };
    Ok(Entry { name, world: case.world, parts: vec![Part::Forward, Part::Backward], state })
}

impl Case {
    /// What follows the normalization, or why the library cannot run the case.
    fn epilogue(&self) -> Result<Epilogue, String> {
        match self.family {
            None | Some(Family::Activation | Family::DoubleBackward | Family::Lengths) => {}
            Some(Family::Unknown) => return Err("the family of the case is unknown".into()),
        }
        let number = self.activation.as_ref().and_then(|of| of.slope.or(of.alpha));
        not_yet::epilogue(self.fused.as_deref(), number)
    }
}

fn groups(
    manifest: &Manifest,
    case: &Case,
    epilogue: Epilogue,
    name: &str,
) -> Result<Vec<Group>, String> {
    let store = Store::open(&manifest.folder.join(&case.file))?;
    let world = case.world;
    if case.batch_per_rank.len() != world {
        return Err(store.wrong(&format!(
            "world is {world}, batch_per_rank has {}",
            case.batch_per_rank.len()
        )));
    }
    let mut listed: Vec<usize> = case.groups.concat();
    listed.sort_unstable();
    let all = listed == (0..world).collect::<Vec<usize>>();
    if world == 0 || case.groups.iter().any(Vec::is_empty) || !all {
        return Err(store.wrong(&format!(
            "the groups {:?} are not lists of {world} ranks, each once",
            case.groups
        )));
    }
    let stored_as = |name: &str| dtype_of(name).map_err(|what| store.wrong(&what));
    let dtype = stored_as(&case.dtype)?;
    let parameter_dtype = stored_as(&case.param_dtype)?;
    let layout = if case.channel_axis == 1 { Layout::ChannelsFirst } else { Layout::ChannelsLast };
    let group = |(index, ranks): (usize, &Vec<usize>)| {
        let mut ranks = ranks.clone();
        ranks.sort_unstable();
        let name =
            if case.groups.len() == 1 { name.to_owned() } else { format!("{name}.g{index}") };
        let scenario = Reader {
            store: &store,
            case,
            epilogue,
            index,
            ranks: &ranks,
            layout,
            dtype,
            parameter_dtype,
        }
        .scenario(name)?;
        Ok(Group { ranks, scenario })
    };
    case.groups.iter().enumerate().map(group).collect()
}

/// Reads one process group of a case.
struct Reader<'a> {
    store: &'a Store,
    case: &'a Case,
    epilogue: Epilogue,
    /// Its place among the groups: j in the names `g{j}`.
    index: usize,
    /// Its ranks: the r in the names `r{r}`.
    ranks: &'a [usize],
    layout: Layout,
    /// Of activations and their gradients.
    dtype: DType,
    /// Of weight and bias.
    parameter_dtype: DType,
}

impl Reader<'_> {
    fn scenario(&self, name: String) -> Result<Scenario, String> {
        let Self { store, case, index, .. } = self;
        let channels = case.channels;
        let momentum = case.momentum.map_or(Momentum::Cumulative, Momentum::NewWeight);
        let config = BatchNormConfig::torch(channels)
            .with_eps(case.eps)
            .with_momentum(momentum)
            .with_weight(case.affine)
            .with_bias(case.has_bias)
            .with_track_running_stats(case.track_running_stats)
            .with_residual(self.epilogue.residual)
            .with_activation(self.epilogue.activation);
        let running = if case.track_running_stats {
            Some(RunningStats {
                mean: store.channel_f32(&format!("g{index}.running_mean_0"), channels)?,
                var: store.channel_f32(&format!("g{index}.running_var_0"), channels)?,
                num_batches_tracked: store.count("num_batches_tracked_0")?,
            })
        } else {
            None
        };
        let steps = case.modes.iter().enumerate().map(|(i, mode)| self.step(i + 1, mode));
        let asserts_ulp = self.dtype == DType::F32 && ULP_KINDS.contains(&case.kind.as_str());
        let mut scenario = Scenario {
            name,
            kind: self.kind(),
            weight: case.affine.then(|| self.parameter("weight")).transpose()?,
            bias: case.has_bias.then(|| self.parameter("bias")).transpose()?,
            running,
            steps: steps.collect::<Result<_, _>>()?,
            ulp_bound: asserts_ulp.then_some(ulp::BOUND),
            stores_tolerances: case.family.is_none(),
            config,
        };
        ulp::measure(&mut scenario);
        Ok(scenario)
    }

    /// Errors in ulp of different types are not for one line of the table.
    fn kind(&self) -> String {
        let kind = &self.case.kind;
        let dtype = self.dtype.to_string();
        if self.dtype == DType::F32 || *kind == dtype {
            kind.clone()
        } else {
            format!("{kind}, {dtype}")
        }
    }

    /// Weight or bias. Layers keep them in f32, which holds what any type stores.
    fn parameter(&self, name: &str) -> Result<Vec<f32>, String> {
        self.store.channel_float(name, self.parameter_dtype, self.case.channels)
    }

    /// The name of a tensor of the group.
    fn of_group(&self, k: usize, what: &str) -> String {
        format!("s{k}.g{}.{what}", self.index)
    }

    fn tensor(&self, k: usize, rank: usize, what: &str) -> Result<RankTensor, String> {
        let name = format!("s{k}.r{rank}.{what}");
        let (dims, values) = self.store.float(&name, self.dtype)?;
        let Case { batch_per_rank, channels, channel_axis: axis, .. } = self.case;
        let known = *axis == 1 || *axis + 1 == dims.len();
        if !known
            || dims.first() != Some(&batch_per_rank[rank])
            || dims.get(*axis) != Some(channels)
        {
            let what =
                format!("{channels} channels at axis {axis}, a batch of {}", batch_per_rank[rank]);
            return Err(self
                .store
                .wrong(&format!("{name} has the dimensions {dims:?}, expected are {what}")));
        }
        Ok(RankTensor {
            dims: dims.to_vec(),
            layout: self.layout,
            dtype: self.dtype,
            values: values.to_vec(),
        })
    }

    fn vector(&self, name: String, tolerance: &str, quantity: Quantity) -> Result<Check, String> {
        let channels = self.case.channels;
        let expected = self.store.channel_f64(&name, channels)?;
        let tolerance = self.store.channel_f64(tolerance, channels)?;
        let mut check = Check::vector(name, quantity, expected, tolerance);
        check.any_non_finite = matches!(quantity, Quantity::Mean | Quantity::RunningMean);
        Ok(check)
    }
}

pub fn mode_is_train(mode: &str) -> Result<bool, String> {
    match mode {
        "train" => Ok(true),
        "eval" => Ok(false),
        other => Err(format!("the mode {other:?} is unknown; known are \"train\" and \"eval\"")),
    }
}
