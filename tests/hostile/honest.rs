//! Tests of the compiler itself compare what it makes of a source with the source as it stands.
//! They need a driver that changes no arithmetic. Their names end in `on_an_honest_driver`, by
//! which they are left out on another one.

use pollster::block_on;
use syncbn::Device;

use super::common::adapter;

/// Fails on an adapter whose driver changes arithmetic, as the probe finds it.
///
/// # Panics
/// Where it does, or has not answered.
pub fn require() {
    let adapter = adapter();
    let name = adapter.get_info().name;
    let device = block_on(Device::from_adapter(&adapter)).expect("a device");
    let found = device.findings().and_then(|findings| findings.arithmetic);
    let found = found.unwrap_or_else(|| panic!("{name} has not answered the probe of arithmetic"));
    let changes = [found.contracts, found.reassociates, found.flushes_subnormals];
    if let Some(refusal) = refusal(&name, changes) {
        panic!("{refusal}");
    }
}

/// Why a driver that contracts, reassociates or flushes subnormals will not do.
fn refusal(name: &str, changes: [bool; 3]) -> Option<String> {
    let what = ["contracts", "reassociates", "flushes subnormals"];
    let found: Vec<&str> =
        what.into_iter().zip(changes).filter_map(|(what, is)| is.then_some(what)).collect();
    (!found.is_empty()).then(|| {
        format!(
            "by its probe {name} {}, and this test needs a driver that does none of {}: name its \
             adapter in SYNCBN_TEST_ADAPTER, or leave such tests out by \
             `cargo test --test hostile -- --skip on_an_honest_driver`",
            found.join(", "),
            what.join(", ")
        )
    })
}

#[test]
fn a_driver_that_changes_arithmetic_is_refused_with_what_it_does() {
    assert_eq!(refusal("GPU", [false; 3]), None);
    for changes in 1..8 {
        let changes = [0, 1, 2].map(|bit| changes >> bit & 1 == 1);
        let message = refusal("GPU", changes).expect("a refusal");
        let (found, rest) = message.split_once(", and").expect("two parts");
        for (what, is) in ["contracts", "reassociates", "flushes"].into_iter().zip(changes) {
            assert_eq!(found.contains(what), is, "{message}");
        }
        assert!(rest.contains("--skip on_an_honest_driver"), "{message}");
    }
}
