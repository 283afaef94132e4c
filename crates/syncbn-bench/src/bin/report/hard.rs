//! Owns the inputs: random ones, and hard ones, on which a careless mean or variance in f32 goes
//! wrong.

use syncbn::{DType, Layout, low_level::Epilogue};
use syncbn_testkit::{Random, storage};

use crate::problem::{Problem, Shard};

/// A problem under its name.
pub struct Case {
    pub name: String,
    pub problem: Problem,
}

/// Values of mean and deviation for a rank and a channel.
type Moments = fn(usize, usize) -> (f32, f32);

/// Normally distributed values by their moments.
const NORMAL: [(&str, Moments); 5] = [
    ("mean 1e6, deviation 1", |_, _| (1e6, 1.0)),
    ("mean 1e4, deviation 1e-2", |_, _| (1e4, 1e-2)),
    ("ranks at 0, 1e6, 2e6", |rank, _| (1e6 * rank as f32, 1.0)),
    ("variance far below eps", |_, channel| (channel as f32, 1e-5)),
    ("constant channels", |_, channel| (10_000.1 * (channel as f32 - 1.0), 0.0)),
];

/// (N, C, L) of three ranks: one tile of single values, then several tiles of quads. One rank has
/// very few values.
const SIZES: [[[usize; 3]; 3]; 2] =
    [[[8, 5, 77], [3, 5, 77], [1, 5, 7]], [[4, 5, 9004], [1, 5, 76], [1, 5, 4]]];
/// Number of values and height of a spike over zeros: every sum on its way is rounded to one side.
const SPIKES: [(usize, f32); 2] = [(4096, 1e6), (65_109, 1502.4112)];

/// (N, C, L) of two ranks: quads in both layouts, single values in both, and tiles enough to be
/// combined.
const KERNELS: [[[usize; 3]; 2]; 3] =
    [[[3, 8, 36], [2, 8, 4]], [[3, 5, 77], [1, 5, 3]], [[2, 3, 9001], [1, 3, 9]]];
/// Epilogues of the cases.
const EPILOGUES: [Epilogue; 4] =
    [Epilogue::NONE, Epilogue::ADD_RELU, Epilogue::RELU, Epilogue::ADD];

/// Epilogues and sizes that take every family of kernels.
pub fn kernels(epilogues: usize) -> impl Iterator<Item = (Epilogue, [[usize; 3]; 2])> {
    EPILOGUES.into_iter().take(epilogues).flat_map(|epilogue| KERNELS.map(|dims| (epilogue, dims)))
}

/// Every hard case in `sizes` sizes, the smaller first.
pub fn cases(sizes: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, dims) in SIZES.iter().take(sizes).enumerate() {
        for (seed, (name, moments)) in (1..).zip(NORMAL) {
            let mut problem = random(DType::F32, Layout::ChannelsFirst, Epilogue::NONE, dims, seed);
            distribute(&mut problem, moments, seed);
            let size = dims[0].map(|size| size.to_string()).join(", ");
            cases.push(Case { name: format!("{name}; ({size}) and less"), problem });
        }
        let (values, height) = SPIKES[place];
        let mut problem =
            random(DType::F32, Layout::ChannelsFirst, Epilogue::NONE, &[[1, 1, values]], 6);
        problem.ranks[0].x.fill(0.0);
        problem.ranks[0].x[values / 2] = height;
        cases.push(Case { name: format!("one spike of {height} over {values} zeros"), problem });
    }
    cases
}

/// Mean 0 and deviation 1 for x, the residual and the upstream gradient; weights around 1, biases
/// around 0.
pub fn random(
    dtype: DType,
    layout: Layout,
    epilogue: Epilogue,
    dims: &[[usize; 3]],
    seed: u64,
) -> Problem {
    let mut random = Random::new(seed);
    let mut draw =
        |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    let channels = dims[0][1];
    let weight = draw(channels).iter().map(|value| 1.0 + 0.25 * value).collect();
    let bias = draw(channels).iter().map(|value| 0.25 * value).collect();
    let mut shard = |&dims: &[usize; 3]| {
        let count = dims.iter().product();
        let mut values =
            || draw(count).into_iter().map(|value| storage::rounded(value, dtype)).collect();
        let residual = epilogue.adds_residual().then(&mut values);
        Shard { dims, x: values(), grad_output: values(), residual }
    };
    Problem {
        dtype,
        layout,
        epilogue,
        eps: 1e-5,
        weight,
        bias,
        ranks: dims.iter().map(&mut shard).collect(),
    }
}

fn distribute(problem: &mut Problem, moments: Moments, seed: u64) {
    let mut random = Random::new(!seed);
    for (rank, shard) in problem.ranks.iter_mut().enumerate() {
        let [_, channels, positions] = shard.dims;
        for (index, x) in shard.x.iter_mut().enumerate() {
            let (mean, deviation) = moments(rank, index / positions % channels);
            *x = mean + deviation * random.normal() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_as_hard_as_their_names_say() {
        let cases = cases(usize::MAX);
        assert_eq!(cases.len(), 12);
        let moments = |case: &Case| {
            let x: Vec<f64> = case.problem.ranks[0].x.iter().map(|&x| f64::from(x)).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
        };
        let (mean, var) = moments(&cases[0]);
        assert!((mean - 1e6).abs() < 1.0 && (0.8..1.2).contains(&var), "{mean}, {var}");
        let (mean, var) = moments(&cases[1]);
        // f32 has steps of 1e-3 at 1e4.
        assert!((mean - 1e4).abs() < 1e-2 && (0.8e-4..1.2e-4).contains(&var), "{mean}, {var}");
        assert!(
            cases[4].problem.ranks[1].x[..77].iter().all(|&x| x == cases[4].problem.ranks[0].x[0])
        );
        assert_eq!(cases[5].problem.ranks[0].x.iter().filter(|&&x| x != 0.0).count(), 1);
    }
}
