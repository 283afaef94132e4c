//! Counters that are missing or of another type, and weights of other types.

use half::{bf16, f16};
use syncbn::error::StateError;
use syncbn::state::{Checkpoint, LoadOptions};

use super::*;

fn with_counter(dtype: Dtype, bytes: &[u8]) -> Result<StateDict, StateError> {
    let mut tensors = vectors("bn");
    tensors.push(raw("bn.num_batches_tracked", dtype, &[], bytes.to_vec()));
    Checkpoint::from_bytes(file(&tensors))?.layer("bn")
}

#[test]
fn a_counter_that_is_missing_is_0_in_a_new_layer_and_stays_in_another() {
    let loaded = Checkpoint::from_bytes(file(&vectors("bn"))).unwrap().layer("bn").unwrap();
    assert_eq!(loaded.num_batches_tracked, None);
    let mut bn = layer(BatchNormConfig::torch(CHANNELS));
    let report = bn.load_state(&loaded, &LoadOptions::default()).unwrap();
    assert_eq!(report.missing, ["bn.num_batches_tracked"]);
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0);
    let mut running = bn.running_stats().unwrap();
    running.num_batches_tracked = 41;
    bn.set_running_stats(running).unwrap();
    bn.load_state(&loaded, &LoadOptions::default()).unwrap();
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 41);
    assert_eq!(state_of(&bn).running_mean, Some(vec![3.0, -1.0, 0.0]));
}

#[test]
fn counters_of_every_type_are_widened() {
    let big = (1i64 << 53) + 1;
    let cases: [(Dtype, Vec<u8>, u64); 13] = [
        (Dtype::I64, big.to_le_bytes().to_vec(), big as u64),
        (Dtype::U64, u64::MAX.to_le_bytes().to_vec(), u64::MAX),
        (Dtype::I32, 70_000i32.to_le_bytes().to_vec(), 70_000),
        (Dtype::U32, u32::MAX.to_le_bytes().to_vec(), u32::MAX.into()),
        (Dtype::I16, 300i16.to_le_bytes().to_vec(), 300),
        (Dtype::U16, u16::MAX.to_le_bytes().to_vec(), u16::MAX.into()),
        (Dtype::I8, vec![127], 127),
        (Dtype::U8, vec![255], 255),
        (Dtype::F64, (2f64.powi(53)).to_le_bytes().to_vec(), 1 << 53),
        (Dtype::F32, 12_345f32.to_le_bytes().to_vec(), 12_345),
        (Dtype::F32, 0f32.to_le_bytes().to_vec(), 0),
        (Dtype::F16, f16::from_f32(2048.0).to_le_bytes().to_vec(), 2048),
        (Dtype::BF16, bf16::from_f32(256.0).to_le_bytes().to_vec(), 256),
    ];
    for (dtype, bytes, expected) in cases {
        assert_eq!(with_counter(dtype, &bytes).unwrap().num_batches_tracked, Some(expected));
    }
}

#[test]
fn every_count_is_read_as_it_was_written() {
    for steps in [0, 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let mut counted = state(1.0);
        counted.num_batches_tracked = Some(steps);
        let mut checkpoint = Checkpoint::new();
        checkpoint.set_layer("bn", &counted).unwrap();
        let read = Checkpoint::from_bytes(checkpoint.to_bytes().unwrap()).unwrap();
        assert_eq!(read.layer("bn").unwrap().num_batches_tracked, Some(steps));
    }
}

#[test]
fn what_is_no_count_of_steps_is_refused_with_its_value() {
    let cases: [(Dtype, Vec<u8>, &str); 6] = [
        (Dtype::F32, 2.5f32.to_le_bytes().to_vec(), "2.5"),
        (Dtype::F32, (-1f32).to_le_bytes().to_vec(), "-1"),
        (Dtype::F32, f32::NAN.to_le_bytes().to_vec(), "NaN"),
        (Dtype::F64, f64::INFINITY.to_le_bytes().to_vec(), "inf"),
        (Dtype::F64, 2f64.powi(64).to_le_bytes().to_vec(), "18446744073709551616"),
        (Dtype::I8, vec![0xff], "-1"),
    ];
    for (dtype, bytes, found) in cases {
        let error = with_counter(dtype, &bytes).unwrap_err();
        let name = "bn.num_batches_tracked".to_owned();
        let found = found.to_owned();
        assert_eq!(error, StateError::Count { name, found });
    }
    let error = with_counter(Dtype::BOOL, &[1]).unwrap_err();
    assert!(error.to_string().contains("num_batches_tracked is of type BOOL"), "{error}");
}

/// The layer with a weight of this type.
fn with_weight(dtype: Dtype, bytes: Vec<u8>) -> Result<StateDict, StateError> {
    let mut tensors = vectors("bn");
    tensors[0] = raw("bn.weight", dtype, &[CHANNELS], bytes);
    Checkpoint::from_bytes(file(&tensors))?.layer("bn")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn weights_of_16_and_64_bits_are_widened_exactly() {
    // The largest, the smallest and the smallest normal number, and one with all digits.
    let halves = [0x7bff, 0x0001, 0x0400, 0x3555, 0x8000].map(f16::from_bits);
    let brains = [0x7f7f, 0x0001, 0x0080, 0x3eab, 0x8000].map(bf16::from_bits);
    for chunk in 0..3 {
        let half = &halves[chunk..chunk + 3];
        let brain = &brains[chunk..chunk + 3];
        let bytes = half.iter().flat_map(|value| value.to_le_bytes()).collect();
        let found = with_weight(Dtype::F16, bytes).unwrap().weight.unwrap();
        let expected: Vec<f32> = half.iter().map(|value| value.to_f64() as f32).collect();
        assert_eq!(bits(&found), bits(&expected));
        let bytes = brain.iter().flat_map(|value| value.to_le_bytes()).collect();
        let found = with_weight(Dtype::BF16, bytes).unwrap().weight.unwrap();
        let expected: Vec<u32> = brain.iter().map(|v| u32::from(v.to_bits()) << 16).collect();
        assert_eq!(bits(&found), expected);
    }
    let bytes = |values: [f64; 3]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let exact = [f64::from(0.1f32), -0.0, f64::NEG_INFINITY];
    let found = with_weight(Dtype::F64, bytes(exact)).unwrap().weight.unwrap();
    assert_eq!(bits(&found), bits(&[0.1, -0.0, f32::NEG_INFINITY]));
    let error = with_weight(Dtype::F64, bytes([1.0, 0.1, 2.0])).unwrap_err();
    assert_eq!(error, StateError::NotExact { name: "bn.weight".into(), channel: 1, found: 0.1 });
}
