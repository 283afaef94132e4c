"""Shows that PyTorch loads what this crate saves, and evaluates alike.

Run by hand, with torch and safetensors installed; it is no part of the tests:

    cargo run --release --example save_and_load
    python tests/pytorch/check_load.py target/save_and_load.torch.safetensors target/save_and_load.eval.safetensors

The first file is the state of a layer `layer1.0.bn1` under PyTorch's names, the second holds inputs `x` (N, C, L) and this
crate's outputs `y` in evaluation. Checked, for `SyncBatchNorm` and `BatchNorm1d`: `load_state_dict(strict=True)` accepts the
file, the module's own `state_dict` then holds the same tensors bit for bit, and its outputs are within rounding of `y`.
"""

import sys

import torch
from safetensors.torch import load_file

# Sixteen half ulp of f32: both sides round at most 8 times on the way to terms no larger than |a x| + |a mean| + |bias|.
TOLERANCE = 16 * 2.0**-24


class Model(torch.nn.Module):
    """A model in which the layer is called `layer1.0.bn1`."""

    def __init__(self, layer):
        super().__init__()
        self.layer1 = torch.nn.Sequential(torch.nn.Module())
        self.layer1[0].bn1 = layer


def check(kind, state, x, y):
    layer = kind(x.shape[1])
    model = Model(layer)
    print(f"{kind.__name__}: load_state_dict(strict=True): {model.load_state_dict(state, strict=True)}")
    own = model.state_dict()
    assert own.keys() == state.keys(), (sorted(own), sorted(state))
    for name, tensor in state.items():
        assert own[name].dtype == tensor.dtype and own[name].shape == tensor.shape, name
        assert torch.equal(own[name], tensor), name
    with torch.no_grad():
        found = model.eval().layer1[0].bn1(x)
    shape = (1, -1, 1)
    alpha = (layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()).abs().view(shape)
    size = alpha * (x.double().abs() + layer.running_mean.double().abs().view(shape)) + layer.bias.double().abs().view(shape)
    share = ((found.double() - y.double()).abs() / (TOLERANCE * size)).max().item()
    print(f"{kind.__name__}: {x.numel()} outputs, worst difference {share:.3f} of what rounding explains")
    assert share <= 1, share
    # A layer that trains on must go on from the saved counter.
    assert layer.num_batches_tracked.item() > 0


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    state, evaluation = load_file(sys.argv[1]), load_file(sys.argv[2])
    print(f"torch {torch.__version__}: {', '.join(f'{n} {tuple(t.shape)} {t.dtype}' for n, t in sorted(state.items()))}")
    for kind in (torch.nn.SyncBatchNorm, torch.nn.BatchNorm1d):
        check(kind, state, evaluation["x"], evaluation["y"])
    print("all right")


if __name__ == "__main__":
    main()
