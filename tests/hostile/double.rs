//! Double backward: the definition in every epilogue, storage type and layout, and the range of
//! f32.

use super::common;
use super::common::epilogue::double;

#[path = "../it/double_backward/range.rs"]
mod range;

use common::epilogue::problem::{EPILOGUES, Problem, Uses, shape};
use common::storage::{DTYPES, Types};
use common::*;
use double::Case;
use syncbn::Layout;

#[test]
fn second_derivatives_follow_the_definition() {
    let one_in = one_in(DTYPES.len());
    for (epilogue, seed) in EPILOGUES.into_iter().zip(1..) {
        for (number, dtype) in DTYPES.into_iter().enumerate() {
            if !(number + seed as usize).is_multiple_of(one_in) {
                continue;
            }
            for (turn, layout) in
                [(0, Layout::ChannelsLast), (3, Layout::ChannelsFirst), (4, Layout::ChannelsLast)]
            {
                let types = [Types { x: dtype, other: dtype }];
                let problem = Problem::random(&shape(turn), &types, epilogue, [true, true], seed);
                let case = Case::new(problem, seed);
                for uses in Uses::ALL {
                    let mut found = vec![case.run(Kind::Gpu, layout, uses)];
                    // The kernels differ in the merge alone, which knows no storage type.
                    if turn == 0 {
                        found.push(case.run_on_one_gpu(&virtual_gpus()[0], layout, uses));
                    }
                    for found in &found {
                        case.compare(uses, found).unwrap_or_else(|error| {
                            panic!("{epilogue:?}, {dtype}, {layout:?}, {uses:?}, {turn}: {error}")
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn large_means_of_x_and_of_gradients_cost_little() {
    let dims = [vec![40, 4, 48], vec![9, 4, 5]];
    for (of_x, of_gradients) in [(1e4, 0.0), (0.0, 100.0), (1e3, 30.0)] {
        let mut case = Case::new(Problem::plain(&dims, EPILOGUES[0], 3), 3);
        let shift = |batches: &mut Vec<Batch>, by: f32| {
            batches.iter_mut().flat_map(|batch| &mut batch.values).for_each(|value| *value += by);
        };
        shift(&mut case.problem.x, of_x);
        shift(&mut case.problem.g, of_gradients);
        case.v.iter_mut().for_each(|v| shift(v, of_gradients));
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let found = [
                case.run(Kind::Gpu, layout, Uses::Group),
                case.run_on_one_gpu(&virtual_gpus()[0], layout, Uses::Group),
            ];
            for found in found {
                let share = case.compare(Uses::Group, &found);
                share.unwrap_or_else(|error| panic!("{of_x}, {of_gradients}, {layout:?}: {error}"));
            }
        }
    }
}
