//! Frames: what is encoded is decoded, the documented bytes are the bytes, and nothing that a peer
//! may send does harm.
//!
//! `documented` compares with the document, `hostile` decodes damaged and invented bytes, `peers`
//! lets a rank send them, `manifests` are the lists that checksums are of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documented;
mod hostile;
mod manifests;
mod peers;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use syncbn::low_level::{Frame, FrameError, Header, NodePayload, Payload, Phase, Values};

/// Counts what is allocated, of all threads together.
#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PHASES: [Phase; 15] = [
    Phase::Forward,
    Phase::Recompute,
    Phase::Evaluate,
    Phase::Backward,
    Phase::State,
    Phase::Partition,
    Phase::Subgroup,
    Phase::Devices,
    Phase::AllReduce,
    Phase::AllGather,
    Phase::Broadcast,
    Phase::Barrier,
    Phase::Comparison,
    Phase::DoubleBackward,
    Phase::Steps,
];

/// Bytes of a frame before the length of its name.
const FIXED_BYTES: usize = 88;

fn header(phase: Phase) -> Header {
    Header {
        group: 0x0102_0304_0506_0708,
        rank: 2,
        phase,
        layer: 5,
        name: "block.1.bn2".to_owned(),
        step: 300,
        subject: 299,
        channels: 2,
        config: 0x1112_1314_1516_1718,
        state: 0,
        ranks: 0,
        listed: 1,
    }
}

fn node(level: u32, index: u64) -> NodePayload {
    NodePayload {
        level,
        index,
        count: 1 << 40,
        values: Values::Floats(vec![[-1.5, f64::MIN_POSITIVE], [0.1, 1e300]]),
    }
}

fn integers(level: u32, index: u64) -> NodePayload {
    let values = Values::Integers(vec![[-1, i128::MAX], [1 << 100, i128::MIN]]);
    NodePayload { level, index, count: 3, values }
}

/// One frame for each payload and each phase, empty and extreme ones too.
fn frames() -> Vec<Frame> {
    let largest = [u64::MAX; 3].map(|number| NodePayload {
        level: 63,
        index: number,
        count: number,
        values: Values::Floats(Vec::new()),
    });
    let payloads = [
        Payload::Nodes(Vec::new()),
        Payload::Nodes(vec![node(0, 3), node(2, 1), node(63, 1)]),
        Payload::Nodes(vec![integers(0, 6), integers(1, 4)]),
        Payload::Bytes(Vec::new()),
        Payload::Bytes((0..=255).collect()),
        Payload::Abort(String::new()),
        Payload::Abort("außer Speicher".to_owned()),
    ];
    let mut frames: Vec<Frame> = PHASES
        .into_iter()
        .flat_map(|phase| payloads.clone().map(|payload| Frame { header: header(phase), payload }))
        .collect();
    // A program's own values travel two by two.
    for frame in &mut frames {
        if matches!(frame.header.phase, Phase::AllReduce | Phase::Broadcast | Phase::Steps) {
            frame.header.channels = 3;
        }
        // Double backward has four pairs per channel.
        if let (Phase::DoubleBackward, Payload::Nodes(nodes)) =
            (frame.header.phase, &mut frame.payload)
        {
            for node in nodes {
                node.values = match &node.values {
                    Values::Floats(pairs) => Values::Floats(pairs.repeat(4)),
                    Values::Integers(pairs) => Values::Integers(pairs.repeat(4)),
                };
            }
        }
    }
    let numbers = [u64::MAX; 9];
    let name = "x".repeat(65_535);
    let [group, rank, layer, step, subject, config, state, ranks, listed] = numbers;
    let phase = Phase::Backward;
    let header = Header {
        group,
        rank,
        phase,
        layer,
        name,
        step,
        subject,
        channels: 0,
        config,
        state,
        ranks,
        listed,
    };
    frames.push(Frame { header, payload: Payload::Nodes(largest.to_vec()) });
    frames
}

#[test]
fn every_payload_of_every_phase_comes_back_as_it_was() {
    for frame in frames() {
        assert_eq!(Frame::decode(&frame.encode()).as_ref(), Ok(&frame));
    }
}

#[test]
fn every_bit_of_a_number_comes_back_nan_and_the_sign_of_zero_too() {
    let values =
        [[f64::from_bits(0x7ff8_0000_0000_1234), -0.0], [f64::NEG_INFINITY, f64::from_bits(1)]];
    let node =
        NodePayload { level: 0, index: 0, count: 0, values: Values::Floats(values.to_vec()) };
    let payload = Payload::Nodes(vec![node]);
    let frame = Frame { header: header(Phase::Forward), payload };
    let Ok(Frame { payload: Payload::Nodes(nodes), .. }) = Frame::decode(&frame.encode()) else {
        panic!("nodes")
    };
    let bits = |values: &[[f64; 2]]| {
        values.iter().flatten().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let Values::Floats(found) = &nodes[0].values else { panic!("floats") };
    assert_eq!(bits(found), bits(&values));
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    // The two bytes of the last character would be bytes 65,535 and 65,536.
    let name = "x".repeat(65_534) + "ä";
    let frame =
        Frame { header: Header { name, ..header(Phase::State) }, payload: Payload::Bytes(vec![7]) };
    let decoded = Frame::decode(&frame.encode()).unwrap();
    assert_eq!(
        (decoded.header.name, decoded.payload),
        ("x".repeat(65_534), Payload::Bytes(vec![7]))
    );
}

#[test]
fn another_version_is_told_from_other_bytes() {
    let mut bytes = frames()[0].encode();
    bytes[4..6].copy_from_slice(&3u16.to_le_bytes());
    assert_eq!(Frame::decode(&bytes), Err(FrameError::Version { found: 3 }));
    // The rest of another version may be anything.
    assert_eq!(Frame::decode(&bytes[..6]), Err(FrameError::Version { found: 3 }));
    bytes[4..6].copy_from_slice(&0x0100u16.to_le_bytes());
    assert_eq!(Frame::decode(&bytes), Err(FrameError::Version { found: 0x0100 }));

    for (foreign, found) in
        [(&b"GET / HTTP/1.1"[..], &b"GET "[..]), (b"SYB", b"SYB"), (b"", b""), (b"sybn", b"sybn")]
    {
        assert_eq!(Frame::decode(foreign), Err(FrameError::Magic { found: found.to_vec() }));
    }
}

#[test]
fn a_field_that_holds_what_it_cannot_is_named() {
    let bytes = Frame { header: header(Phase::Forward), payload: Payload::Nodes(vec![node(0, 0)]) }
        .encode();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Frame::decode(&bytes)
    };
    let field = |what, found, allowed| Err(FrameError::Field { what, found, allowed });
    assert_eq!(with(6, 15), field("phase", 15, "0 to 14"));
    assert_eq!(with(7, 4), field("kind", 4, "0 to 3"));
    // Integers take twice the bytes.
    assert!(matches!(with(7, 3), Err(FrameError::Length { what: "nodes", .. })));
    // Behind the fixed part, the name and its length, and the number of nodes.
    let level = FIXED_BYTES + 2 + header(Phase::Forward).name.len() + 4;
    assert_eq!(with(level, 64), field("level", 64, "0 to 63"));
    assert_eq!(with(FIXED_BYTES + 2, 0xff), Err(FrameError::Text { what: "name" }));
    assert!(matches!(with(level - 4, 2), Err(FrameError::Length { what: "nodes", .. })));
    // One channel more in the header than there are numbers of.
    assert!(matches!(with(48, 3), Err(FrameError::Length { what: "nodes", .. })));
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(Frame::decode(&longer), Err(FrameError::Length { what: "nodes", .. })));
    let abort =
        Frame { header: header(Phase::Forward), payload: Payload::Abort("lost".to_owned()) }
            .encode();
    let longer = [&abort[..], &[0]].concat();
    assert_eq!(
        Frame::decode(&longer),
        Err(FrameError::Length { what: "end", found: 1, expected: 0 })
    );
}
