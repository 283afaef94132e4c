//! Reads cases of the format `syncbn-inference-1`: tests of the ONNX operator BatchNormalization,
//! in both of its modes.
//!
//! The batch is cut into as many ranks as it has rows: the definition gives the same as for one.

use serde::Deserialize;
use serde_json::Value;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNormConfig,
    config::{Momentum, RunningVariance},
};
use syncbn_testkit::golden::{Store, dtype_of};

use crate::compare::{Check, Part, Quantity, Tolerance};
use crate::conditioning;
use crate::entry::{Entry, State, fields};
use crate::golden::mode_is_train;
use crate::manifest::Manifest;
use crate::oracle;
use crate::scenario::{Group, RankTensor, Scenario, Step};

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    mode: String,
    eps: f64,
    onnx_momentum: f64,
    channel_axis: usize,
    dtype: String,
    shape: Vec<usize>,
    rtol: f64,
    atol: f64,
}

pub fn entry(manifest: &Manifest, case: &Value, name: String) -> Result<Entry, String> {
    let case: Case = fields(manifest, case, &name)?;
    let state = State::Ready(vec![Group::of_all(scenario(manifest, &case, name.clone())?)]);
    Ok(Entry {
        name,
        world: case.shape.first().copied().unwrap_or(0),
        parts: vec![Part::Forward],
        state,
    })
}

fn scenario(manifest: &Manifest, case: &Case, name: String) -> Result<Scenario, String> {
    let store = Store::open(&manifest.folder.join(&case.file))?;
    let train = mode_is_train(&case.mode).map_err(|what| store.wrong(&what))?;
    if case.channel_axis != 1 {
        return Err(store.wrong(&format!(
            "the channels are at axis {}, the operator has them at 1",
            case.channel_axis
        )));
    }
    let dtype = dtype_of(&case.dtype).map_err(|what| store.wrong(&what))?;
    let (dims, values) = store.float("x", dtype)?;
    let &[rows, channels, ..] = dims else { return Err(store.shape_error("x", dims, &[0, 0])) };
    let running = RunningStats {
        mean: store.channel_f32("running_mean_0", channels)?,
        var: store.channel_f32("running_var_0", channels)?,
        num_batches_tracked: 0,
    };
    let weight = store.channel_f32("weight", channels)?;
    let bias = store.channel_f32("bias", channels)?;
    let config = BatchNormConfig::torch(channels)
        .with_eps(case.eps)
        .with_momentum(Momentum::Decay(case.onnx_momentum))
        .with_running_variance(RunningVariance::Biased);

    let whole = [RankTensor { dtype, ..RankTensor::new(dims.to_vec(), values.to_vec()) }];
    let (mean, var) = if train {
        let statistics = oracle::statistics(&whole)?;
        (statistics.mean, statistics.var_biased)
    } else {
        (as_f64(&running.mean), as_f64(&running.var))
    };
    let facts =
        conditioning::channels(&whole, None, (&mean, &var), (Some(&weight), Some(&bias)), case.eps);
    let tol_y: Vec<f64> = facts.iter().map(conditioning::Channel::tol_y).collect();

    let (y_dims, y) = store.any_float("y")?;
    let (f64_dims, y_f64) = store.f64("y_f64")?;
    if y_dims != dims || f64_dims != dims {
        return Err(store.shape_error("y", y_dims, dims));
    }
    let relative = |expected: &[f64]| {
        expected.iter().map(|y| case.atol + case.rtol * y.abs()).collect::<Vec<f64>>()
    };
    let row = values.len().checked_div(rows).unwrap_or(0);
    let mut row_dims = dims.to_vec();
    row_dims[0] = 1;
    let rank = |rank: usize| {
        let part = rank * row..(rank + 1) * row;
        let input = RankTensor {
            dtype,
            ..RankTensor::new(row_dims.clone(), values[part.clone()].to_vec())
        };
        let quantity = Quantity::Output(rank);
        let name = format!("row {rank} of y_f64");
        let expected = y_f64[part.clone()].to_vec();
        let mut exact = Check::values(name, quantity, input.map(), expected, tol_y.clone());
        conditioning::allow_rounding(&mut exact, dtype);
        let tolerance = Tolerance::Value(relative(&y[part.clone()]));
        let given = Check {
            name: format!("row {rank} of y"),
            expected: y[part].to_vec(),
            tolerance,
            ..exact.clone()
        };
        (input, [exact, given])
    };
    let (inputs, checks): (Vec<RankTensor>, Vec<[Check; 2]>) = (0..rows).map(rank).unzip();
    let mut checks: Vec<Check> = checks.into_iter().flatten().collect();
    if train {
        let f = 1.0 - case.onnx_momentum;
        for (what, quantity) in
            [("running_mean", Quantity::RunningMean), ("running_var", Quantity::RunningVar)]
        {
            let given =
                store.channel_f32(what, channels)?.into_iter().map(f64::from).collect::<Vec<f64>>();
            let exact = store.channel_f64(&format!("{what}_f64"), channels)?;
            let tolerance = (0..channels).map(|c| match quantity {
                Quantity::RunningMean => facts[c].tol_running_mean(f64::from(running.mean[c]), f),
                _ => facts[c].tol_running_var(f64::from(running.var[c]), f, 1.0),
            });
            let tolerance = tolerance.collect();
            checks.push(Check::vector(what.to_owned(), quantity, given.clone(), relative(&given)));
            checks.push(Check::vector(format!("{what}_f64"), quantity, exact, tolerance));
        }
    }
    let count = train.then_some((rows * row / channels.max(1)) as u64);
    let step = Step {
        padded: None,
        name: "s1".to_owned(),
        train,
        repeats: 1,
        inputs,
        residuals: None,
        grad_outputs: None,
        cotangents: None,
        count,
        num_batches_tracked: None,
        checks,
    };
    Ok(Scenario {
        name,
        kind: case.kind.clone(),
        config,
        weight: Some(weight),
        bias: Some(bias),
        running: Some(running),
        steps: vec![step],
        ulp_bound: None,
        stores_tolerances: false,
    })
}

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
