//! Decoding of damaged and invented bytes: an error or a frame, never a panic, never the memory
//! that they claim.

use std::time::Duration;

use stats_alloc::Region;
use syncbn::low_level::Frame;

use crate::{COUNTED, FIXED_BYTES, frames};
use syncbn_testkit::Random;

const SEED: u64 = 7;
const MUTATIONS: usize = 300_000;
const INVENTIONS: usize = 100_000;

/// Measurements of an allocation before it is believed, 1 ms apart: threads of other tests are
/// counted too, now and then.
const MEASUREMENTS: usize = 200;

/// What comes of `work`, and the bytes that it allocates, those that it frees again included: the
/// first measurement of at most `enough`, or the least of all.
fn counted<T>(enough: usize, work: impl Fn() -> T) -> (T, usize) {
    let measure = || {
        let region = Region::new(COUNTED);
        let result = work();
        (result, region.change().bytes_allocated)
    };
    let (result, mut least) = measure();
    for _ in 1..MEASUREMENTS {
        if least <= enough {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        least = least.min(measure().1);
    }
    (result, least)
}

/// Decodes; a frame must encode to the same bytes, and nothing may take more than a few times the
/// memory of the bytes.
fn decode(bytes: &[u8]) -> bool {
    // A node of no channel is 20 bytes there and 48 here, in a vector that grows by doubling from
    // four; a channel's 16 bytes are copied twice.
    let allowed = 5 * bytes.len() + 256;
    let (decoded, allocated) = counted(allowed, || Frame::decode(bytes));
    assert!(
        allocated <= allowed,
        "decoding {} bytes allocates {allocated}: {bytes:02x?}",
        bytes.len()
    );
    let Ok(frame) = decoded else { return false };
    assert_eq!(frame.encode(), bytes, "two frames that are told apart by nobody");
    true
}

/// The count must notice memory that is given back at once, and little of it.
#[test]
fn memory_is_counted() {
    for bytes in [1, 1000, 1 << 20] {
        let (_, allocated) =
            counted(bytes, || drop(std::hint::black_box(Vec::<u8>::with_capacity(bytes))));
        assert!(allocated >= bytes, "{allocated} of {bytes}");
    }
}

/// Frames to be damaged, none so long that one byte of it is seldom hit.
fn small_frames() -> Vec<Vec<u8>> {
    frames().iter().map(Frame::encode).filter(|bytes| bytes.len() < 4096).collect()
}

#[test]
fn a_frame_that_ends_early_is_an_error_at_every_length() {
    for bytes in frames().iter().map(Frame::encode) {
        let bytes_payload = bytes[7] == 1;
        let name = u16::from_le_bytes([bytes[FIXED_BYTES], bytes[FIXED_BYTES + 1]]);
        let start = FIXED_BYTES + 2 + usize::from(name);
        for end in 0..bytes.len() {
            // Bytes have no length of their own: they end where the message does.
            assert_eq!(
                decode(&bytes[..end]),
                bytes_payload && end >= start,
                "{end} of {} bytes",
                bytes.len()
            );
        }
    }
}

#[test]
fn damaged_and_invented_frames_do_no_harm() {
    let valid = small_frames();
    let mut random = Random::new(SEED);
    let mut accepted = 0usize;
    for _ in 0..MUTATIONS {
        let mut bytes = valid[random.below(valid.len())].clone();
        for _ in 0..1 + random.below(4) {
            damage(&mut bytes, &mut random, &valid);
        }
        accepted += usize::from(decode(&bytes));
    }
    for _ in 0..INVENTIONS {
        let length = random.below(300);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        // Half of them begin as a frame does.
        if random.below(2) == 0 {
            let start = bytes.len().min(8);
            bytes[..start].copy_from_slice(
                &[b'S', b'Y', b'B', b'N', 1, 0, random.below(13) as u8, random.below(3) as u8]
                    [..start],
            );
        }
        accepted += usize::from(decode(&bytes));
    }
    println!(
        "{MUTATIONS} damaged and {INVENTIONS} invented frames from seed {SEED}: {accepted} are \
        frames"
    );
    assert!(
        accepted > MUTATIONS / 20 && accepted < MUTATIONS * 19 / 20,
        "damage that is neither fatal nor harmless"
    );
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random, valid: &[Vec<u8>]) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.bits() as u8,
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.bits() as u8),
        // Numbers at the edges, where lengths and products overflow.
        4 => {
            let numbers = [
                0,
                1,
                63,
                64,
                u64::from(u32::MAX),
                1 << 59,
                1 << 60,
                u64::MAX / 16,
                u64::MAX - 20,
                u64::MAX,
            ];
            let number = numbers[random.below(numbers.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        5 => {
            let end = at + random.below(bytes.len() - at + 1);
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let other = &valid[random.below(valid.len())];
            bytes.truncate(at);
            bytes.extend(&other[at.min(other.len())..]);
        }
    }
}
