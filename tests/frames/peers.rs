//! A rank that sends what is not a usable frame: every rank fails, and names it.

use std::time::Duration;

use syncbn::low_level::{Frame, Header, NodePayload, Payload, Phase, Values};
use syncbn::{
    Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, collective::LocalGroup,
    error::ExchangeError,
};

use crate::header;
use syncbn_testkit::on_threads;
use syncbn_testkit::sabotage::{Sabotage, saboteur};
use syncbn_testkit::transport::{frames, listed};

const RANKS: usize = 4;
const CULPRIT: usize = 2;

/// The errors of all ranks when one sends `bytes` at the second exchange of a layer.
fn errors(bytes: &[u8]) -> Vec<ExchangeError> {
    let groups = LocalGroup::ranks(RANKS).into_iter().enumerate().map(|(rank, inner)| {
        let sabotage =
            if rank == CULPRIT { Sabotage::Send(bytes.to_vec()) } else { Sabotage::Nothing };
        ProcessGroup::new(saboteur(inner, sabotage, 1)).with_deadline(Duration::from_secs(20))
    });
    on_threads(groups.collect(), |group| {
        let host = Device::host();
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [host.clone()])
            .unwrap()
            .in_group(&group)
            .unwrap();
        let x = host.upload(&[2, 2], &[0.0, 1.0, 2.0, 3.0]).unwrap();
        let saved = pollster::block_on(layer.forward_train(&x)).expect("a good exchange").saved;
        let before = layer.running_stats();
        let error = pollster::block_on(layer.backward(&saved, Backward::of(&x, &x)))
            .expect_err("an unusable message");
        assert_eq!(layer.running_stats(), before);
        let next =
            pollster::block_on(layer.forward_train(&x)).expect_err("a group that has failed");
        assert!(matches!(next, Error::Exchange(ExchangeError::Poisoned { .. })), "{next}");
        let Error::Exchange(error) = error else { panic!("{error}") };
        assert_eq!(group.failure().as_ref(), Some(&error));
        error
    })
}

/// Every rank must have found the same, that the message of the culprit cannot be used because of
/// `reason`.
fn assert_named(bytes: &[u8], reason: &str) {
    let found = errors(bytes);
    for error in &found {
        let ExchangeError::Frame { rank, message, at } = error else { panic!("{error}") };
        assert_eq!((*rank, at.as_str()), (CULPRIT, "layer 0, backward, exchange 1"), "{error}");
        assert!(message.contains(reason), "{error}");
    }
    assert!(found.iter().all(|error| *error == found[0]), "{found:?}");
}

#[test]
fn a_rank_that_sends_foreign_bytes_is_named_on_every_rank() {
    assert_named(b"", "frame: 0 byte(s) left, expected 8");
    assert_named(b"GET / HTTP/1.1", "frame: 6 byte(s) left, expected");
    assert_named(&listed(&[b""]), "the first bytes are []");
    assert_named(&listed(&[b"GET / HTTP/1.1"]), "not a message of this protocol");
    assert_named(&listed(&[b"SYBN\x03\x00"]), "protocol version 3, expected 2");
    assert_named(&listed(&[b"SYBN\x02\x00"]), "phase and kind: 0 byte(s) left, expected 2");
}

#[test]
fn a_rank_whose_list_has_another_length_than_it_says_is_named_on_every_rank() {
    let bytes = frame(Payload::Nodes(Vec::new()));
    let one = frames(&bytes)[0];
    assert_named(&listed(&[one, one]), "it carries 2 exchange(s), expected 1");
    assert_named(&[listed(&[one]), vec![7]].concat(), "frame: 1 byte(s) left, expected 8");
    let cut = listed(&[one]);
    assert_named(&cut[..cut.len() - 1], "byte(s) left, expected");
}

#[test]
fn a_rank_that_speaks_for_another_is_named_on_every_rank() {
    let mut header = header(Phase::Backward);
    header.rank = 1;
    assert_named(
        &listed(&[&Frame { header, payload: Payload::Bytes(Vec::new()) }.encode()]),
        "it says that it is of rank 1",
    );
}

/// The message of the culprit with everything right but the payload: its configuration is read off
/// the error about it.
fn frame(payload: Payload) -> Vec<u8> {
    let header = header(Phase::Backward);
    let rank = CULPRIT as u64;
    let name = String::new();
    // The second exchange, about the first.
    let mut header = Header { group: 0, rank, layer: 0, step: 1, subject: 0, name, ..header };
    let bytes = listed(&[&Frame { header: header.clone(), payload: payload.clone() }.encode()]);
    let ExchangeError::Setting { expected, name, .. } = &errors(&bytes)[0] else {
        panic!("another configuration")
    };
    // The settings themselves are the same.
    assert_eq!(&**name, "checksum of the settings");
    header.config = u64::from_str_radix(expected.trim_start_matches("0x"), 16).expect("a checksum");
    listed(&[&Frame { header, payload }.encode()])
}

#[test]
fn a_rank_that_sends_another_kind_of_payload_is_named_on_every_rank() {
    assert_named(&frame(Payload::Bytes(vec![1])), "it carries no values");
}

#[test]
fn a_rank_that_sends_the_nodes_of_others_is_named_on_every_rank() {
    let node = |level, index| NodePayload {
        level,
        index,
        count: 0,
        values: Values::Floats(vec![[0.0; 2]; 2]),
    };
    let integers = Values::Integers(vec![[0; 2]; 2]);
    let of_integers = NodePayload { level: 0, index: 2, count: 0, values: integers };
    let cases = [
        (vec![], "its nodes cover 0 ranks, expected 1"),
        (vec![node(0, 3)], "a node covers ranks from 3·1, expected from 2"),
        (vec![node(0, 1)], "a node covers ranks from 1·1, expected from 2"),
        (vec![node(1, 1)], "its nodes cover 2 ranks, expected 1"),
        (vec![node(0, 2), node(0, 3)], "its nodes cover 2 ranks, expected 1"),
        (vec![node(0, 2), node(0, 2)], "a node covers ranks from 2·1, expected from 3"),
        (vec![node(63, u64::MAX)], "expected from 2"),
        (vec![of_integers], "a node holds values of another kind"),
    ];
    for (nodes, reason) in cases {
        assert_named(&frame(Payload::Nodes(nodes)), reason);
    }
}
