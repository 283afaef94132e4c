//! The seeds are what they are said to be, every property holds on them and on their prefixes, and
//! every target is a program.
#![allow(clippy::unwrap_used, missing_docs)]

use syncbn::low_level::{Frame, recode_list, recode_merged, state_from_message};
use syncbn_fuzz::{TARGETS, seeds};

/// Alone in its process: what a property allocates is counted for all threads together.
#[test]
fn every_property_holds_on_the_seeds_and_on_what_is_left_of_them() {
    for (name, property, seeds) in TARGETS {
        let seeds = seeds();
        assert!(seeds.len() >= 3, "{name}");
        for seed in seeds {
            (0..=seed.len()).for_each(|end| property(&seed[..end]));
            for place in 0..seed.len() {
                let mut flipped = seed.clone();
                flipped[place] ^= 0x80 >> (place % 8);
                property(&flipped);
            }
        }
    }
    assert!(seeds::frames().iter().all(|seed| Frame::decode(seed).is_ok()));
    assert!(seeds::lists().iter().all(|seed| recode_list(seed).is_ok()));
    assert!(seeds::merged().iter().all(|seed| recode_merged(seed).is_ok()));
    assert!(seeds::state_messages().iter().all(|seed| state_from_message(seed).is_ok()));
    let config = |seed: &Vec<u8>| serde_json::from_slice::<syncbn::BatchNormConfig>(seed);
    assert!(seeds::configs().iter().all(|seed| config(seed).unwrap().validate().is_ok()));
    assert_eq!(programs(), TARGETS.iter().map(|target| target.0).collect::<Vec<_>>());
}

/// The programs of the folder of fuzz targets, in the order of the manifest: without layers, those
/// that need none.
fn programs() -> Vec<String> {
    let manifest = include_str!("../Cargo.toml");
    let name = |path: &str| path.strip_suffix(".rs\"").map(str::to_owned);
    manifest
        .split("path = \"fuzz_targets/")
        .skip(1)
        .filter(|rest| {
            let needs_layers = rest.lines().nth(1).is_some_and(|line| line.contains("\"layers\""));
            cfg!(feature = "layers") || !needs_layers
        })
        .filter_map(|rest| name(rest.lines().next()?))
        .collect()
}
