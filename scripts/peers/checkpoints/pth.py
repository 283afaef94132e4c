#!/usr/bin/env python3
"""Writes a PyTorch file: the state_dict of a model that has loaded the tensors of tests/golden/checkpoints/torch.safetensors, by
torch.save. The test of the Burn crates reads it beside that file.

    python pth.py tests/golden/checkpoints/torch.safetensors crates/syncbn-burn/tests/burn/torch.pth

In the environment of torch (../setup.sh, and pip install safetensors in it)."""
import argparse

import torch
from safetensors.torch import load_file

from frameworks import Torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden")
    parser.add_argument("out")
    arguments = parser.parse_args()
    tensors = {name: tensor for name, tensor in load_file(arguments.golden).items() if not name.startswith("eval.")}
    model = Torch().model
    model.load_state_dict(tensors, strict=True)
    torch.save(model.state_dict(), arguments.out)


if __name__ == "__main__":
    main()
