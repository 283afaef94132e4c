#!/usr/bin/env python3
"""Times PyTorch's batch normalization and a copy on the GPU, with the workloads and the JSON keys of `bench --json`.

  python3 scripts/gpu_torch.py [--seconds 60] [--device cuda]

Forward in training, backward and evaluation; nothing after it, or a residual and ReLU; f32, f16, bf16 (parameters in f32);
contiguous and channels last; eager, then compiled by torch.compile as far as time goes. The copy runs in turn with the passes
and moves as many bytes as the bench tool's: what a pass has to move at least. Tensors rotate over more bytes than caches hold.
Device times are between events behind a delay kernel, so that launches cost them nothing; wall times have everything.
Outputs of every row are compared with the definition in f64 on some channels. Needs PyTorch alone.
"""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as functional

WORKLOADS = {
    "rn_64x112": (32, 64, 112, 112), "rn_256x56": (32, 256, 56, 56), "rn_128x28": (32, 128, 28, 28),
    "rn_512x28": (32, 512, 28, 28), "rn_1024x14": (32, 1024, 14, 14), "rn_2048x7": (32, 2048, 7, 7),
    "mlp_4096x1024": (4096, 1024), "video": (4, 64, 16, 56, 56), "pointcloud": (32, 128, 4096), "tiny": (8, 16, 8, 8),
}
# What is compiled, in this order, as far as time goes: each takes seconds.
COMPILED = ["rn_256x56", "rn_2048x7", "rn_64x112", "mlp_4096x1024"]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
EPS = 1e-5
REPEATS = 15
ROTATED_BYTES = 768 << 20
# Cycles of the delay kernel: longer than the launches of a pass take.
DELAY = 2_000_000
# How far an output may be from the definition, by the largest of its channel. Sums in f32 move single values by some
# 1e-6; storage in 16 bits rounds by half of 2^-10 or 2^-7, of y before ReLU and after the addition as well.
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.6e-2}
CHANNELS = 4


def tensors_moved(name, epilogue, size):
    """How many times the bytes of x a pass has to move, with a bit per value for the activation: as the bench tool counts."""
    bits = 1 / (8 * size)
    plain = {"forward": 3, "backward": 5, "eval": 2}
    fused = {"forward": 4 + bits, "backward": 6 + 2 * bits, "eval": 3}
    return (fused if epilogue == "add_relu" else plain)[name]


def memory_format(dims, layout):
    """Of PyTorch, or None where it has none."""
    if layout == "first":
        return torch.contiguous_format
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(dims))


class Layer:
    """Batch normalization, a residual and ReLU behind it where the epilogue has them."""

    def __init__(self, channels, epilogue, device, compiled):
        generator = torch.Generator(device="cpu").manual_seed(1)
        draw = lambda: 0.25 * torch.randn(channels, generator=generator)
        self.weight = (1 + draw()).to(device).requires_grad_()
        self.bias = draw().to(device).requires_grad_()
        self.mean, self.var = torch.zeros(channels, device=device), torch.ones(channels, device=device)
        self.epilogue = epilogue

        def apply(x, residual, weight, bias, mean, var, training):
            y = functional.batch_norm(x, mean, var, weight, bias, training, 0.1, EPS)
            return functional.relu(y + residual) if epilogue == "add_relu" else y

        if compiled:
            # Else the code compiled for other rows counts against a limit, behind which nothing is compiled any more.
            torch._dynamo.reset()
        self.apply = torch.compile(apply, dynamic=False) if compiled else apply

    def forward(self, data, training=True):
        return self.apply(data.x, data.residual, self.weight, self.bias, self.mean, self.var, training)

    def backward(self, data, y):
        inputs = [data.x, self.weight, self.bias] + ([data.residual] if data.residual is not None else [])
        return torch.autograd.grad(y, inputs, data.g)


class Data:
    """x, the residual and the upstream gradient of one call."""

    def __init__(self, dims, dtype, layout, epilogue, device, seed):
        generator = torch.Generator(device=device).manual_seed(seed)
        form = memory_format(dims, layout)
        draw = lambda: torch.randn(dims, generator=generator, device=device).to(dtype).to(memory_format=form)
        self.x, self.g = draw().requires_grad_(), draw()
        self.residual = draw().requires_grad_() if epilogue == "add_relu" else None


def definition(layer, data, channels):
    """y and grad_input of some channels, in f64, by the formulas of the definition."""
    pick = lambda tensor: tensor.detach()[:, channels].double()
    x, g = pick(data.x), pick(data.g)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    of_channels = lambda values: values.detach()[channels].double().reshape([1, -1] + [1] * (x.dim() - 2))
    mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
    inv_std = (var + EPS).rsqrt()
    normalized = (x - mean) * inv_std
    weight = of_channels(layer.weight)
    y = weight * normalized + of_channels(layer.bias)
    if data.residual is not None:
        v = y + pick(data.residual)
        y = v.clamp(min=0)
        g = torch.where(v > 0, g, torch.zeros_like(g))
    average = lambda values: values.mean(axes, keepdim=True)
    grad_input = weight * inv_std * (g - average(g) - normalized * average(g * normalized))
    return y, grad_input


def agrees(found, expected, tolerance, may_differ):
    """Whether all but a share of the values are as expected, in relation to the largest of their channel."""
    axes = [axis for axis in range(expected.dim()) if axis != 1]
    wrong = (found.double() - expected).abs() > tolerance * expected.abs().amax(axes, keepdim=True)
    wrong |= found.isnan()
    return wrong.double().mean().item() <= may_differ


def check(layer, data, dtype):
    """Refuses outputs that are not those of the definition, and a definition that takes others for right."""
    channels = sorted({place * (data.x.shape[1] - 1) // (CHANNELS - 1) for place in range(CHANNELS)})
    y = layer.forward(data)
    grad_input = layer.backward(data, y)[0]
    # Where v is within rounding of 0, ReLU may decide either way: a few values in a thousand in bf16.
    may_differ = 1e-2 if data.residual is not None else 0.0
    tolerance = TOLERANCE[dtype]
    for name, found, expected in zip(("y", "grad_input"), (y, grad_input), definition(layer, data, channels)):
        found = found.detach()[:, channels]
        if not agrees(found, expected, tolerance, may_differ):
            raise AssertionError(f"{name} is not that of the definition")
        if agrees(found * (1 + 3 * tolerance), expected, tolerance, may_differ):
            raise AssertionError(f"the check takes {name} with three times its tolerance for right")


class Clock:
    """Times of something that runs on the device, in milliseconds."""

    def __init__(self, device):
        self.is_cuda = device == "cuda"

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def wall(self, run):
        self.wait()
        started = time.perf_counter()
        run()
        self.wait()
        return 1e3 * (time.perf_counter() - started)

    def device(self, run):
        if not self.is_cuda:
            return self.wall(run)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        torch.cuda._sleep(DELAY)
        begin.record()
        run()
        end.record()
        self.wait()
        return begin.elapsed_time(end)


def measure(layer, sets, clock, copy):
    """Median milliseconds on the device and in all, and of the copy that ran in turn, for every pass."""
    found = {}
    state = {}

    def forward(data):
        state["y"] = layer.forward(data)

    def backward(data):
        layer.backward(data, state.pop("y"))

    def evaluate(data):
        with torch.no_grad():
            layer.forward(data, training=False)

    for name, run in (("forward", forward), ("backward", backward), ("eval", evaluate)):
        times = {"device": [], "wall": [], "copy": []}
        for turn in range(-2, REPEATS):
            data = sets[turn % len(sets)]
            measured = {}
            for clock_name in ("device", "wall"):
                if name == "backward":
                    forward(data)
                measured[clock_name] = getattr(clock, clock_name)(lambda: run(data))
            measured["copy"] = clock.device(lambda: copy(name, turn))
            if turn >= 0:
                for key, value in measured.items():
                    times[key].append(value)
        found[name] = {key: statistics.median(values) for key, values in times.items()}
    return found


class Copy:
    """Copies half of the bytes of a pass, which reads and writes them all."""

    def __init__(self, data_bytes, epilogue, size, sets, device):
        halves = {name: int(tensors_moved(name, epilogue, size) * data_bytes / 2) for name in ("forward", "backward", "eval")}
        self.halves = halves
        largest = max(halves.values())
        self.pairs = [[torch.full((largest,), fill, dtype=torch.uint8, device=device) for fill in (90, 165)]
                      for _ in range(max(2, min(sets, ROTATED_BYTES // (2 * largest))))]

    def __call__(self, name, turn):
        source, destination = self.pairs[turn % len(self.pairs)]
        count = self.halves[name]
        destination[:count].copy_(source[:count])


def rows(mode, workloads):
    """What is timed of a mode, as far as time goes: f32 first, and the workloads that are compiled by their own list."""
    names = workloads if mode == "eager" else [name for name in COMPILED if name in workloads]
    for dtype in DTYPES:
        for layout in ("first", "last"):
            for epilogue in ("none", "add_relu"):
                for name in names:
                    if memory_format(WORKLOADS[name], layout) is not None:
                        yield mode, name, dtype, layout, epilogue


def run_row(mode, name, dtype, layout, epilogue, device):
    dims, clock = WORKLOADS[name], Clock(device)
    size = torch.empty(0, dtype=DTYPES[dtype]).element_size()
    elements = torch.Size(dims).numel()
    count = max(2, min(64, ROTATED_BYTES // (4 * elements * size)))
    sets = [Data(dims, DTYPES[dtype], layout, epilogue, device, seed) for seed in range(count)]
    layer = Layer(dims[1], epilogue, device, mode == "compiled")
    check(layer, sets[0], dtype)
    copy = Copy(elements * size, epilogue, size, count, device)
    adapter = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    for pass_name, times in measure(layer, sets, clock, copy).items():
        moved = int(tensors_moved(pass_name, epilogue, size) * elements * size)
        print(json.dumps({
            "peer": f"torch {torch.__version__}", "mode": mode, "workload": name, "shape": dims, "pass": pass_name,
            "dtype": dtype, "layout": layout, "epilogue": epilogue, "adapter": adapter, "bytes": moved,
            "device_ms": times["device"], "wall_ms": times["wall"], "gb_per_s": moved / times["device"] / 1e6,
            "copy_gb_per_s": moved / times["copy"] / 1e6, "copy_ratio": times["copy"] / times["device"],
        }), flush=True)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="no row is begun after so many")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--workloads", default=",".join(WORKLOADS), type=lambda text: text.split(","))
    options = parser.parse_args()
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload is called {unknown[0]}; there are {', '.join(WORKLOADS)}")
    started = time.monotonic()
    planned, done, wrong = 0, 0, 0
    # Compiling takes most of a row's time: it gets half of all, and what eager rows leave.
    for mode, share in (("eager", 0.5), ("compiled", 1.0)):
        for row in rows(mode, options.workloads):
            planned += 1
            if time.monotonic() - started > share * options.seconds:
                continue
            done += 1
            try:
                run_row(*row, options.device)
            except Exception as error:  # A row that one version of PyTorch cannot do must not cost the others.
                wrong += 1
                print(f"{' '.join(row)}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    print(f"torch: {done} of {planned} rows, {wrong} failed, in {time.monotonic() - started:.0f} s")
    sys.exit(1 if wrong or not done else 0)


if __name__ == "__main__":
    main()
