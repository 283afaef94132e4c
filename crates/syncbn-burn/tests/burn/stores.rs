//! Files of other frameworks, through burn-store: as Burn's own layer reads and writes them.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::Device;
use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};

use crate::common::{DEADLINE, Norm, Problem, alone, burns, devices, ours, ranks, step};

#[derive(Module, Debug)]
struct Model<N: Norm> {
    bn1: N,
}

fn trained<N: Norm>(norm: N, seed: u64, device: &Device) -> Model<N> {
    let problem = Problem::random(&[4], 3, seed);
    let norm = norm.set(&problem.gamma, &problem.beta);
    step(&norm, &problem.ranks[0], device);
    Model { bn1: norm }
}

fn file<N: Norm>(model: &Model<N>) -> Vec<u8> {
    let mut store = SafetensorsStore::from_bytes(None).with_to_adapter(BurnToPyTorchAdapter);
    model.save_into(&mut store).unwrap();
    store.get_bytes().unwrap()
}

/// The header of a safetensors file, which has its tensors by name.
fn header(file: &[u8]) -> String {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    String::from_utf8(file[8..8 + length].to_vec()).unwrap()
}

fn all<N: Norm>(model: &Model<N>) -> Vec<Vec<f32>> {
    let [gamma, beta] = model.bn1.affine().map(crate::common::values);
    let [mean, var] = model.bn1.running();
    vec![gamma, beta, mean, var]
}

fn check<N: Norm>(make: impl Fn() -> N, device: &Device) {
    let theirs = trained(burns(device), 130, device);
    let written = file(&theirs);
    let own = trained(make(), 130, device);
    let names = header(&file(&own));
    for name in ["bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"] {
        assert!(names.contains(&format!("\"{name}\"")), "{names}");
    }
    assert!(!names.contains("gamma") && !names.contains("beta"), "{names}");
    let mut loaded = trained(make(), 131, device);
    assert_ne!(all(&loaded), all(&theirs));
    let mut store =
        SafetensorsStore::from_bytes(Some(written)).with_from_adapter(PyTorchToBurnAdapter);
    let result = loaded.load_from(&mut store).unwrap();
    assert!(result.missing.is_empty() && result.unused.is_empty(), "{result:?}");
    assert_eq!(all(&loaded), all(&theirs));
    // And back into Burn's own.
    let mut back: Model<BatchNorm> = trained(burns(device), 132, device);
    let mut store =
        SafetensorsStore::from_bytes(Some(file(&loaded))).with_from_adapter(PyTorchToBurnAdapter);
    back.load_from(&mut store).unwrap();
    assert_eq!(all(&back), all(&theirs));
}

#[test]
fn pytorch_s_names_are_read_and_written_as_burn_s_layer_does() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    check(|| ours(&device), &device);
    check(|| alone(&device), &device);
}
