#!/usr/bin/env python3
"""Writes tests/golden/checkpoints/<framework>.safetensors: a small model, saved with the framework's own tools, and what the
framework returns for it in evaluation.

    python make.py <framework>... --out tests/golden/checkpoints

Each framework in its own environment (../setup.sh, and pip install safetensors, h5py in it)."""
import argparse
import os
import tempfile

from safetensors import safe_open
from safetensors.numpy import save_file

from common import CHANNELS, EPS, activation, difference, parameters
from frameworks import FRAMEWORKS


def make(name, out):
    framework = FRAMEWORKS[name]()
    framework.fill()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        framework.write(path)
        framework.load(path)
        with safe_open(path, framework="np") as file:
            tensors, metadata = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()
    for layer in CHANNELS:
        x = activation(layer)
        y = framework.evaluate(layer, x)
        weight, bias, mean, var = (v.reshape(1, -1, 1, 1) for v in parameters(layer))
        expected = (x.astype("f8") - mean) / (var.astype("f8") + EPS[layer]) ** 0.5 * weight + bias
        share = difference(parameters(layer), EPS[layer], x, y, expected)
        assert share <= 1, (name, layer, share)
        print(f"{name} {layer}: {share:.3f} of what rounding explains beside the definition")
        tensors |= {f"eval.{layer}.x": x, f"eval.{layer}.y": y}
    save_file(tensors, os.path.join(out, f"{name}.safetensors"), metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="+", choices=FRAMEWORKS)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    for name in arguments.frameworks:
        make(name, arguments.out)


if __name__ == "__main__":
    main()
