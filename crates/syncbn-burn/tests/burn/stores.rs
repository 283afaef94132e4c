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

/// A safetensors file as PyTorch's names make it, with the counter of an `nn.BatchNorm2d`.
fn pytorch_file(tensors: [(&str, [f32; 3]); 4]) -> Vec<u8> {
    let mut data: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    let mut add = |name: &str, kind: &str, shape: &str, bytes: Vec<u8>| {
        let start = data.len();
        data.extend(bytes);
        entries.push(format!(
            r#""bn1.{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":[{start},{}]}}"#,
            data.len()
        ));
    };
    for (name, values) in tensors {
        add(name, "F32", "[3]", values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    add("num_batches_tracked", "I64", "[]", 7i64.to_le_bytes().to_vec());
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn a_file_of_pytorch_loads_and_its_counter_is_left_over() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let tensors = [
        ("weight", [0.5, 1.5, -2.0]),
        ("bias", [0.25, -1.0, 3.0]),
        ("running_mean", [-1.0, 0.0, 4.0]),
        ("running_var", [0.5, 2.0, 9.0]),
    ];
    let mut model = trained(ours(&rank.device()), 133, &rank.device());
    let mut store = SafetensorsStore::from_bytes(Some(pytorch_file(tensors)))
        .with_from_adapter(PyTorchToBurnAdapter);
    let result = model.load_from(&mut store).unwrap();
    assert_eq!(all(&model), tensors.map(|(_, values)| values.to_vec()));
    assert!(result.missing.is_empty(), "{result:?}");
    assert_eq!(result.unused, ["bn1.num_batches_tracked"]);
}
