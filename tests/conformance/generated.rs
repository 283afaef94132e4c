//! Owns the cases that are made here, with `syncbn_reference` as their expected values: hard data
//! of sizes that no folder stores, process groups of ranks that are no neighbours, epilogues that
//! no folder has, and one ordinary case that the self-test works on.

use syncbn::low_level::epilogue_of;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, config::Activation, low_level::Epilogue};
use syncbn_testkit::Random;
use syncbn_testkit::epilogue::bounds::definition;

use crate::compare::{Check, Quantity};
use crate::conditioning;
use crate::epilogue;
use crate::formula::Formula;
use crate::oracle;
use crate::scenario::{Group, Observed, RankTensor, Scenario, Step};
use crate::ulp;

/// Where a value lies, for a recipe: its channel, its rank, and its place among the rank's values
/// of the channel.
struct Place {
    channel: usize,
    rank: usize,
    index: usize,
    /// A standard normal deviate.
    noise: f64,
}

struct Recipe {
    kind: &'static str,
    seed: u64,
    eps: f64,
    dims: Vec<Vec<usize>>,
    value: fn(Place) -> f64,
    epilogue: Epilogue,
}

/// Values of a stretch far from all others: longer than any tile that a workgroup holds in
/// registers (4096 values).
const STRETCH: usize = 5000;

/// A case of process groups, with a seed for each.
pub struct Generated {
    pub seeds: Vec<u64>,
    pub groups: Vec<Group>,
}

impl Generated {
    /// What it is called in the output.
    pub fn title(&self) -> String {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        format!("{} (seed {})", self.groups[0].scenario.kind, seeds.join(", "))
    }

    /// Ranks of all groups.
    pub fn world(&self) -> usize {
        self.groups.iter().map(|group| group.ranks.len()).sum()
    }
}

/// Every case but the ordinary one.
pub fn cases() -> Result<Vec<Generated>, String> {
    let mut cases = hard()?;
    cases.push(interleaved_groups()?);
    let seeds = EPILOGUES.map(|(_, seed, _)| seed);
    let groups = epilogues()?.into_iter().map(|scenario| vec![Group::of_all(scenario)]);
    cases.extend(groups.zip(seeds).map(|(groups, seed)| Generated { seeds: vec![seed], groups }));
    Ok(cases)
}

/// Kind, seed and epilogue.
const EPILOGUES: [(&str, u64, Epilogue); 9] = [
    ("generated:leaky_relu", 11, Epilogue::leaky_relu(0.01)),
    ("generated:add", 12, Epilogue::ADD),
    ("generated:add_relu", 13, Epilogue::ADD_RELU),
    ("generated:relu6", 14, Epilogue::of(Activation::Relu6)),
    ("generated:silu", 15, Epilogue::of(Activation::Silu)),
    ("generated:add_hardswish", 16, Epilogue::of(Activation::Hardswish).after_residual()),
    ("generated:gelu", 17, Epilogue::of(Activation::Gelu)),
    ("generated:add_gelu_tanh", 18, Epilogue::of(Activation::GeluTanh).after_residual()),
    ("generated:elu", 19, Epilogue::of(Activation::Elu(0.5))),
];

/// One step of training for each.
pub fn epilogues() -> Result<Vec<Scenario>, String> {
    let scenario = |(kind, seed, epilogue)| {
        let dims = vec![vec![3, 3, 4, 5], vec![0, 3, 4, 5], vec![1, 3, 2, 7]];
        let recipe =
            Recipe { kind, seed, eps: 1e-5, dims, value: |at| at.noise + at.rank as f64, epilogue };
        scenario(&recipe, &[true], None)
    };
    EPILOGUES.into_iter().map(scenario).collect()
}

fn hard() -> Result<Vec<Generated>, String> {
    let half = 1 << 19;
    let recipes = [
        Recipe {
            kind: "generated:long_channels",
            seed: 1,
            eps: 1e-5,
            // 2^20 + 3 values per channel, so that the last tile is cut short.
            dims: vec![vec![1, 2, half], vec![1, 2, half + 3]],
            value: |at| if at.channel == 0 { 1e4 + 1e-2 * at.noise } else { 1e6 + at.noise },
            epilogue: Epilogue::NONE,
        },
        Recipe {
            kind: "generated:outlying_stretch",
            seed: 2,
            eps: 1e-5,
            dims: vec![vec![1, 2, 40_000], vec![2, 2, 20_000]],
            value: |at| {
                let outlying =
                    at.rank == at.channel && (17_000..17_000 + STRETCH).contains(&at.index);
                if outlying { 1e6 } else { at.noise }
            },
            epilogue: Epilogue::NONE,
        },
        Recipe {
            kind: "generated:outlying_start",
            seed: 3,
            eps: 1e-5,
            dims: vec![vec![1, 2, 40_000], vec![2, 2, 20_000]],
            value: |at| if at.rank == at.channel && at.index < STRETCH { 1e6 } else { at.noise },
            epilogue: Epilogue::NONE,
        },
        Recipe {
            kind: "generated:distant_ranks",
            seed: 4,
            eps: 1e-5,
            dims: vec![vec![2, 2, 1000], vec![1, 2, 3000], vec![0, 2, 7], vec![3, 2, 500]],
            value: |at| 1e6 * at.rank as f64 + at.noise,
            epilogue: Epilogue::NONE,
        },
        Recipe {
            kind: "generated:tiny_deviation",
            seed: 5,
            eps: 1e-12,
            dims: vec![vec![2, 4, 300], vec![1, 4, 700]],
            value: |at| {
                [0.0, 1.0, -1e-3, 1e3][at.channel] + [1e-6, 1e-6, 1e-9, 1e-3][at.channel] * at.noise
            },
            epilogue: Epilogue::NONE,
        },
        Recipe {
            kind: "generated:huge_mean_uneven",
            seed: 6,
            eps: 1e-5,
            dims: vec![vec![1, 2], vec![30, 2], vec![0, 2], vec![2000, 2]],
            value: |at| [1e6, -1e7][at.channel] + [1.0, 2.0][at.channel] * at.noise,
            epilogue: Epilogue::NONE,
        },
    ];
    let build = |recipe: Recipe| {
        let group = Group::of_all(scenario(&recipe, &[true], Some(ulp::BOUND))?);
        Ok(Generated { seeds: vec![recipe.seed], groups: vec![group] })
    };
    recipes.into_iter().map(build).collect()
}

/// Groups that lie within each other, one with an empty rank and one of a single rank: two steps of
/// training, one of evaluation.
fn interleaved_groups() -> Result<Generated, String> {
    let recipe = |seed: u64, dims: &[[usize; 3]], value: fn(Place) -> f64| Recipe {
        kind: "generated:interleaved_groups",
        seed,
        eps: 1e-5,
        dims: dims.iter().map(|dims| dims.to_vec()).collect(),
        value,
        epilogue: Epilogue::NONE,
    };
    let groups: [(&[usize], Recipe); 3] = [
        (&[0, 2, 5], recipe(8, &[[3, 3, 4], [0, 3, 4], [1, 3, 2]], |at| at.noise + at.rank as f64)),
        (&[1, 4], recipe(9, &[[2, 3, 5], [4, 3, 1]], |at| 3.0 + 2.0 * at.noise)),
        (&[3], recipe(10, &[[4, 3, 3]], |at| 0.5 * at.noise - 1.0)),
    ];
    let group = |(j, (ranks, recipe)): (usize, &(&[usize], Recipe))| {
        let mut scenario = scenario(recipe, &[true, true, false], Some(ulp::BOUND))?;
        scenario.name = format!("{}.g{j}", scenario.name);
        // Ranks in these names count within the group.
        for check in scenario.steps.iter_mut().flat_map(|step| &mut step.checks) {
            check.name = format!("g{j}.{}", check.name);
        }
        Ok(Group { ranks: ranks.to_vec(), scenario })
    };
    let seeds = groups.iter().map(|(_, recipe)| recipe.seed).collect();
    Ok(Generated {
        seeds,
        groups: groups.iter().enumerate().map(group).collect::<Result<_, String>>()?,
    })
}

/// Well-conditioned data on uneven ranks, one of them empty: two steps of training, one of
/// evaluation.
pub fn ordinary() -> Result<Scenario, String> {
    let recipe = Recipe {
        kind: "ordinary",
        seed: 7,
        eps: 1e-5,
        dims: vec![vec![3, 3, 4], vec![0, 3, 4], vec![1, 3, 2]],
        value: |at| [0.5, -2.0, 8.0][at.channel] + 0.75 * at.rank as f64 + at.noise,
        epilogue: Epilogue::NONE,
    };
    scenario(&recipe, &[true, true, false], Some(ulp::BOUND))
}

fn scenario(recipe: &Recipe, modes: &[bool], ulp_bound: Option<f64>) -> Result<Scenario, String> {
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
