//! The barriers of the kernels are what holds: on kernels whose `zero()` is a constant, which any
//! compiler knows, the same compiler makes the same cases fail.

use pollster::block_on;
use syncbn::{BatchNorm, BatchNormConfig, Device};

use super::common::normal;
use super::common::*;
use super::rewrite::rewritten_in;
use super::{honest, quads, signs};

/// How many seeds are tried, at most, until each case has failed: few styles regroup nothing that
/// matters to a case.
const SEEDS: u64 = 16;

/// The function that all barriers of kernels take their 0 from, and the same with a 0 that a
/// compiler knows.
const ZERO: &str = "fn zero() -> u32 {\n    return 0u - (params.channels >> 31u);\n}\n";
const KNOWN_ZERO: &str = "fn zero() -> u32 {\n    return 0u;\n}\n";

/// The source of a kernel whose barriers a compiler sees through.
///
/// # Panics
/// Where it has no `zero()`, or another one.
fn without_barriers(source: &str) -> String {
    assert_eq!(
        source.matches(ZERO).count(),
        1,
        "`zero()` of parts/settled.wgsl is not what this test takes out:\n{source}"
    );
    source.replace(ZERO, KNOWN_ZERO)
}

/// A million deviations between values and 0.
fn far_from_0(device: &Device) -> Result<(), String> {
    let batches = normal(&[&[8, 8, 11, 8], &[3, 8, 11, 4]], 171, |_, _| (1e4, 1e-2));
    quads::check("mean 1e4, deviation 1e-2", &batches, std::slice::from_ref(device))
}

/// Values where rounding decides which sign they have.
fn near_the_turn(device: &Device) -> Result<(), String> {
    for positions in signs::POSITIONS {
        signs::near_the_turn(device, positions, 0)?;
    }
    Ok(())
}

/// Ranks so far apart that the merged squares leave f32: an infinity that arithmetic gives makes
/// the channel NaN, and moves no running statistics. A NaN in x needs no barrier: it is told from
/// bits that are loaded.
fn beyond_f32(device: &Device) -> Result<(), String> {
    const FAR: usize = 1;
    let mut random = Random::new(172);
    let batches = [2e19, -2e19].map(|mean| {
        let dims = [3, 2, 20];
        let mut batch = Batch::random(&dims, &mut random);
        for index in 0..batch.values.len() {
            if batch.channel(index) == FAR {
                batch.values[index] = mean + 1e15 * batch.values[index];
            }
        }
        batch
    });
    let inputs = batches.each_ref().map(|batch| batch.upload(device));
    let norm = BatchNorm::new(BatchNormConfig::torch(2), device).unwrap();
    let outputs = norm.forward_train(&inputs).unwrap().output;
    for (rank, (batch, y)) in batches.iter().zip(read(&outputs)).enumerate() {
        if let Some(index) =
            (0..y.len()).find(|&index| y[index].is_nan() != (batch.channel(index) == FAR))
        {
            return Err(format!("rank {rank}, value {index} is {:e}", y[index]));
        }
    }
    let running = block_on(norm.running_stats()).unwrap().unwrap();
    if (running.mean[FAR], running.var[FAR]) != (0.0, 1.0) {
        return Err(format!("{running:?}"));
    }
    Ok(())
}

type Case = (&'static str, fn(&Device) -> Result<(), String>);
const CASES: [Case; 3] = [
    ("a mean of a million deviations", far_from_0),
    ("the sign of a value", near_the_turn),
    ("squares beyond f32", beyond_f32),
];

#[test]
fn without_the_barriers_of_the_kernels_fast_math_breaks_what_they_hold() {
    let adapter = adapter();
    let open = |seed, is_bare: bool| {
        open_with(&adapter, paths_of(seed), seed, move |source, style| {
            if is_bare {
                rewritten_in(&without_barriers(source), style)
            } else {
                rewritten_in(source, style)
            }
        })
    };
    let mut broken = [0; CASES.len()];
    let mut tried = 0;
    while tried < SEEDS && broken.contains(&0) {
        let seed = first_seed() + tried;
        let [whole, bare] = [false, true].map(|is_bare| open(seed, is_bare));
        for ((name, case), broken) in CASES.iter().zip(&mut broken) {
            case(&whole)
                .unwrap_or_else(|error| panic!("{name}, seed {seed}, with barriers: {error}"));
            if let Err(error) = case(&bare) {
                println!("{name}, seed {seed}, without barriers: {error}");
                *broken += 1;
            }
        }
        tried += 1;
    }
    let result = format!("of {tried} seeds, {broken:?} break {:?}", CASES.map(|(name, _)| name));
    println!("{result}");
    assert!(!broken.contains(&0), "{result}");
}

#[test]
fn without_fast_math_kernels_without_barriers_hold_the_same_on_an_honest_driver() {
    honest::require();
    let adapter = adapter();
    // One device for each choice of fast paths.
    for seed in first_seed()..first_seed() + 3 {
        let device =
            open_with(&adapter, paths_of(seed), seed, |source, _| without_barriers(source));
        for (name, case) in CASES {
            case(&device).unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}"));
        }
    }
}
