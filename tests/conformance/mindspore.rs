//! Reads cases of the format `syncbn-mindspore-1`: what MindSpore itself returned, beside the
//! definition in f64.
//!
//! Both are compared. Against the definition the tolerance is the one of `conditioning`; against
//! MindSpore it is that plus the deviation from the definition that the manifest publishes for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, DType, Layout, config::Momentum};
use syncbn_testkit::golden::{Store, dtype_of};

use crate::compare::{ChannelMap, Check, Part, Quantity};
use crate::conditioning;
use crate::entry::{Entry, State, fields};
use crate::golden::mode_is_train;
use crate::manifest::Manifest;
use crate::scenario::{Group, RankTensor, Scenario, Step};

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    eps: f64,
    momentum: f64,
    use_batch_statistics: Option<bool>,
    modes: Vec<String>,
    dtype: String,
    batch_per_rank: Vec<usize>,
    max_dev_mindspore_vs_f64: BTreeMap<String, f64>,
}

pub fn entry(manifest: &Manifest, case: &Value, name: String) -> Result<Entry, String> {
    let case: Case = fields(manifest, case, &name)?;
    let trains: Vec<bool> =
        case.modes.iter().map(|mode| mode_is_train(mode)).collect::<Result<_, _>>()?;
    let scenario = scenario(manifest, &case, &trains, name.clone())?;
    let parts = vec![Part::Forward, Part::Backward];
    Ok(Entry {
        name,
        world: case.batch_per_rank.len(),
        parts,
        state: State::Ready(vec![Group::of_all(scenario)]),
    })
}

fn scenario(
    manifest: &Manifest,
    case: &Case,
    trains: &[bool],
    name: String,
) -> Result<Scenario, String> {
    let store = Store::open(&manifest.folder.join(&case.file))?;
    let (gamma_dims, gamma) = store.f32("gamma")?;
    let channels = *gamma_dims
        .first()
        .ok_or_else(|| store.wrong("gamma is a scalar, one value per channel is expected"))?;
    let mut reader = Reader {
        channels,
        dtype: dtype_of(&case.dtype).map_err(|what| store.wrong(&what))?,
        case,
        gamma: gamma.to_vec(),
        beta: store.channel_f32("beta", channels)?,
        moving_mean: store
            .channel_f32("moving_mean_0", channels)?
            .into_iter()
            .map(f64::from)
            .collect(),
        moving_var: store
            .channel_f32("moving_var_0", channels)?
            .into_iter()
            .map(f64::from)
            .collect(),
        store: &store,
    };
    let running = RunningStats {
        mean: store.channel_f32("moving_mean_0", channels)?,
        var: store.channel_f32("moving_var_0", channels)?,
        num_batches_tracked: 0,
    };
    let steps = trains
        .iter()
        .enumerate()
        .map(|(i, &train)| reader.step(i + 1, train))
        .collect::<Result<_, _>>()?;
    // Without affine parameters MindSpore keeps gamma and beta as they were initialized, and
    // applies them.
    let config = BatchNormConfig::mindspore(channels)
        .with_eps(case.eps)
        .with_momentum(Momentum::Decay(case.momentum))
        .with_use_batch_statistics(case.use_batch_statistics);
    let weight = Some(reader.gamma);
    let bias = Some(reader.beta);
    Ok(Scenario {
        name,
        kind: case.kind.clone(),
        config,
        weight,
        bias,
        running: Some(running),
        steps,
        ulp_bound: None,
        stores_tolerances: false,
    })
}

struct Reader<'a> {
    store: &'a Store,
    case: &'a Case,
    channels: usize,
    /// Of activations and their gradients. The rest is f32.
    dtype: DType,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    /// As expected after the steps read so far.
    moving_mean: Vec<f64>,
    moving_var: Vec<f64>,
}

impl Reader<'_> {
    fn step(&mut self, k: usize, train: bool) -> Result<Step, String> {
        let store = self.store;
        let channels = self.channels;
        let uses_batch = self.case.use_batch_statistics.unwrap_or(train);
        let world = self.case.batch_per_rank.len();
        let ranks = |what: &str| -> Result<Vec<RankTensor>, String> {
            let tensor = |rank: usize| {
                let (dims, values) = store.float(&format!("s{k}.r{rank}.{what}"), self.dtype)?;
                Ok(RankTensor {
                    dtype: self.dtype,
                    ..RankTensor::new(dims.to_vec(), values.to_vec())
                })
            };
            (0..world).map(tensor).collect()
        };
        let inputs = ranks("x")?;
        let grad_outputs = ranks("dy")?;
        if let Some(odd) = inputs.iter().find(|input| input.dims.get(1) != Some(&channels)) {
            return Err(store.shape_error(&format!("s{k}.r*.x"), &odd.dims, &[channels]));
        }
        let (mean, var) = if uses_batch {
            let var = store.channel_f64(&format!("s{k}.batch_var_biased"), channels)?;
            (store.channel_f64(&format!("s{k}.batch_mean"), channels)?, var)
        } else {
            (self.moving_mean.clone(), self.moving_var.clone())
        };
        let affine = (Some(&self.gamma[..]), Some(&self.beta[..]));
        let facts = conditioning::channels(
            &inputs,
            Some(&grad_outputs),
            (&mean, &var),
            affine,
            self.case.eps,
        );
        let each = |tolerance: fn(&conditioning::Channel) -> f64| -> Vec<f64> {
            facts.iter().map(tolerance).collect()
        };

        let mut checks = Vec::new();
        let tol_dx = if uses_batch {
            conditioning::Channel::tol_dx
        } else {
            conditioning::Channel::tol_dx_given
        };
        for rank in 0..world {
            let y = Quantity::Output(rank);
            let dx = Quantity::GradInput(rank);
            checks.extend(self.both(
                &format!("s{k}.r{rank}.y"),
                "y",
                y,
                &each(conditioning::Channel::tol_y),
            )?);
            checks.extend(self.both(&format!("s{k}.r{rank}.dx"), "dx", dx, &each(tol_dx))?);
        }
        let sums = [
            ("dgamma", Quantity::GradWeightSum, each(conditioning::Channel::tol_dweight)),
            ("dbeta", Quantity::GradBiasSum, each(conditioning::Channel::tol_dbias)),
        ];
        for (what, quantity, tolerance) in sums {
            checks.extend(self.both(&format!("s{k}.{what}"), what, quantity, &tolerance)?);
        }
        if uses_batch {
            let tol_mean = each(conditioning::Channel::tol_mean);
            let tol_var = each(conditioning::Channel::tol_var);
            checks.push(Check::vector(format!("s{k}.batch_mean"), Quantity::Mean, mean, tol_mean));
            checks.push(Check::vector(
                format!("s{k}.batch_var_biased"),
                Quantity::VarBiased,
                var,
                tol_var,
            ));
            let f = 1.0 - self.case.momentum;
            let olds = self.moving_mean.iter().zip(&facts);
            let tol_mean: Vec<f64> =
                olds.map(|(&old, channel)| channel.tol_running_mean(old, f)).collect();
            let olds = self.moving_var.iter().zip(&facts);
            let tol_var = olds
                .map(|(&old, c)| c.tol_running_var(old, f, c.count / (c.count - 1.0)))
                .collect::<Vec<f64>>();
            checks.extend(self.both(
                &format!("s{k}.moving_mean"),
                "moving_mean",
                Quantity::RunningMean,
                &tol_mean,
            )?);
            checks.extend(self.both(
                &format!("s{k}.moving_var"),
                "moving_var",
                Quantity::RunningVar,
                &tol_var,
            )?);
            self.moving_mean = store.channel_f64(&format!("s{k}.moving_mean"), channels)?;
            self.moving_var = store.channel_f64(&format!("s{k}.moving_var"), channels)?;
        }
        let count = uses_batch.then(|| facts.first().map_or(0, |channel| channel.count as u64));
        let name = format!("s{k}");
        let grad_outputs = Some(grad_outputs);
        Ok(Step {
            padded: None,
            name,
            train,
            repeats: 1,
            inputs,
            residuals: None,
            grad_outputs,
            cotangents: None,
            count,
            num_batches_tracked: None,
            checks,
        })
    }

    /// The same quantity against the definition, and against what MindSpore returned, where it
    /// returned it.
    fn both(
        &self,
        name: &str,
        published: &str,
        quantity: Quantity,
        tolerance: &[f64],
    ) -> Result<Vec<Check>, String> {
        let check = |name: String, dims: &[usize], expected: Vec<f64>, tolerance: Vec<f64>| {
            if dims.len() == 1 {
                return Check::vector(name, quantity, expected, tolerance);
            }
            let map = ChannelMap::of_dims(dims, Layout::ChannelsFirst);
            let mut check = Check::values(name, quantity, map, expected, tolerance);
            conditioning::allow_rounding(&mut check, self.dtype);
            check
        };
        let (dims, expected) = self.store.f64(name)?;
        let mut checks = vec![check(name.to_owned(), dims, expected.to_vec(), tolerance.to_vec())];
        let returned = format!("{name}_ms");
        // The gradients of frozen parameters are in the definition alone.
        if self.store.has(&returned) {
            let no_deviation = || {
                self.store.wrong(&format!("the manifest publishes no deviation for {published}"))
            };
            let deviation = self
                .case
                .max_dev_mindspore_vs_f64
                .get(published)
                .copied()
                .ok_or_else(no_deviation)?;
            let (dims, expected) = self.store.any_float(&returned)?;
            let wider = tolerance.iter().map(|tolerance| tolerance + deviation).collect();
            checks.push(check(returned, dims, expected, wider));
        }
        Ok(checks)
    }
}
