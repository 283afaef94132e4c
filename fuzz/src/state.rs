//! States, as a broadcast and as a file.

use syncbn::BatchNormConfig;
use syncbn::low_level::{state_from_message, state_to_message};
use syncbn::state::{Checkpoint, LoadOptions, Naming};

use crate::memory::bounded;

/// The state of a broadcast comes back as the same bytes.
pub fn state_message(bytes: &[u8]) {
    if let Ok(state) = bounded(bytes, 4, state_from_message) {
        assert_eq!(state_to_message(&state), bytes);
    }
}

/// What is read from a safetensors file is read again from the file that is written of it. The
/// first byte is the channels less 1, from its lowest three bits, and how the file is read.
pub fn state_file(bytes: &[u8]) {
    let Some((&how, file)) = bytes.split_first() else { return };
    let config = BatchNormConfig::torch(usize::from(how & 7) + 1);
    let naming = [None, None, Some(Naming::TORCH), Some(Naming::MINDSPORE)];
    let naming = naming[usize::from(how >> 3 & 3)].clone();
    let path = if how & 32 == 0 { "" } else { "bn" };
    let options = LoadOptions { allow_non_finite: how & 64 != 0, ..LoadOptions::default() };
    let read = |file: &[u8]| {
        let checkpoint = Checkpoint::from_bytes(file)?;
        let checkpoint = match &naming {
            Some(naming) => checkpoint.with_namings([naming.clone()]),
            None => checkpoint,
        };
        let state = checkpoint.layer(path)?;
        state.check(&config, &options).map(|_| state)
    };
    // The header is JSON, which becomes maps of names, shapes and places.
    let Ok(state) = bounded(file, 128, read) else { return };
    for vector in [&state.weight, &state.bias, &state.running_mean, &state.running_var] {
        assert_eq!(vector.as_ref().map(Vec::len), Some(config.num_features));
    }
    let Some(naming) = &naming else { return };
    let mut written = Checkpoint::new().with_namings([naming.clone()]);
    written.set_layer(path, &state).expect("names for a state");
    let again = read(&written.to_bytes().expect("a file of a state")).expect("that state");
    // NaN is unequal to itself: bytes are compared.
    assert_eq!(state_to_message(&again), state_to_message(&state));
}
