//! Two drivers in one process: lavapipe, SwiftShader and the host in one group, and SwiftShader by
//! itself, which truncates f16, and has no more than the portable 256 invocations and subgroups of
//! another size.
//!
//! These tests need both drivers. `scripts/test.sh` gets SwiftShader and runs them; without it they
//! fail, because a test that skips for want of a device tests nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;

use pollster::block_on;
use syncbn::{Device, device::FastPaths, low_level::Epilogue};
use syncbn_testkit::epilogue::bounds::check;
use syncbn_testkit::epilogue::problem::Problem;
use syncbn_testkit::reproducible::{FORMS, any_cut, findings, hosts, uncut, whole};
use syncbn_testkit::shape_kinds::Kind;
use syncbn_testkit::storage::{Layouts, Types};
use syncbn_testkit::{Random, kept};

/// How the drivers' adapters call themselves.
const LAVAPIPE: &str = "llvmpipe";
const SWIFTSHADER: &str = "SwiftShader";

/// The one adapter with this in its name.
fn adapter(name: &str) -> wgpu::Adapter {
    let mut all = block_on(Device::adapters());
    let names: Vec<String> = all.iter().map(|adapter| adapter.get_info().name).collect();
    all.retain(|adapter| adapter.get_info().name.contains(name));
    assert!(
        all.len() == 1,
        "these tests need one adapter called {name}, found {names:?}: run scripts/test.sh, or set \
        VK_ICD_FILENAMES to the manifest of lavapipe, a colon, and what scripts/swiftshader.sh \
        prints"
    );
    all.remove(0)
}

fn open(name: &str) -> Device {
    kept(block_on(Device::from_adapter(&adapter(name))).unwrap())
}

fn lavapipe() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| open(LAVAPIPE)).clone()
}

fn swiftshader() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| open(SWIFTSHADER)).clone()
}

/// Lavapipe, SwiftShader and the host, each in each place over the turns.
fn three(turn: usize) -> Vec<Device> {
    let mut devices = vec![lavapipe(), swiftshader(), Device::host()];
    devices.rotate_left(turn % 3);
    if turn / 3 % 2 == 1 {
        devices.swap(0, 1);
    }
    devices
}

/// Every combination of storage types, layouts and kind of shape; weight, bias and number of
/// dimensions in turn.
fn check_all(devices: impl Fn(usize) -> Vec<Device>) {
    let mut turn = 0;
    let mut worst = 0f64;
    for types in Types::all() {
        for kind in Kind::ALL {
            for layouts in Layouts::all() {
                let affine = [turn % 4 < 2, turn % 2 == 0];
                let dims = kind.dims(2 + turn / 4 % 4, turn as u64);
                let problem = Problem::random(&dims, &[types], Epilogue::NONE, affine, turn as u64);
                let what = format!("seed {turn}: {types:?}, {layouts:?}, {dims:?}, {affine:?}");
                worst = worst.max(
                    check(&problem, devices(turn), &[layouts])
                        .unwrap_or_else(|error| panic!("{what}: {error}")),
                );
                turn += 1;
            }
        }
    }
    println!("{turn} problems, worst error {worst:.3} of what is allowed");
}

#[test]
fn the_two_drivers_are_two_devices_that_differ() {
    let [lavapipe, swiftshader] = [adapter(LAVAPIPE), adapter(SWIFTSHADER)];
    for adapter in [&lavapipe, &swiftshader] {
        println!("{:?}\n{:?}\n{:?}", adapter.get_info(), adapter.features(), adapter.limits());
    }
    let has_f16 = |adapter: &wgpu::Adapter| adapter.features().contains(wgpu::Features::SHADER_F16);
    assert_eq!([has_f16(&lavapipe), has_f16(&swiftshader)], [true, false]);
    assert_ne!(self::lavapipe(), self::swiftshader());
}

#[test]
fn each_driver_is_found_sound_with_subgroups_and_conversions_of_its_own() {
    // SwiftShader truncates.
    for (device, subgroup_size, rounds_f16) in [(lavapipe(), 8, true), (swiftshader(), 4, false)] {
        let findings = device.findings().expect("a driver that was asked");
        println!("{device}: {findings:?}");
        assert_eq!(findings.defects, [], "{device}");
        assert_eq!(findings.subgroup_size, Some(subgroup_size), "{device}");
        assert_eq!(findings.signs_agree, Some(true), "{device}");
        assert_eq!(findings.rounds_f16, Some(rounds_f16), "{device}");
        assert_eq!(device.fast_paths(), Some(FastPaths::ALL), "{device}");
        // Neither rounds twice operations as one, or sums in another order than the source.
        let arithmetic = findings.arithmetic.expect("an answer");
        assert_eq!([arithmetic.contracts, arithmetic.reassociates], [false; 2], "{device}");
    }
}

#[test]
fn every_storage_follows_the_definition_over_both_drivers_and_the_host() {
    check_all(three);
}

#[test]
fn every_storage_follows_the_definition_on_swiftshader() {
    check_all(|_| vec![swiftshader(); 3]);
}

#[test]
fn ranks_may_store_in_types_and_layouts_of_their_own() {
    for seed in 5800..5900 {
        let mut random = Random::new(seed);
        let mut ranks = |end: usize| [0, 1, 2].map(|_| random.below(end));
        let types = ranks(Types::all().len()).map(|index| Types::all()[index]);
        let layouts = ranks(Layouts::all().len()).map(|index| Layouts::all()[index]);
        let [kind, dimensions, turn] = ranks(20);
        let dims = Kind::ALL[kind % 5].dims(2 + dimensions % 4, seed);
        let problem = Problem::random(&dims, &types, Epilogue::NONE, [true, true], seed);
        check(&problem, three(turn), &layouts).unwrap_or_else(|error| {
            panic!("seed {seed}: {types:?}, {layouts:?}, {dims:?}: {error}")
        });
    }
}

#[test]
fn several_ranks_per_driver_with_very_different_shares_follow_the_definition() {
    let devices = || {
        vec![
            swiftshader(),
            Device::host(),
            lavapipe(),
            swiftshader(),
            lavapipe(),
            swiftshader(),
            Device::host(),
        ]
    };
    let dims = [[1, 3, 1], [64, 3, 2], [0, 3, 5], [2, 3, 4999], [1, 3, 5], [0, 3, 1], [1, 3, 1]]
        .map(Vec::from);
    for (seed, types) in (5900..).zip(Types::all()) {
        for layouts in Layouts::all() {
            let problem = Problem::random(&dims, &[types], Epilogue::NONE, [true, true], seed);
            check(&problem, devices(), &[layouts])
                .unwrap_or_else(|error| panic!("seed {seed}: {types:?}, {layouts:?}: {error}"));
        }
    }
}

#[test]
fn a_mixed_group_gives_the_same_bits_in_every_run() {
    for (seed, types) in (6000..).zip(Types::all()) {
        let problem = Problem::random(
            &Kind::Tiles.dims(4, seed),
            &[types],
            Epilogue::NONE,
            [true, true],
            seed,
        );
        let layouts = Layouts::all()[seed as usize % 4];
        let run =
            || problem.run(three(seed as usize), &[layouts]).unwrap().map(|(_, pass)| pass.bits());
        assert!(run() == run(), "seed {seed}: {types:?}, {layouts:?}");
    }
}

#[test]
fn sums_of_integers_have_the_bits_of_the_host_over_both_drivers() {
    for form in 0..FORMS.len() {
        for last in [false, true] {
            let epilogue = if last { Epilogue::NONE } else { Epilogue::RELU };
            let whole = whole(form, last, epilogue);
            let expected = findings(&whole, &uncut(&whole), &hosts(1));
            for turn in [0, 4] {
                let cut = any_cut(whole.samples(), (form + turn) as u64);
                let all = three(turn);
                let devices: Vec<Device> =
                    (0..cut.len()).map(|rank| all[rank % 3].clone()).collect();
                let found = findings(&whole, &cut, &devices);
                found.assert_same(&expected, false, &format!("form {form}, {last}, {cut:?}"));
            }
        }
    }
}
