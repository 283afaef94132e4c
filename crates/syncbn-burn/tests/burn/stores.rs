//! Files of other frameworks, through burn-store: as Burn's own layer reads and writes them.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Device, Tensor};
use burn_store::{
    BurnToPyTorchAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, PytorchStore,
    SafetensorsStore,
};
use syncbn_burn::{BatchNormConfig as AloneConfig, SyncBatchNormConfig};

use crate::common::{
    DEADLINE, DEFINITION, Norm, Problem, alone, burns, devices, difference, ours, ranks, step,
    values,
};

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
    let [gamma, beta] = model.bn1.affine().map(values);
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

/// What PyTorch saved and returned for it: `tests/golden/checkpoints` of the repository.
const GOLDEN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/checkpoints/torch.safetensors");
/// The same tensors by `torch.save`: `scripts/peers/checkpoints/pth.py`.
const PTH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/burn/torch.pth");

/// The model of those files.
#[derive(Module, Debug)]
struct Network<N: Norm> {
    conv1: Conv2d,
    bn1: N,
    conv2: Conv2d,
    bn2: N,
}

impl<N: Norm> Network<N> {
    /// `norm` makes a normalization of its channels and epsilon.
    fn new(norm: impl Fn(usize, f64) -> N, device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([3, 5], [3, 3]).init(device),
            bn1: norm(5, 1e-5),
            conv2: Conv2dConfig::new([5, 4], [3, 3]).init(device),
            bn2: norm(4, 1e-3),
        }
    }

    /// With the tensors of a file, which has all of them and PyTorch's counters beside.
    fn load<T: ModuleStore>(&mut self, store: &mut T) {
        let result = self.load_from(store).unwrap();
        assert!(result.missing.is_empty() && result.errors.is_empty(), "{result:?}");
        for name in ["bn1.num_batches_tracked", "bn2.num_batches_tracked"] {
            assert!(result.unused.iter().any(|unused| unused == name), "{result:?}");
        }
    }

    fn all(&self) -> Vec<Vec<f32>> {
        let convolutions = [&self.conv1, &self.conv2];
        let mut all: Vec<_> = convolutions.map(|conv| values(conv.weight.val())).into();
        for norm in [&self.bn1, &self.bn2] {
            all.extend(norm.affine().map(values));
            all.extend(norm.running());
        }
        all
    }
}

/// Inputs and PyTorch's outputs of both normalizations, as modules to be loaded.
#[derive(Module, Debug)]
struct Golden {
    eval: Evaluated,
}

#[derive(Module, Debug)]
struct Evaluated {
    bn1: Case,
    bn2: Case,
}

#[derive(Module, Debug)]
struct Case {
    x: Param<Tensor<4>>,
    y: Param<Tensor<4>>,
}

impl Golden {
    fn load(device: &Device) -> Self {
        let case = |channels| {
            let [x, y] = [(); 2].map(|()| Tensor::zeros([2, channels, 4, 5], device));
            Case { x: Param::from_tensor(x), y: Param::from_tensor(y) }
        };
        let mut golden = Self { eval: Evaluated { bn1: case(5), bn2: case(4) } };
        let result = golden.load_from(&mut SafetensorsStore::from_file(GOLDEN)).unwrap();
        assert!(result.missing.is_empty(), "{result:?}");
        golden
    }
}

/// What a model of PyTorch's file evaluates to, after comparing it with what PyTorch returned.
fn evaluated<N: Norm>(norm: impl Fn(usize, f64) -> N, device: &Device) -> [Vec<f32>; 2] {
    let [mut of_pth, mut of_safetensors] = [(); 2].map(|()| Network::new(&norm, device));
    of_pth.load(&mut PytorchStore::from_file(PTH));
    let golden = SafetensorsStore::from_file(GOLDEN);
    of_safetensors.load(&mut golden.with_from_adapter(PyTorchToBurnAdapter));
    assert_eq!(of_pth.all(), of_safetensors.all());
    assert_ne!(of_pth.all(), Network::new(&norm, device).all());
    let Golden { eval } = Golden::load(device);
    let [of_pth, of_safetensors] = [of_pth, of_safetensors].map(|network| {
        let Network { bn1, bn2, .. } = network.valid();
        [(bn1, &eval.bn1), (bn2, &eval.bn2)].map(|(norm, case)| {
            let found = values(norm.apply(case.x.val()));
            let expected = values(case.y.val());
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            let worst = difference(&found, &expected);
            println!("{worst:.2} units from PyTorch");
            assert!(worst <= DEFINITION, "{worst} units");
            found
        })
    });
    assert_eq!(of_pth, of_safetensors);
    of_pth
}

#[test]
fn a_pth_file_evaluates_as_in_pytorch_and_as_its_values_in_safetensors() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = &rank.device();
    let sync =
        |channels, epsilon| SyncBatchNormConfig::new(channels).with_epsilon(epsilon).init(device);
    let own = |channels, epsilon| AloneConfig::new(channels).with_epsilon(epsilon).init(device);
    let theirs =
        |channels, epsilon| BatchNormConfig::new(channels).with_epsilon(epsilon).init(device);
    let found = evaluated(sync, device);
    assert_eq!(evaluated(own, device), found);
    evaluated(theirs, device);
}
