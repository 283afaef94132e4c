//! The model of `../common.py` in Burn, saved and loaded with Burn's own store.
//!
//! ```text
//! cargo run -- make GOLDEN OUT      vectors and inputs of GOLDEN (PyTorch's file), saved as OUT
//! cargo run -- fresh OUT            a model without the tensors of its normalizations
//! cargo run -- check GOLDEN PATH    Burn loads PATH, and evaluates as GOLDEN says
//! ```
use std::{error::Error, fs};

use burn::module::{Module, Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

#[derive(Module, Debug)]
struct Model {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([3, 5], [3, 3]).init(device),
            bn1: BatchNormConfig::new(5).init(device),
            conv2: Conv2dConfig::new([5, 4], [3, 3]).init(device),
            bn2: BatchNormConfig::new(4).with_epsilon(1e-3).init(device),
        }
    }

    fn layer(&self, name: &str) -> &BatchNorm {
        if name == "bn1" { &self.bn1 } else { &self.bn2 }
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn values(file: &SafeTensors, name: &str) -> Result<Vec<f32>> {
    let tensor = file.tensor(name)?;
    Ok(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn vector(file: &SafeTensors, name: &str, device: &Device) -> Result<Tensor<1>> {
    let values = values(file, name)?;
    let channels = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [channels]), device))
}

/// What Burn returns for the inputs of the golden file.
fn evaluate(model: &Model, golden: &SafeTensors, layer: &str, device: &Device) -> Result<Vec<f32>> {
    let name = format!("eval.{layer}.x");
    let shape: [usize; 4] = golden.tensor(&name)?.shape().try_into()?;
    let x = Tensor::<4>::from_data(TensorData::new(values(golden, &name)?, shape), device);
    let y = model.layer(layer).forward(x).into_data();
    y.to_vec::<f32>().map_err(|error| format!("{error:?}").into())
}

fn save(model: &Model, out: &str) -> Result<()> {
    let _ = fs::remove_file(out);
    let mut store = SafetensorsStore::from_file(out);
    model.save_into(&mut store).map_err(|error| format!("{error:?}").into())
}

fn make(golden: &str, out: &str, device: &Device) -> Result<()> {
    let bytes = fs::read(golden)?;
    let golden = SafeTensors::deserialize(&bytes)?;
    let mut model = Model::new(device);
    for (name, layer) in [("bn1", &mut model.bn1), ("bn2", &mut model.bn2)] {
        let of = |tensor: &str| vector(&golden, &format!("{name}.{tensor}"), device);
        (layer.gamma, layer.beta) =
            (Param::from_tensor(of("weight")?), Param::from_tensor(of("bias")?));
        layer.running_mean = RunningState::new(of("running_mean")?);
        layer.running_var = RunningState::new(of("running_var")?);
    }
    save(&model, out)?;
    let saved = fs::read(out)?;
    let (_, header) = SafeTensors::read_metadata(&saved)?;
    let mut tensors = SafeTensors::deserialize(&saved)?.tensors();
    println!("{:?}", header.metadata());
    for (name, tensor) in &tensors {
        println!("{name} {:?} {:?}", tensor.dtype(), tensor.shape());
    }
    let mut outputs = Vec::new();
    for layer in ["bn1", "bn2"] {
        let y = evaluate(&model, &golden, layer, device)?;
        outputs.push((layer, y.iter().flat_map(|y| y.to_le_bytes()).collect::<Vec<u8>>()));
    }
    for (layer, y) in &outputs {
        let x = golden.tensor(&format!("eval.{layer}.x"))?;
        let y = TensorView::new(Dtype::F32, x.shape().to_vec(), y)?;
        tensors.push((format!("eval.{layer}.x"), x));
        tensors.push((format!("eval.{layer}.y"), y));
    }
    let whole = safetensors::serialize(tensors, header.metadata().clone())?;
    Ok(fs::write(out, whole)?)
}

fn fresh(out: &str, device: &Device) -> Result<()> {
    save(&Model::new(device), out)?;
    let saved = fs::read(out)?;
    let mut tensors = SafeTensors::deserialize(&saved)?.tensors();
    tensors.retain(|(name, _)| {
        let vector = ["gamma", "beta", "running_mean", "running_var"];
        !vector.iter().any(|vector| name.ends_with(vector))
    });
    Ok(fs::write(out, safetensors::serialize(tensors, None)?)?)
}

fn check(golden: &str, path: &str, device: &Device) -> Result<()> {
    let bytes = fs::read(golden)?;
    let golden = SafeTensors::deserialize(&bytes)?;
    let mut model = Model::new(device);
    let mut store = SafetensorsStore::from_file(path);
    let result = model.load_from(&mut store).map_err(|error| format!("{error:?}"))?;
    println!("{result:?}");
    for (layer, eps) in [("bn1", 1e-5), ("bn2", 1e-3)] {
        let found = evaluate(&model, &golden, layer, device)?;
        let expected = values(&golden, &format!("eval.{layer}.y"))?;
        let x = values(&golden, &format!("eval.{layer}.x"))?;
        let of = |name: &str| values(&golden, &format!("{layer}.{name}"));
        let (w, b, m, v) = (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
        let mut worst = 0f64;
        for (index, (y, expected)) in found.iter().zip(&expected).enumerate() {
            let c = index / 20 % w.len();
            let alpha = f64::from(w[c]).abs() / (f64::from(v[c]) + eps).sqrt();
            let size = alpha * (f64::from(x[index]).abs() + f64::from(m[c]).abs());
            let bound = 2f64.powi(-20) * (size + f64::from(b[c]).abs());
            worst = worst.max((f64::from(*y) - f64::from(*expected)).abs() / bound);
        }
        println!("burn {layer}: loaded, {worst:.3} of what rounding explains beside PyTorch");
        if !(worst <= 1.0) {
            return Err("other outputs".into());
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = Device::flex();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", golden, out] => make(golden, out, &device),
        ["fresh", out] => fresh(out, &device),
        ["check", golden, path] => check(golden, path, &device),
        _ => Err("expected make GOLDEN OUT, fresh OUT, or check GOLDEN PATH".into()),
    }
}
