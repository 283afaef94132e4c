//! Makes cases of recipes: data from a seed, and what the definition gives for it, as checks.

use syncbn::BatchNormConfig;
use syncbn::low_level::epilogue_of;
use syncbn::stats::RunningStats;
use syncbn_testkit::Random;
use syncbn_testkit::epilogue::bounds::definition;

use super::{Place, Recipe};
use crate::compare::{Check, Quantity};
use crate::conditioning;
use crate::epilogue;
use crate::formula::Formula;
use crate::oracle;
use crate::scenario::{Observed, RankTensor, Scenario, Step};
use crate::ulp;

/// One group of a recipe, with a step for each mode: whether it trains.
pub(super) fn scenario(
    recipe: &Recipe,
    modes: &[bool],
    ulp_bound: Option<f64>,
) -> Result<Scenario, String> {
    let channels = recipe.dims[0][1];
    let mut random = Random::new(recipe.seed);
    let weight = (0..channels)
        .map(|c| (0.5 + random.uniform()) as f32 * if c % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    let bias = (0..channels).map(|_| (random.uniform() - 0.5) as f32).collect();
    let adds = recipe.epilogue.adds_residual();
    let steps = modes.iter().enumerate().map(|(i, &train)| Step {
        padded: None,
        name: format!("s{}", i + 1),
        train,
        repeats: 1,
        inputs: recipe
            .dims
            .iter()
            .enumerate()
            .map(|(rank, dims)| input(recipe, rank, dims, &mut random))
            .collect(),
        grad_outputs: Some(recipe.dims.iter().map(|dims| noise(dims, &mut random)).collect()),
        cotangents: None,
        residuals: adds.then(|| recipe.dims.iter().map(|dims| noise(dims, &mut random)).collect()),
        count: None,
        num_batches_tracked: None,
        checks: Vec::new(),
    });
    let mut scenario = Scenario {
        name: recipe.kind.to_owned(),
        kind: recipe.kind.to_owned(),
        config: BatchNormConfig::torch(channels)
            .with_eps(recipe.eps)
            .with_residual(recipe.epilogue.residual)
            .with_activation(recipe.epilogue.activation),
        weight: Some(weight),
        bias: Some(bias),
        running: Some(RunningStats::new(channels)),
        steps: steps.collect(),
        ulp_bound,
        stores_tolerances: false,
    };
    avoid_kinks(&mut scenario)?;
    let observed = oracle::observe(&scenario, Formula::Definition)?;
    let mut old = (vec![0.0; channels], vec![1.0; channels]);
    for (i, observed) in observed.into_iter().enumerate() {
        expect(&mut scenario, i, observed, &mut old)?;
    }
    ulp::measure(&mut scenario);
    Ok(scenario)
}

/// Takes the upstream gradient from values so near to a kink of the activation that rounding
/// decides on their side.
fn avoid_kinks(scenario: &mut Scenario) -> Result<(), String> {
    if !epilogue_of(&scenario.config).activates() {
        return Ok(());
    }
    for i in 0..scenario.steps.len() {
        let batch = oracle::statistics(&scenario.steps[i].inputs)?;
        let v = epilogue::entering(scenario, &scenario.steps[i], (&batch.mean, &batch.var_biased));
        let upstream =
            scenario.steps[i].grad_outputs.iter_mut().flatten().flat_map(|rank| &mut rank.values);
        // Far above the tolerance of y.
        let kinks = definition(epilogue_of(&scenario.config)).kinks();
        let is_near = |v: &f64| kinks.iter().any(|kink| (v - kink).abs() < 1e-3);
        upstream.zip(v.concat()).filter(|(_, v)| is_near(v)).for_each(|(g, _)| *g = 0.0);
    }
    Ok(())
}

/// Turns what the oracle gave for step `i` into checks; `old` are the running statistics before it.
fn expect(
    scenario: &mut Scenario,
    i: usize,
    oracle: Observed,
    old: &mut (Vec<f64>, Vec<f64>),
) -> Result<(), String> {
    let step = &scenario.steps[i];
    let k = &step.name;
    let given = &*old;
    let batch = oracle.statistics.as_ref();
    let (mean, var) = batch.map_or((&given.0, &given.1), |batch| (&batch.mean, &batch.var_biased));
    let facts = conditioning::of_step(scenario, step, (mean, var));
    let each = |tolerance: fn(&conditioning::Channel) -> f64| -> Vec<f64> {
        facts.iter().map(tolerance).collect()
    };
    let tol_dx = if batch.is_some() {
        conditioning::Channel::tol_dx
    } else {
        conditioning::Channel::tol_dx_given
    };

    let gradients = oracle.gradients.ok_or("the oracle gave no gradients")?;
    let weights = gradients.grad_weights.unwrap_or_default();
    let biases = gradients.grad_biases.unwrap_or_default();
    let mut checks = Vec::new();
    for (rank, input) in step.inputs.iter().enumerate() {
        let at = |what: &str| format!("{k}.r{rank}.{what}");
        let y = oracle.outputs[rank].clone();
        let dx = gradients.grad_inputs[rank].clone();
        // A residual is one more term of y, and its gradient is made by no arithmetic but a
        // curve's.
        let residual = step.residuals.as_ref().map_or(0.0, |ranks| largest(&ranks[rank].values));
        let tol_y =
            each(conditioning::Channel::tol_y).iter().map(|y| y + 1e-5 * residual).collect();
        let is_curve = epilogue_of(&scenario.config).curve().is_some();
        let tol_dz = each(if is_curve { conditioning::Channel::tol_dz } else { |_| 0.0 });
        if let Some(dz) = gradients.grad_residuals.as_ref().map(|ranks| ranks[rank].clone()) {
            checks.push(Check::values(
                at("dz"),
                Quantity::GradResidual(rank),
                input.map(),
                dz,
                tol_dz,
            ));
        }
        checks.push(Check::values(at("y"), Quantity::Output(rank), input.map(), y, tol_y));
        checks.push(Check::values(
            at("dx"),
            Quantity::GradInput(rank),
            input.map(),
            dx,
            each(tol_dx),
        ));
        let tol_dweight = each(conditioning::Channel::tol_dweight);
        checks.push(Check::vector(
            at("dweight"),
            Quantity::GradWeight(rank),
            weights[rank].clone(),
            tol_dweight,
        ));
        let tol_dbias = each(conditioning::Channel::tol_dbias);
        checks.push(Check::vector(
            at("dbias"),
            Quantity::GradBias(rank),
            biases[rank].clone(),
            tol_dbias,
        ));
    }
    let running = oracle.running.ok_or("the oracle kept no running statistics")?;
    if let Some(batch) = batch {
        let mean = batch.mean.clone();
        let var = batch.var_biased.clone();
        checks.push(Check::vector(
            format!("{k}.mean"),
            Quantity::Mean,
            mean,
            each(conditioning::Channel::tol_mean),
        ));
        checks.push(Check::vector(
            format!("{k}.var"),
            Quantity::VarBiased,
            var,
            each(conditioning::Channel::tol_var),
        ));
        let f = scenario.config.momentum.new_weight(running.2);
        let tol_mean =
            facts.iter().zip(&given.0).map(|(c, &old)| c.tol_running_mean(old, f)).collect();
        let unbiased = |c: &conditioning::Channel| c.count / (c.count - 1.0);
        let tol_var = facts
            .iter()
            .zip(&given.1)
            .map(|(c, &old)| c.tol_running_var(old, f, unbiased(c)))
            .collect();
        let name = format!("{k}.running_mean");
        let values = running.0.clone();
        checks.push(Check::vector(name, Quantity::RunningMean, values, tol_mean));
        let name = format!("{k}.running_var");
        let values = running.1.clone();
        checks.push(Check::vector(name, Quantity::RunningVar, values, tol_var));
    }
    let step = &mut scenario.steps[i];
    step.checks = checks;
    step.count = oracle.statistics.map(|batch| batch.count);
    step.num_batches_tracked = Some(running.2);
    *old = (running.0, running.1);
    Ok(())
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest, value| f64::from(value.abs()).max(largest))
}

fn input(recipe: &Recipe, rank: usize, dims: &[usize], random: &mut Random) -> RankTensor {
    let spatial: usize = dims[2..].iter().product();
    let value = |i: usize| {
        let row = i / spatial;
        let inner = i % spatial;
        let channel = row % dims[1];
        let index = row / dims[1] * spatial + inner;
        (recipe.value)(Place { channel, rank, index, noise: random.normal() }) as f32
    };
    RankTensor::new(dims.to_vec(), (0..dims.iter().product()).map(value).collect())
}

fn noise(dims: &[usize], random: &mut Random) -> RankTensor {
    let values = (0..dims.iter().product()).map(|_| random.normal() as f32).collect();
    RankTensor::new(dims.to_vec(), values)
}
