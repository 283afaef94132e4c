//! The bytes, phases and offsets that docs/PROTOCOL.md has are those of frames.

use syncbn::low_level::{Frame, Header, NodePayload, Payload, Phase, Values};

use crate::{FIXED_BYTES, PHASES, header};

/// A block of the document.
pub fn block(title: &str) -> &'static str {
    let document = include_str!("../../docs/PROTOCOL.md");
    let behind = document.split(&format!("```text {title}\n")).nth(1).expect(title);
    behind.split("```").next().unwrap()
}

/// The bytes of a block of the document: what stands before the first two spaces in a row of each
/// of its lines.
fn documented(title: &str) -> Vec<u8> {
    let bytes = block(title).lines().flat_map(|line| line.split("  ").next().unwrap().split(' '));
    bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

#[test]
fn the_documented_bytes_of_a_forward_frame_are_the_bytes() {
    let frame = Frame {
        header: Header {
            group: 0,
            rank: 1,
            phase: Phase::Forward,
            layer: 3,
            name: "bn1".to_owned(),
            step: 0,
            subject: 0,
            channels: 2,
            config: 0x1122_3344_5566_7788,
            state: 0x99aa_bbcc_ddee_ff00,
            ranks: 1,
            listed: 1,
        },
        payload: Payload::Nodes(vec![NodePayload {
            level: 0,
            index: 1,
            count: 8,
            values: Values::Floats(vec![[1.5, 0.25], [-2.0, 12.0]]),
        }]),
    };
    assert_eq!(frame.encode(), documented("forward"));
    assert_eq!(Frame::decode(&documented("forward")), Ok(frame));
}

#[test]
fn the_documented_bytes_of_a_frame_of_integers_are_the_bytes() {
    let node = NodePayload {
        level: 0,
        index: 1,
        count: 8,
        values: Values::Integers(vec![[-3, 1 << 70], [5, 25]]),
    };
    let header = Header {
        group: 0,
        rank: 1,
        phase: Phase::Recompute,
        layer: 3,
        name: String::new(),
        step: 2,
        subject: 0,
        channels: 2,
        config: 0x1122_3344_5566_7788,
        state: 0,
        ranks: 0,
        listed: 1,
    };
    let frame = Frame { header, payload: Payload::Nodes(vec![node]) };
    assert_eq!(frame.encode(), documented("integers"));
    assert_eq!(Frame::decode(&documented("integers")), Ok(frame));
}

#[test]
fn the_documented_bytes_of_an_abort_frame_are_the_bytes() {
    let header = Header {
        group: 0,
        rank: 1,
        phase: Phase::Backward,
        layer: 3,
        name: String::new(),
        step: 7,
        subject: 4,
        channels: 2,
        config: 0x1122_3344_5566_7788,
        state: 0,
        ranks: 0,
        listed: 1,
    };
    let frame = Frame { header, payload: Payload::Abort("lost".to_owned()) };
    assert_eq!(frame.encode(), documented("abort"));
    assert_eq!(Frame::decode(&documented("abort")), Ok(frame));
}

/// The rows of a table of the document, cell by cell; the table is found by its first cell.
fn documented_rows(first: &str) -> Vec<Vec<&'static str>> {
    let document = include_str!("../../docs/PROTOCOL.md");
    let lines = document.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_documented_phases_have_their_numbers_and_names() {
    let documented = documented_rows("phase");
    assert_eq!(documented.len(), PHASES.len());
    for (phase, row) in PHASES.into_iter().zip(documented) {
        let encoded = Frame { header: header(phase), payload: Payload::Bytes(Vec::new()) }.encode();
        assert_eq!([row[0], row[1]], [encoded[6].to_string(), phase.to_string()]);
    }
}

/// A name in the document, and how to change the field.
type Field = (&'static str, fn(&mut Header));

/// Every number stands where the document says: a field is changed, and only its bytes are others.
#[test]
fn the_documented_offsets_are_those_of_the_fields() {
    let fields: [Field; 10] = [
        ("group", |header| header.group = !header.group),
        ("rank", |header| header.rank = !header.rank),
        ("layer", |header| header.layer = !header.layer),
        ("exchange", |header| header.step = !header.step),
        ("subject", |header| header.subject = !header.subject),
        ("channels", |header| header.channels = !header.channels),
        ("configuration", |header| header.config = !header.config),
        ("state", |header| header.state = !header.state),
        ("devices", |header| header.ranks = !header.ranks),
        ("exchanges", |header| header.listed = !header.listed),
    ];
    let rows = documented_rows("offset");
    let frame = Frame { header: header(Phase::Backward), payload: Payload::Bytes(vec![7]) };
    let before = frame.encode();
    for (name, change) in fields {
        let row =
            rows.iter().find(|row| row[2] == name).unwrap_or_else(|| panic!("no row of {name}"));
        let [offset, bytes] = [row[0], row[1]].map(|cell| cell.parse::<usize>().expect("a number"));
        let mut changed = frame.clone();
        change(&mut changed.header);
        let changed = changed.encode();
        let differ = (0..before.len()).filter(|&at| before[at] != changed[at]).collect::<Vec<_>>();
        assert_eq!(differ, (offset..offset + bytes).collect::<Vec<_>>(), "{name}");
    }
    let row = rows.iter().find(|row| row[2] == "length of the name").expect("a row");
    assert_eq!(row[0], FIXED_BYTES.to_string());
}
