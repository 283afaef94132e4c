//! Reads cases of the format `syncbn-procedural-1`: large shapes whose inputs are computed from an
//! index hash.
//!
//! The recipe, as in the manifest, with i the linear index into the concatenated batch and c its
//! channel:
//!
//! ```text
//! u24(i, seed, tag) = splitmix64(i + (seed << 40) + (tag << 60)) >> 40
//! x[i]  = f32((u24(i, seed, 1) / 2^24 - 0.5) · 4·(1 + c % 5) + (c % 7 - 3))
//! dy[i] = f32(u24(i, seed, 2) / 2^24 - 0.5)
//! weight[c] = f32(0.5 + (c % 3)·0.25)·(c % 4 == 3 ? -1 : 1)      bias[c] = f32((c % 5)·0.1 - 0.2)
//! ```
//!
//! The files hold some of the inputs, too; they are compared bit for bit before anything else.

use serde::Deserialize;
use serde_json::Value;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, config::Momentum};
use syncbn_testkit::golden::Store;

use crate::compare::{Check, Part, Quantity};
use crate::conditioning;
use crate::entry::{Entry, State, fields};
use crate::manifest::Manifest;
use crate::scenario::{Group, RankTensor, Scenario, Step};

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    batch_per_rank: Vec<usize>,
    channels: usize,
    spatial: Vec<usize>,
    seed: u64,
    eps: f64,
    momentum: f64,
    running_init: String,
    tolerance: Tolerances,
}

#[derive(Deserialize)]
struct Tolerances {
    y: f64,
    dx: RelativeToMax,
    stats: Relative,
}

#[derive(Deserialize)]
struct RelativeToMax {
    rel_to_max: f64,
}

#[derive(Deserialize)]
struct Relative {
    rtol: f64,
    atol: f64,
}

pub fn entry(manifest: &Manifest, case: &Value, name: String) -> Result<Entry, String> {
    let case: Case = fields(manifest, case, &name)?;
    let scenario = scenario(manifest, &case, name.clone())?;
    let parts = vec![Part::Forward, Part::Backward];
    Ok(Entry {
        name,
        world: case.batch_per_rank.len(),
        parts,
        state: State::Ready(vec![Group::of_all(scenario)]),
    })
}

fn scenario(manifest: &Manifest, case: &Case, name: String) -> Result<Scenario, String> {
    let store = Store::open(&manifest.folder.join(&case.file))?;
    let channels = case.channels;
    if case.running_init != "mean 0, var 1" {
        return Err(store.wrong(&format!(
            "running_init {:?} is unknown; known is \"mean 0, var 1\"",
            case.running_init
        )));
    }
    let weight: Vec<f32> = (0..channels).map(weight).collect();
    let bias: Vec<f32> = (0..channels).map(bias).collect();
    for (what, computed) in [("weight", &weight), ("bias", &bias)] {
        if store.channel_f32(what, channels)? != *computed {
            return Err(store.wrong(&format!("{what} is not what the recipe gives")));
        }
    }
    let (inputs, grad_outputs) = ranks(case);
    let mut checks = Vec::new();
    let mean = store.channel_f64("mean", channels)?;
    let var = store.channel_f64("var_biased", channels)?;
    let affine = (Some(&weight[..]), Some(&bias[..]));
    let facts =
        conditioning::channels(&inputs, Some(&grad_outputs), (&mean, &var), affine, case.eps);
    let each = |tolerance: fn(&conditioning::Channel) -> f64| -> Vec<f64> {
        facts.iter().map(tolerance).collect()
    };

    let samples: Vec<Vec<f64>> = (0..inputs.len())
        .map(|rank| store.f64(&format!("r{rank}.sample_dx")).map(|(_, values)| values.to_vec()))
        .collect::<Result<_, _>>()?;
    let largest_dx = samples.iter().flatten().fold(0.0f64, |largest, dx| largest.max(dx.abs()));
    for (rank, (input, grad_output)) in inputs.iter().zip(&grad_outputs).enumerate() {
        let positions = positions(&store, rank, input)?;
        for (what, computed) in [("sample_x", &input.values), ("sample_dy", &grad_output.values)] {
            let name = format!("r{rank}.{what}");
            let stored = store.f32(&name)?.1;
            if stored.len() != positions.len()
                || positions.iter().zip(stored).any(|(&i, value)| computed[i] != *value)
            {
                return Err(store.wrong(&format!("{name} is not what the recipe gives")));
            }
        }
        let y = store.f64(&format!("r{rank}.sample_y"))?.1.to_vec();
        let dx = samples[rank].clone();
        let tol_y = case.tolerance.y;
        let tol_dx = case.tolerance.dx.rel_to_max * largest_dx;
        for (what, quantity, expected, tolerance) in
            [("y", Quantity::Output(rank), y, tol_y), ("dx", Quantity::GradInput(rank), dx, tol_dx)]
        {
            if expected.len() != positions.len() {
                return Err(store.wrong(&format!(
                    "r{rank}.sample_{what} and r{rank}.sample_index differ in length"
                )));
            }
            let name = format!("r{rank}.sample_{what}");
            let check =
                Check::values(name, quantity, input.map(), expected, vec![tolerance; channels]);
            checks.push(Check { positions: Some(positions.clone()), ..check });
        }
        // The case with very many channels stores the sums alone.
        if store.has(&format!("r{rank}.dweight")) {
            for (what, quantity, tolerance) in [
                ("dweight", Quantity::GradWeight(rank), each(conditioning::Channel::tol_dweight)),
                ("dbias", Quantity::GradBias(rank), each(conditioning::Channel::tol_dbias)),
            ] {
                let name = format!("r{rank}.{what}");
                let expected = store.channel_f64(&name, channels)?;
                checks.push(Check::vector(name, quantity, expected, tolerance));
            }
        }
    }
    for (what, quantity, tolerance) in [
        ("dweight_sum", Quantity::GradWeightSum, each(conditioning::Channel::tol_dweight)),
        ("dbias_sum", Quantity::GradBiasSum, each(conditioning::Channel::tol_dbias)),
    ] {
        checks.push(Check::vector(
            what.to_owned(),
            quantity,
            store.channel_f64(what, channels)?,
            tolerance,
        ));
    }
    for (what, quantity) in [
        ("mean", Quantity::Mean),
        ("var_biased", Quantity::VarBiased),
        ("running_mean", Quantity::RunningMean),
        ("running_var", Quantity::RunningVar),
    ] {
        let expected = store.channel_f64(what, channels)?;
        let Relative { rtol, atol } = case.tolerance.stats;
        let tolerance = expected.iter().map(|value| atol + rtol * value.abs()).collect();
        checks.push(Check::vector(what.to_owned(), quantity, expected, tolerance));
    }
    let step = Step {
        padded: None,
        name: "s1".to_owned(),
        train: true,
        repeats: 1,
        inputs,
        residuals: None,
        grad_outputs: Some(grad_outputs),
        cotangents: None,
        count: Some(store.count("count")?),
        num_batches_tracked: Some(1),
        checks,
    };
    let config = BatchNormConfig::torch(channels)
        .with_eps(case.eps)
        .with_momentum(Momentum::NewWeight(case.momentum));
    Ok(Scenario {
        name,
        kind: case.kind.clone(),
        config,
        weight: Some(weight),
        bias: Some(bias),
        running: Some(RunningStats::new(channels)),
        steps: vec![step],
        ulp_bound: None,
        stores_tolerances: false,
    })
}

fn positions(store: &Store, rank: usize, input: &RankTensor) -> Result<Vec<usize>, String> {
    let name = format!("r{rank}.sample_index");
    let index =
        |index: u64| usize::try_from(index).ok().filter(|&index| index < input.values.len());
    let outside = || {
        store.wrong(&format!(
            "{name} points outside of the {} values of the rank",
            input.values.len()
        ))
    };
    store.counts(&name)?.into_iter().map(|i| index(i).ok_or_else(outside)).collect()
}

fn ranks(case: &Case) -> (Vec<RankTensor>, Vec<RankTensor>) {
    let spatial: usize = case.spatial.iter().product();
    let mut inputs = Vec::new();
    let mut grad_outputs = Vec::new();
    let mut start = 0;
    for &batch in &case.batch_per_rank {
        let dims: Vec<usize> =
            [batch, case.channels].iter().chain(&case.spatial).copied().collect();
        let len = batch * case.channels * spatial;
        let place = |i: usize| ((start + i) as u64, (i / spatial) % case.channels);
        let x = (0..len).map(place).map(|(i, c)| x(i, c, case.seed)).collect();
        let dy = (0..len).map(place).map(|(i, _)| (unit(i, case.seed, 2) - 0.5) as f32).collect();
        inputs.push(RankTensor::new(dims.clone(), x));
        grad_outputs.push(RankTensor::new(dims, dy));
        start += len;
    }
    (inputs, grad_outputs)
}

/// u24 / 2^24.
fn unit(i: u64, seed: u64, tag: u64) -> f64 {
    let z = i.wrapping_add(seed << 40).wrapping_add(tag << 60);
    (splitmix64(z) >> 40) as f64 / 2f64.powi(24)
}

fn x(i: u64, c: usize, seed: u64) -> f32 {
    ((unit(i, seed, 1) - 0.5) * 4.0 * (1 + c % 5) as f64 + ((c % 7) as f64 - 3.0)) as f32
}

fn weight(c: usize) -> f32 {
    (0.5 + (c % 3) as f64 * 0.25) as f32 * if c % 4 == 3 { -1.0 } else { 1.0 }
}

fn bias(c: usize) -> f32 {
    ((c % 5) as f64 * 0.1 - 0.2) as f32
}

/// One round of splitmix64 (G. Steele, D. Lea, C. Flood, *Fast Splittable Pseudorandom Number
/// Generators*, OOPSLA 2014).
fn splitmix64(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
