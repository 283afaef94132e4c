//! Reads cases of the formats `syncbn-golden-1` and `syncbn-golden-2`: per-rank inputs, and
//! everything that follows from them in f64.

use serde::Deserialize;
use serde_json::Value;
use syncbn::low_level::Epilogue;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, DType, Layout, config::Momentum};

use crate::compare::{Check, Part, Quantity, Tolerance};
use crate::conditioning;
use crate::double;
use crate::entry::{Entry, State, fields};
use crate::not_yet;
use crate::padded::Padded;
use crate::scenario::{Group, RankTensor, Scenario, Step};
use crate::store::{self, Manifest, Store};
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
    let dtype = |name: &str| store::dtype(name).map_err(|what| store.wrong(&what));
    let (dtype, parameter_dtype) = (dtype(&case.dtype)?, dtype(&case.param_dtype)?);
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
        let (kind, dtype) = (&self.case.kind, self.dtype.to_string());
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

    fn step(&self, k: usize, mode: &str) -> Result<Step, String> {
        let Self { store, case, .. } = self;
        let train = mode_is_train(mode).map_err(|what| store.wrong(&what))?;
        let group = |what: &str| self.of_group(k, what);
        let tensors = |what: &str| -> Result<Vec<RankTensor>, String> {
            self.ranks.iter().map(|&rank| self.tensor(k, rank, what)).collect()
        };
        let (inputs, grad_outputs) = (tensors("x")?, tensors("dy")?);
        let residuals = self.epilogue.adds_residual().then(|| tensors("z")).transpose()?;
        let padded = (case.family == Some(Family::Lengths))
            .then(|| self.padded(k, [&inputs, &grad_outputs], residuals.as_deref()))
            .transpose()?;
        // The valid positions are a step of their own. Only calls see the padding.
        let pack = |tensors: Vec<RankTensor>| match &padded {
            Some(padded) => padded
                .iter()
                .zip(&tensors)
                .map(|(rank, tensor)| rank.packed_tensor(tensor))
                .collect(),
            None => tensors,
        };
        let residuals = residuals.map(&pack);
        let (inputs, grad_outputs) = (pack(inputs), pack(grad_outputs));
        let mut checks = Vec::new();
        for (member, (rank, input)) in self.ranks.iter().zip(&inputs).enumerate() {
            let activations = [
                ("y", "tol_y", Some(Quantity::Output(member))),
                ("dx", "tol_dx", Some(Quantity::GradInput(member))),
                ("dz", "tol_dz", residuals.as_ref().map(|_| Quantity::GradResidual(member))),
            ];
            for (what, tolerance, quantity) in activations {
                let Some(quantity) = quantity else { continue };
                let name = format!("s{k}.r{rank}.{what}");
                let (dims, expected) = store.f64(&name)?;
                let of_rank = padded.as_ref().map(|padded| &padded[member]);
                let stored = of_rank.map_or(&input.dims, |rank| &rank.x.dims);
                if dims != stored {
                    return Err(store.shape_error(&name, dims, stored));
                }
                let expected = of_rank.map_or(expected.to_vec(), |rank| rank.packed(expected));
                let tolerance = store.channel_f64(&group(tolerance), case.channels)?;
                checks.push(Check::values(name, quantity, input.map(), expected, tolerance));
            }
            let (dweight, dbias) = (format!("s{k}.r{rank}.dweight"), format!("s{k}.r{rank}.dbias"));
            if case.affine {
                checks.push(self.vector(
                    dweight,
                    &group("tol_dweight"),
                    Quantity::GradWeight(member),
                )?);
            }
            if case.has_bias {
                checks.push(self.vector(dbias, &group("tol_dbias"), Quantity::GradBias(member))?);
            }
        }
        if case.affine {
            checks.push(self.vector(
                group("dweight_sum"),
                &group("tol_dweight"),
                Quantity::GradWeightSum,
            )?);
        }
        if case.has_bias {
            checks.push(self.vector(
                group("dbias_sum"),
                &group("tol_dbias"),
                Quantity::GradBiasSum,
            )?);
        }
        // Nothing has no statistics.
        if train && store.count(&group("count"))? > 0 {
            checks.push(self.vector(group("mean"), &group("tol_mean"), Quantity::Mean)?);
            checks.push(self.vector(
                group("var_biased"),
                &group("tol_var"),
                Quantity::VarBiased,
            )?);
            checks.push(self.inv_std(k)?);
            checks.extend(self.constant_channels(k, &inputs)?);
        }
        if case.track_running_stats && train {
            // In evaluation they must be what they were, bit for bit, which the run checks.
            let (mean, var) = (group("tol_running_mean"), group("tol_running_var"));
            checks.push(self.vector(group("running_mean"), &mean, Quantity::RunningMean)?);
            checks.push(self.vector(group("running_var"), &var, Quantity::RunningVar)?);
        }
        if !case.track_running_stats && !train {
            for (member, input) in inputs.iter().enumerate() {
                checks.extend(self.local_statistics(k, member, input)?);
            }
        }
        let cotangents = (case.family == Some(Family::DoubleBackward))
            .then(|| self.cotangents(k, &inputs, &mut checks))
            .transpose()?;
        let tracked = case
            .track_running_stats
            .then(|| store.count(&format!("s{k}.num_batches_tracked")))
            .transpose()?;
        Ok(Step {
            name: format!("s{k}"),
            train,
            repeats: case.repeat_same_step.max(1),
            inputs,
            residuals,
            grad_outputs: Some(grad_outputs),
            cotangents,
            count: train.then(|| store.count(&group("count"))).transpose()?,
            num_batches_tracked: tracked,
            checks,
            padded,
        })
    }

    /// The tensors of padded samples, with their lengths.
    fn padded(
        &self,
        k: usize,
        [inputs, grad_outputs]: [&[RankTensor]; 2],
        residuals: Option<&[RankTensor]>,
    ) -> Result<Vec<Padded>, String> {
        let ranks = self.ranks.iter().zip(inputs).zip(grad_outputs).enumerate();
        let padded = ranks.map(|(member, ((rank, x), grad_output))| {
            let lengths = self.store.counts(&format!("s{k}.r{rank}.lengths"))?;
            let time = match x.layout {
                Layout::ChannelsFirst => x.dims.get(2),
                Layout::ChannelsLast => x.dims.get(1).filter(|_| x.dims.len() > 2),
            };
            let lengths: Option<Vec<u32>> =
                lengths.iter().map(|&length| u32::try_from(length).ok()).collect();
            let fits = |lengths: &Vec<u32>| {
                let is_inside = |length: &u32| time.is_some_and(|&time| *length as usize <= time);
                lengths.len() == x.dims[0] && lengths.iter().all(is_inside)
            };
            let is_like_x = |other: &RankTensor| other.dims == x.dims;
            let of_member = residuals.map(|residuals| &residuals[member]);
            let lengths = lengths
                .filter(fits)
                .filter(|_| is_like_x(grad_output) && of_member.is_none_or(is_like_x));
            let Some(lengths) = lengths else {
                let what = "lengths, dy and z do not fit x";
                return Err(self.store.wrong(&format!("s{k}.r{rank}: {what}")));
            };
            Ok(Padded {
                x: x.clone(),
                grad_output: grad_output.clone(),
                residual: residuals.map(|residuals| residuals[member].clone()),
                lengths,
            })
        });
        padded.collect()
    }

    /// The cotangents of a step's gradients; adds the checks of what follows from them.
    fn cotangents(
        &self,
        k: usize,
        inputs: &[RankTensor],
        checks: &mut Vec<Check>,
    ) -> Result<double::Cotangents, String> {
        let Self { store, case, .. } = self;
        let channels = case.channels;
        for (member, (rank, input)) in self.ranks.iter().zip(inputs).enumerate() {
            for (what, quantity) in [
                ("grad_x2", Quantity::DoubleInput(member)),
                ("grad_dy2", Quantity::DoubleGradOutput(member)),
            ] {
                let name = format!("s{k}.r{rank}.{what}");
                let (dims, expected) = store.f64(&name)?;
                if dims != input.dims {
                    return Err(store.shape_error(&name, dims, &input.dims));
                }
                let tolerance = self.of_group(k, &format!("tol_{what}"));
                let tolerance = store.channel_f64(&tolerance, channels)?;
                let expected = expected.to_vec();
                checks.push(Check::values(name, quantity, input.map(), expected, tolerance));
            }
            if case.affine {
                // The cut of a backward that multiplies by its own weight at its end.
                let name = format!("s{k}.r{rank}.grad_weight2_out");
                let tolerance = self.of_group(k, "tol_grad_weight2");
                checks.push(self.vector(name, &tolerance, Quantity::DoubleWeight(member))?);
            }
        }
        if case.affine {
            let (sum, tolerance) =
                (self.of_group(k, "grad_weight2_sum"), self.of_group(k, "tol_grad_weight2"));
            checks.push(self.vector(sum, &tolerance, Quantity::DoubleWeightSum)?);
        }
        let vectors = |what: &str| -> Result<Vec<Vec<f32>>, String> {
            let of_rank = |rank| store.channel_f32(&format!("s{k}.r{rank}.{what}"), channels);
            self.ranks.iter().map(of_rank).collect()
        };
        let inputs: Result<_, String> =
            self.ranks.iter().map(|&rank| self.tensor(k, rank, "v")).collect();
        Ok(double::Cotangents {
            inputs: inputs?,
            weights: case.affine.then(|| vectors("vw")).transpose()?,
            biases: case.has_bias.then(|| vectors("vb")).transpose()?,
        })
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
        let (expected, tolerance) = (
            self.store.channel_f64(&name, channels)?,
            self.store.channel_f64(tolerance, channels)?,
        );
        let mut check = Check::vector(name, quantity, expected, tolerance);
        check.any_non_finite = matches!(quantity, Quantity::Mean | Quantity::RunningMean);
        Ok(check)
    }

    /// The statistics of a rank's own batch, for which the tolerance is derived: the cases store
    /// none.
    fn local_statistics(
        &self,
        k: usize,
        member: usize,
        input: &RankTensor,
    ) -> Result<[Check; 2], String> {
        let prefix = format!("s{k}.r{}", self.ranks[member]);
        let (mean_name, var_name) =
            (format!("{prefix}.local_mean"), format!("{prefix}.local_var_biased"));
        let stored = |name: &str| self.store.channel_f64(name, self.case.channels);
        let (mean, var) = (stored(&mean_name)?, stored(&var_name)?);
        let facts = conditioning::channels(
            std::slice::from_ref(input),
            None,
            (&mean, &var),
            (None, None),
            0.0,
        );
        let tol_mean = facts.iter().map(conditioning::Channel::tol_mean).collect();
        let tol_var = facts.iter().map(conditioning::Channel::tol_var).collect();
        Ok([
            Check::vector(mean_name, Quantity::LocalMean(member), mean, tol_mean),
            Check::vector(var_name, Quantity::LocalVarBiased(member), var, tol_var),
        ])
    }

    /// 1/√(var + eps) has no stored tolerance. It follows from that of the variance, as f(v) falls
    /// with v: no further than f(v - tol) above and f(v + tol) below, and half an ulp of f32 for
    /// its own rounding.
    fn inv_std(&self, k: usize) -> Result<Check, String> {
        let (name, channels, eps) = (self.of_group(k, "invstd"), self.case.channels, self.case.eps);
        let expected = self.store.channel_f64(&name, channels)?;
        let var = self.store.channel_f64(&self.of_group(k, "var_biased"), channels)?;
        let tol_var = self.store.channel_f64(&self.of_group(k, "tol_var"), channels)?;
        let inv_std = |var: f64| 1.0 / (var.max(0.0) + eps).sqrt();
        let tolerance = var.iter().zip(&tol_var).map(|(&var, &tol)| {
            if !(var + tol).is_finite() {
                return f64::INFINITY;
            }
            let here = inv_std(var);
            (inv_std(var - tol) - here).max(here - inv_std(var + tol)) + here * 2f64.powi(-24)
        });
        Ok(Check::vector(name, Quantity::InvStd, expected, tolerance.collect()))
    }

    /// y of a channel whose values are all the same is the bias, bit for bit; a 16-bit y is the
    /// bias rounded, and what an epilogue makes of it is something else.
    fn constant_channels(&self, k: usize, inputs: &[RankTensor]) -> Result<Vec<Check>, String> {
        if self.dtype != DType::F32 || self.epilogue != Epilogue::NONE {
            return Ok(Vec::new());
        }
        let (store, channels) = (self.store, self.case.channels);
        let var = store.channel_f64(&self.of_group(k, "var_biased"), channels)?;
        let bias = if self.case.has_bias { self.parameter("bias")? } else { vec![0.0; channels] };
        let mut checks = Vec::new();
        for (member, (rank, input)) in self.ranks.iter().zip(inputs).enumerate() {
            let map = input.map();
            let constant: Vec<usize> =
                (0..input.values.len()).filter(|&i| var[map.channel(i)] == 0.0).collect();
            if constant.is_empty() {
                continue;
            }
            checks.push(Check {
                name: format!("s{k}.r{rank}.y of constant channels"),
                quantity: Quantity::Output(member),
                expected: constant.iter().map(|&i| f64::from(bias[map.channel(i)])).collect(),
                tolerance: Tolerance::Channel(vec![0.0; channels]),
                map,
                positions: Some(constant),
                ulp: None,
                any_non_finite: false,
            });
        }
        Ok(checks)
    }
}

pub fn mode_is_train(mode: &str) -> Result<bool, String> {
    match mode {
        "train" => Ok(true),
        "eval" => Ok(false),
        other => Err(format!("the mode {other:?} is unknown; known are \"train\" and \"eval\"")),
    }
}
