//! NaN and infinity in 16-bit activations: they reach exactly their channel, also where a word
//! holds two channels; and results too large for f16.

use half::f16;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, DType, SyncBatchNorm, low_level::Epilogue};

use super::common::*;
use super::devices::On;
use super::problem::{Pass, Problem, Uses};
use super::stored::{Layouts, Types};

/// Odd sizes, one position, and several tiles; the last rank is empty.
fn shapes() -> [Vec<Vec<usize>>; 3] {
    [[3, 5, 7], [7, 5, 1], [3, 3, 1367]]
        .map(|dims| vec![dims.to_vec(), vec![1, dims[1], 3], vec![0, dims[1], 3]])
}

/// What is not finite in a run, and where.
struct Poison {
    value: f32,
    rank: usize,
    index: usize,
}

impl Poison {
    /// The first or last value of a middle channel, whose words belong to its neighbours too, or
    /// the very last value.
    fn new(batches: &[Batch], turn: usize) -> Self {
        let rank = turn % 2;
        let inner: usize = batches[rank].dims[2..].iter().product();
        let end = batches[rank].values.len();
        let index = [inner, 2 * inner - 1, end - 1][turn / 2 % 3];
        Self { value: [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][turn % 3], rank, index }
    }
}

/// What may differ between the clean and the poisoned result of one kind.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Nothing,
    Value,
    Channel,
}

/// Everything that the poison reaches is NaN (or at a single value not finite), everything else has
/// the clean run's bits.
fn assert_reaches(
    what: &str,
    batches: &[Batch],
    poison: &Poison,
    reach: Reach,
    [found, clean]: [&[Vec<f32>]; 2],
) {
    let poisoned = batches[poison.rank].channel(poison.index);
    for (rank, batch) in batches.iter().enumerate() {
        for (index, (found, clean)) in found[rank].iter().zip(&clean[rank]).enumerate() {
            let as_expected = match reach {
                Reach::Channel if batch.channel(index) == poisoned => found.is_nan(),
                Reach::Value if (rank, index) == (poison.rank, poison.index) => !found.is_finite(),
                _ => found.to_bits() == clean.to_bits(),
            };
            assert!(as_expected, "{what}, rank {rank}, value {index}: {found}, clean {clean}");
        }
    }
}

/// The gradients of parameters: those of other channels have the clean run's bits.
fn assert_other_channels(what: &str, poisoned: usize, [found, clean]: [&Pass; 2]) {
    let vectors = |pass: &Pass| {
        [pass.grad_weights.clone().unwrap(), pass.grad_biases.clone().unwrap()].concat()
    };
    for (found, clean) in vectors(found).iter().zip(&vectors(clean)) {
        for (channel, (found, clean)) in found.iter().zip(clean).enumerate() {
            assert!(
                channel == poisoned || found.to_bits() == clean.to_bits(),
                "{what}: gradient of channel {channel}"
            );
        }
    }
}

#[test]
fn what_is_not_finite_reaches_exactly_its_channel() {
    let mut turn = 0;
    for types in Types::all()
        .into_iter()
        .filter(|types| types != &Types { x: DType::F32, other: DType::F32 })
    {
        for layouts in Layouts::all() {
            for on in On::ALL {
                turn += 1;
                let clean = Problem::random(
                    &shapes()[turn % 3],
                    &[types],
                    Epilogue::NONE,
                    [true, true],
                    turn as u64,
                );
                let run = |problem: &Problem| problem.run(on.devices(3), &[layouts]).unwrap();
                let clean_passes = run(&clean);
                for in_g in [false, true] {
                    let mut problem = clean.clone();
                    let batches = if in_g { &mut problem.g } else { &mut problem.x };
                    let poison = Poison::new(batches, turn);
                    batches[poison.rank].values[poison.index] = poison.value;
                    let passes = run(&problem);
                    for ((uses, found), (_, clean)) in passes.iter().zip(&clean_passes) {
                        let what = format!(
                            "turn {turn}, {types:?}, {layouts:?}, {on:?}, {uses:?}, in g: {in_g}"
                        );
                        let [y, dx] = match (uses, in_g) {
                            (Uses::Group, false) => [Reach::Channel; 2],
                            (Uses::Group, true) => [Reach::Nothing, Reach::Channel],
                            (Uses::Running, false) => [Reach::Value, Reach::Nothing],
                            (Uses::Running, true) => [Reach::Nothing, Reach::Value],
                        };
                        assert_reaches(&what, &problem.x, &poison, y, [&found.y, &clean.y]);
                        assert_reaches(
                            &what,
                            &problem.x,
                            &poison,
                            dx,
                            [&found.grad_inputs, &clean.grad_inputs],
                        );
                        let channel = problem.x[poison.rank].channel(poison.index);
                        assert_other_channels(&what, channel, [found, clean]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_result_beyond_the_largest_f16_is_infinite_and_its_neighbours_are_not() {
    // 60,000 and 65,156.25 round to f16; 65,625 and −120,000 are beyond 65,520. Products in f32 are
    // exact here.
    let x = [1.0, 1.0859375, 1.09375, -2.0, 0.5].map(f16::from_f32);
    let weight = [60_000.0, 1.0];
    let config = BatchNormConfig::torch(2).with_eps(0.0).with_bias(false);
    for on in [On::Native, On::Portable, On::Host] {
        let mut layer = SyncBatchNorm::new(config.clone(), on.devices(1)).unwrap();
        layer.set_parameters(Some(&weight), None).unwrap();
        let running =
            RunningStats { mean: vec![0.0; 2], var: vec![1.0; 2], num_batches_tracked: 1 };
        layer.set_running_stats(running).unwrap();
        let input = layer.devices()[0].upload(&[1, 2, 5], &[x, x].concat()).unwrap();
        let y = block_on(layer.forward_eval(&input)).unwrap().output;
        let y: Vec<f16> = block_on(y.to_vec_of()).unwrap();
        let expected: Vec<f16> =
            weight.iter().flat_map(|w| x.map(|x| f16::from_f32(x.to_f32() * w))).collect();
        assert_eq!(y, expected, "{on:?}");
        assert_eq!(y.iter().filter(|y| y.is_infinite()).count(), 2);
    }
}
