//! Words of tiles that are combined with carries.

use syncbn::DType;
use syncbn::Layout;
use syncbn::low_level::Shape;
use syncbn::low_level::plan::{Activation, DeviceCaps, Role, SumsPlan, Taken};

use super::common::Random;
use super::dispatch::run;
use super::sources;

/// Words of a tile: most are as large as words get, so that every addition carries.
fn words(count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    let word = |_| match random.below(4) {
        0 => random.below(1 << 16) as u32,
        1 => u32::MAX,
        _ => u32::MAX - random.below(1 << 20) as u32,
    };
    (0..count).map(word).collect()
}

/// Σs, Σt and Σs·t of a channel from the words of its tiles, by the definition.
fn expected(tiles: &[u32], channels: usize, channel: usize) -> [u128; 3] {
    let mut all = [0u128; 3];
    for tile in tiles.chunks(12 * channels) {
        let words = tile[12 * channel..][..12].iter().map(|&word| u128::from(word));
        let halves: Vec<u128> =
            words.collect::<Vec<_>>().chunks(2).map(|of| of[0] + (of[1] << 16)).collect();
        let [s, t, high, middle, low, _] = halves[..] else { panic!("six sums") };
        all[0] += s;
        all[1] += t;
        all[2] += (high << 30) + (middle << 15) + low;
    }
    all
}

#[test]
fn words_of_tiles_are_combined_without_a_lost_carry() {
    let last = Layout::ChannelsLast;
    let shapes = [
        (vec![1, 3, 5], Layout::ChannelsFirst),
        (vec![2, 5, 70_001], Layout::ChannelsFirst),
        (vec![9_000, 3, 40], last),
    ];
    for (turn, (dims, layout)) in shapes.into_iter().enumerate() {
        let shape = Shape::new(&dims, layout).unwrap();
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let plan = SumsPlan::integers(x, &DeviceCaps::PORTABLE).unwrap().unwrap();
        let tiles = words(plan.tiles_bytes as usize / 4, turn as u64);
        let channels = plan.local_bytes as usize / 32;
        for taken in [Taken::Integers, Taken::Range] {
            let combine = plan.taking(taken).combine.unwrap();
            for source in sources(&combine.variant.source()) {
                let found = run(&combine, &source, |role| match role {
                    Role::Tiles => tiles.clone(),
                    _ => vec![7; plan.local_bytes as usize / 4],
                });
                for (channel, found) in found[&Role::Local].chunks(8).enumerate() {
                    let what = format!("{dims:?}, {taken:?}, channel {channel}");
                    if taken == Taken::Range {
                        let most = |end: usize| {
                            tiles.chunks(12).skip(channel).step_by(channels).map(|of| of[end]).max()
                        };
                        assert_eq!([Some(found[0]), Some(found[1])], [most(0), most(1)], "{what}");
                        continue;
                    }
                    let number = |words: &[u32]| {
                        words.iter().rev().fold(0u128, |all, &word| all << 32 | u128::from(word))
                    };
                    let found = [number(&found[..2]), number(&found[2..4]), number(&found[4..])];
                    assert_eq!(found, expected(&tiles, channels, channel), "{what}");
                }
            }
        }
    }
}
