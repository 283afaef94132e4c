//! Padded batches of many forms against the definition of what counts of them.

use syncbn::low_level::Epilogue;

use super::{Padded, pass};
use crate::epilogue::bounds::Expected;
use crate::epilogue::problem::{CURVES, EPILOGUES, Problem, Uses};
use crate::placement::Placement;
use crate::storage::{Layouts, Types};

/// Ranks of padded batches: quads of positions and of channels, single values, samples without a
/// value, a rank without one, several tiles per sample, a feature axis, one channel, one step.
fn cases() -> Vec<Vec<Padded>> {
    let of = |ranks: &[(&[usize], &[u32])]| {
        ranks.iter().map(|(dims, lengths)| Padded::new(dims, lengths)).collect()
    };
    vec![
        of(&[(&[3, 5, 16], &[16, 0, 7]), (&[1, 5, 4], &[3]), (&[2, 5, 8], &[0, 0])]),
        of(&[(&[4, 3, 7], &[7, 1, 0, 4]), (&[2, 3, 9], &[0, 9])]),
        of(&[(&[3, 8, 5], &[2, 5, 4]), (&[2, 8, 6], &[1, 0])]),
        of(&[(&[2, 3, 6, 2], &[5, 2]), (&[2, 3, 3, 4], &[2, 0])]),
        of(&[(&[2, 2, 40_000], &[33_333, 5]), (&[1, 2, 11_003], &[9001])]),
        of(&[(&[9, 40, 36], &[36, 35, 1, 0, 17, 18, 19, 20, 4])]),
        of(&[(&[3, 1, 9], &[4, 9, 0])]),
        of(&[(&[6, 4, 1], &[1, 0, 1, 1, 0, 1])]),
    ]
}

fn problem_of(ranks: &[Padded], types: Types, epilogue: Epilogue, seed: u64) -> Problem {
    let dims: Vec<Vec<usize>> = ranks.iter().map(Padded::packed_dims).collect();
    Problem::random(&dims, &[types], epilogue, [true, true], seed)
}

/// How many problems are checked.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Problems of every case in every layout.
    pub per_layout: usize,
    /// Of so many of them, one is checked.
    pub one_in: usize,
}

impl Amount {
    /// All of so many problems of every case in every layout.
    pub fn all(per_layout: usize) -> Self {
        Self { per_layout, one_in: 1 }
    }
}

/// Checks every case in every layout, in storage types and epilogues in turn.
pub fn check_all(on: impl Placement, keeps_mask: bool, amount: Amount) {
    let mut worst = 0f64;
    let mut turn = 0;
    let mut run = 0;
    let epilogues: Vec<Epilogue> = EPILOGUES.into_iter().chain(CURVES).collect();
    for ranks in cases() {
        for layouts in Layouts::all() {
            for _ in 0..amount.per_layout {
                let number = turn;
                turn += 1;
                if number % amount.one_in != 0 {
                    continue;
                }
                run += 1;
                // Coprime to the other numbers of turns: everything meets everything.
                let types = Types::all()[number * 5 % Types::all().len()];
                let epilogue = epilogues[(number + number / 4) % epilogues.len()];
                let mut problem = problem_of(&ranks, types, epilogue, number as u64);
                problem.config = problem
                    .config
                    .with_activation_mask(keeps_mask && EPILOGUES.contains(&epilogue));
                let mut layer = problem.layer(on.devices(ranks.len()));
                for uses in Uses::ALL {
                    let what = format!("{ranks:?} {layouts:?} {types:?} {epilogue:?} {uses:?}");
                    layer.set_running_stats(problem.running.clone()).unwrap();
                    let found = pass(&problem, &ranks, &layer, layouts, uses)
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    let share = Expected::of(&problem, uses).compare(&problem, &found);
                    worst = worst.max(share.unwrap_or_else(|error| panic!("{what}: {error}")));
                }
            }
        }
    }
    println!("{run} of {turn} problems, worst error {worst:.3} of what is allowed");
}
