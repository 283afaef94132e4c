//! Converts the batch normalization layers of a checkpoint to the names of another framework.
//! `cargo run --release --example convert_checkpoint -- FROM.safetensors TO.safetensors FRAMEWORK`
//!
//! If `TO` exists, it is updated: its other tensors stay. Arguments `old=new` after these
//! choose layers and give them other paths; without any, all layers keep theirs. Without any
//! argument it converts a file of Keras for Flax. Convolutions and linear layers are no part of it:
//! frameworks store them in different dimensions.
use std::{env, error::Error, path::Path};

use syncbn::state::{Checkpoint, Naming};

const TABLES: [(&str, Naming); 11] = [
    ("torch", Naming::TORCH),
    ("torch_data_parallel", Naming::TORCH_DATA_PARALLEL),
    ("mindspore", Naming::MINDSPORE),
    ("mindspore_mint", Naming::MINDSPORE_MINT),
    ("keras", Naming::KERAS),
    ("keras_numbered", Naming::KERAS_NUMBERED),
    ("flax", Naming::FLAX),
    ("flax_nnx", Naming::FLAX_NNX),
    ("paddle", Naming::PADDLE),
    ("onnx", Naming::ONNX),
    ("burn", Naming::BURN),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => demonstrate(),
        [from, to, framework, layers @ ..] => convert(from, to, framework, layers),
        _ => Err("expected FROM TO FRAMEWORK [old=new …]".into()),
    }
}

fn convert(from: &str, to: &str, framework: &str, layers: &[String]) -> Result<(), Box<dyn Error>> {
    let Some((_, naming)) = TABLES.into_iter().find(|(name, _)| *name == framework) else {
        return Err(
            format!("{framework} is none of {}", TABLES.map(|(name, _)| name).join(", ")).into()
        );
    };
    let source = Checkpoint::open(from)?;
    let all: Vec<String> = source.layers().iter().map(|path| format!("{path}={path}")).collect();
    let exists = Path::new(to).exists();
    let target = if exists { Checkpoint::open(to)? } else { Checkpoint::new() };
    let mut target = target.with_namings([naming]);
    for layer in if layers.is_empty() { &all } else { layers } {
        let (old, new) = layer.split_once('=').ok_or(format!("{layer}: expected old=new"))?;
        target.set_layer(new, &source.layer(old)?)?;
        println!("{old} -> {new}");
    }
    Ok(target.save(to)?)
}

/// Without arguments: a file of Keras, converted for Flax.
fn demonstrate() -> Result<(), Box<dyn Error>> {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/checkpoints/keras.safetensors");
    let to = env::temp_dir().join(format!("convert_checkpoint.{}.safetensors", std::process::id()));
    convert(from, &to.to_string_lossy(), "flax", &[])?;
    let [keras, flax] = [Checkpoint::open(from)?, Checkpoint::open(&to)?];
    println!("{}", flax.names().collect::<Vec<_>>().join("\n"));
    std::fs::remove_file(&to)?;
    assert!(keras.layers().len() == 2 && keras.layers() == flax.layers());
    for path in keras.layers() {
        assert_eq!(keras.layer(&path)?, flax.layer(&path)?);
    }
    Ok(())
}
