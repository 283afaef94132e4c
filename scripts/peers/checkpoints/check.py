#!/usr/bin/env python3
"""Shows that frameworks load what this crate writes under their names, and evaluate alike.

    cargo build --example convert_checkpoint
    python scripts/peers/checkpoints/check.py <framework>...

Run by hand, each framework in its own environment; it is no part of the tests. For each framework: its own fresh model is saved
without the tensors of its normalizations, the example puts PyTorch's trained ones of tests/golden/checkpoints/torch.safetensors
there under the framework's names, the framework loads the file strictly and evaluates both layers on the inputs in the golden
file, and its outputs are within rounding of PyTorch's."""
import argparse
import os
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

from common import CHANNELS, EPS, difference
from frameworks import FRAMEWORKS

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
GOLDEN = os.path.join(ROOT, "tests", "golden", "checkpoints", "torch.safetensors")
CONVERT = os.path.join(ROOT, "target", "debug", "examples", "convert_checkpoint")
NUMBERED = {"bn1": "layers/batch_normalization", "bn2": "layers/batch_normalization_1"}


def is_normalization(name):
    return any(part in ("bn1", "bn2") or part.startswith("batch_normalization") for part in name.replace("/", ".").split("."))


def check(name):
    framework, golden = FRAMEWORKS[name](), load_file(GOLDEN)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        framework.write(path)
        tensors = load_file(path)
        own = sorted(n for n in tensors if is_normalization(n))
        save_file({n: v for n, v in tensors.items() if n not in own}, path)
        paths = NUMBERED if name == "keras_numbered" else {layer: layer for layer in CHANNELS}
        layers = [f"{layer}={paths[layer]}" for layer in CHANNELS]
        subprocess.run([CONVERT, GOLDEN, path, name, *layers], check=True, stdout=subprocess.DEVNULL)
        written = load_file(path)
        assert sorted(n for n in written if is_normalization(n)) == own, (sorted(written), own)
        for n in written.keys() - set(own):
            assert written[n].tobytes() == tensors[n].tobytes(), n
        framework.load(path)
    for layer in CHANNELS:
        x, expected = golden[f"eval.{layer}.x"], golden[f"eval.{layer}.y"]
        vectors = [golden[f"{layer}.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]
        share = difference(vectors, EPS[layer], x, np.asarray(framework.evaluate(layer, x)), expected)
        print(f"{name} {layer}: loaded, {share:.3f} of what rounding explains beside PyTorch")
        assert share <= 1, share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frameworks", nargs="+", choices=FRAMEWORKS)
    for name in parser.parse_args().frameworks:
        check(name)


if __name__ == "__main__":
    main()
