#!/usr/bin/env python3
"""How far y of every implementation is from the definition in f64, on hard inputs.

  scripts/peers/accuracy.py --out docs/data/accuracy.csv   # ours, and every peer installed
  scripts/peers/accuracy.py --only syncbn --seeds 1          # ours alone

The number of a case is the worst |y − y₆₄| over its seeds, channels and values, in ulp of the
largest |y₆₄| of the channel: an error of one is the distance between neighbouring f32 there. `nan`
says that y is not finite, `zero` that a channel's y is 0 though it should not be, `refused` that
the implementation does not take the input.

Inputs are (16, 4, 32, 32) in f32, normalized over 16,384 values per channel without weight and
bias, eps 1e-5 unless the case says otherwise. y₆₄ has sums by math.fsum, which are exact. Each peer
runs in the virtual environment that setup.sh makes; ours is built here and runs on the host (CPU)
and on every adapter that --adapters names, over one rank and over two.
"""
import argparse
import csv
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import catalog

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).resolve().parent / "accuracy_worker.py"

try:
    import numpy as np
except ImportError:  # any of the environments has it
    pythons = [peer.python() for peer in catalog.PEERS.values() if peer.python().is_file()]
    if not pythons:
        sys.exit("numpy was not found, and none of the environments: run setup.sh first")
    os.execv(pythons[0], [str(pythons[0]), *sys.argv])

SHAPE = (16, 4, 32, 32)
EPS = 1e-5


def spike(random):
    """A constant channel with one value far off."""
    x = np.full(SHAPE, 3.0)
    for channel in range(SHAPE[1]):
        sample, row, column = (random.integers(SHAPE[axis]) for axis in (0, 2, 3))
        x[sample, channel, row, column] = 1000.0
    return x


def two_scales(random):
    """Half of the values deviate by 1000, half by 0.001."""
    scale = np.where(random.random(SHAPE) < 0.5, 1e3, 1e-3)
    return random.standard_normal(SHAPE) * scale


def normal(mean, deviation):
    return lambda random: mean + deviation * random.standard_normal(SHAPE)


# Name: what it is, eps, values.
CASES = {
    "normal": ("mean 0, deviation 1", EPS, normal(0, 1)),
    "mean_100": ("mean 100, deviation 1", EPS, normal(100, 1)),
    "mean_1e4": ("mean 1e4, deviation 1e-2", EPS, normal(1e4, 1e-2)),
    "mean_1e6": ("mean 1e6, deviation 1", EPS, normal(1e6, 1)),
    "spike": ("constant 3, one value of 1000", EPS, spike),
    "two_scales": ("deviations 1e-3 and 1e3 mixed", EPS, two_scales),
    "cauchy": ("Cauchy", EPS, lambda random: random.standard_cauchy(SHAPE)),
    "scale_1e-30": ("deviation 1e-30, eps 1e-5", EPS, normal(0, 1e-30)),
    "scale_1e-30_eps_0": ("deviation 1e-30, eps 0", 0.0, normal(0, 1e-30)),
    "scale_1e30": ("deviation 1e30", EPS, normal(0, 1e30)),
}

ENVIRONMENTS = {
    "torch": "torch", "torch.compile": "torch", "keras": "tf", "tensorflow fused": "tf",
    "flax": "jax", "flax, two passes": "jax", "mindspore": "ms", "paddle": "paddle",
    "onnxruntime": "onnx", "numpy f32": "jax",
}


def definition(x, eps):
    """y in f64, channel by channel."""
    y = np.empty(x.shape)
    for channel in range(x.shape[1]):
        values = x[:, channel].astype(np.float64)
        mean = math.fsum(values.flat) / values.size
        var = math.fsum(((values - mean) ** 2).flat) / values.size
        y[:, channel] = (values - mean) / math.sqrt(var + eps)
    return y


# What is said in place of a number.
WORDS = {"zero", "nan", "refused"}


def worst_ulp(y, expected):
    """A number, or a word."""
    if y is None:
        return "refused"
    worst = 0.0
    for channel in range(expected.shape[1]):
        found, wanted = y[:, channel].astype(np.float64), expected[:, channel]
        if not np.isfinite(found).all():
            return "nan"
        if not found.any() and wanted.any():
            return "zero"
        ulp = float(np.spacing(np.float32(np.abs(wanted).max())))
        worst = max(worst, float(np.abs(found - wanted).max()) / ulp)
    return worst


def make_inputs(folder, seeds):
    """Writes every input twice, for numpy and for our program; returns the expected outputs."""
    expected, eps_of = {}, {}
    for number, (name, (_, eps, make)) in enumerate(CASES.items()):
        for seed in range(seeds):
            x = make(np.random.default_rng([number, seed])).astype(np.float32)
            key = f"{name}.{seed}"
            np.save(folder / f"{key}.npy", x)
            x.tofile(folder / f"{key}.f32")
            expected[key], eps_of[key] = definition(x, eps), eps
    (folder / "eps.json").write_text(json.dumps(eps_of))
    return expected, eps_of


def rows_of(name, version, expected, outputs):
    """A line of the table for each case; `outputs(key)` has y."""
    worst = {}
    for key, wanted in expected.items():
        worst.setdefault(key.rpartition(".")[0], []).append(worst_ulp(outputs(key), wanted))
    for case, found in worst.items():
        words = [error for error in found if isinstance(error, str)]
        error = words[0] if words else f"{max(found):.4g}"
        yield dict(case=case, input=CASES[case][0], implementation=name, version=version,
                   worst_ulp=error)


def of_peer(name, folder, expected):
    python = catalog.environments() / ENVIRONMENTS[name] / "bin" / "python"
    if not python.is_file():
        print(f"not installed: {name} (setup.sh {ENVIRONMENTS[name]})", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as outputs:
        command = [python, WORKER, name, folder, outputs]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} ended with {done.returncode}: {done.stderr[-600:]}", file=sys.stderr)
            return []
        print(done.stderr, end="", file=sys.stderr)

        def load(key):
            y = Path(outputs) / f"{key}.npy"
            return np.load(y) if y.is_file() else None

        return list(rows_of(name, done.stdout.split()[-1], expected, load))


def build():
    command = ["cargo", "build", "--release", "--package", "syncbn-bench", "--bin", "normalize"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "normalize"


def of_ours(program, name, arguments, inputs, devices):
    folder, expected, eps_of = inputs

    def normalized(key):
        shape = ",".join(map(str, SHAPE))
        y = folder / f"{key}.y"
        command = [program, "--shape", shape, "--eps", str(eps_of[key]), *arguments,
                   folder / f"{key}.f32", y]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        devices.add(done.stdout.strip())
        return np.fromfile(y, np.float32).reshape(SHAPE)

    version = subprocess.run([program, "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return list(rows_of(name, version.stdout.split()[-1], expected, normalized))


def ours(options, inputs):
    """Rows of ours, and the names of the devices."""
    program = options.program or build()
    rows, devices = [], set()
    for adapter in ["host", *options.adapters.split(",")]:
        for ranks in (1, 2):
            several = f", {ranks} ranks" if ranks > 1 else ""
            arguments = ["--adapter", adapter, "--ranks", str(ranks)]
            name = f"syncbn on {adapter}{several}"
            rows += of_ours(program, name, arguments, inputs, devices)
        if adapter != "host":
            arguments = ["--adapter", adapter, "--on-device"]
            name = f"syncbn BatchNorm on {adapter}"
            rows += of_ours(program, name, arguments, inputs, devices)
    return rows, devices


def short(error):
    """Two digits of a number; a word as it is."""
    if error in WORDS:
        return error
    number = float(error)
    return f"{number:.1f}" if number < 100 else f"{number:.1e}".replace("e+0", "e")


def processor():
    """The widest vectors of the processor."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    has = lambda flag: any(flag in line.split() for line in text.splitlines() if "flags" in line)
    return "AVX-512" if has("avx512f") else "AVX2" if has("avx2") else platform.processor()


def print_table(rows):
    print(f"| | {' | '.join(title for title, *_ in CASES.values())} |")
    print("|---|" + "---|" * len(CASES))
    found = {(row["case"], row["implementation"]): row["worst_ulp"] for row in rows}
    for name in dict.fromkeys(row["implementation"] for row in rows):
        print(f"| {name} | {' | '.join(short(found[case, name]) for case in CASES)} |")


def main():
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--only", help="comma-separated names, `syncbn` for ours")
    parser.add_argument("--adapters", default="llvmpipe", help="GPUs that ours runs on")
    parser.add_argument("--program", type=Path, help="syncbn-bench's normalize, built already")
    parser.add_argument("--seeds", type=int, default=5, help="inputs of each case")
    parser.add_argument("--out", type=Path, help="CSV")
    parser.add_argument("--table", type=Path, help="print the table of such a CSV, compute nothing")
    options = parser.parse_args()
    if options.table:
        lines = (line for line in options.table.read_text().splitlines() if line[0] != "#")
        return print_table(list(csv.DictReader(lines)))
    chosen = options.only.split(",") if options.only else ["syncbn", *ENVIRONMENTS]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        expected, eps_of = make_inputs(folder, options.seeds)
        rows, devices = [], set()
        if "syncbn" in chosen:
            rows, devices = ours(options, (folder, expected, eps_of))
        for name in ENVIRONMENTS:
            if name in chosen:
                rows += of_peer(name, folder, expected)
    if options.out:
        with options.out.open("w", newline="") as out:
            out.write(f"# device: {platform.machine()} {platform.system()}, {processor()}; "
                      f"{'; '.join(sorted(devices))}\n"
                      f"# measured: scripts/peers/accuracy.py --seeds {options.seeds}, {SHAPE}\n"
                      "# worst_ulp: worst error of y in ulp of the channel's largest |y|; zero, nan "
                      "or refused where there is none\n")
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print_table(rows)


if __name__ == "__main__":
    main()
