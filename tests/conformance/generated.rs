//! Owns the cases that are made here, with `syncbn_reference` as their expected values: hard data
//! of sizes that no folder stores, process groups of ranks that are no neighbours, epilogues that
//! no folder has, and one ordinary case that the self-test works on.
//!
//! `build` makes a case of a recipe.

mod build;

use syncbn::{config::Activation, low_level::Epilogue};

use crate::scenario::{Group, Scenario};
use crate::ulp;
use build::scenario;

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
