#!/usr/bin/env python3
"""What torch.nn.SyncBatchNorm does at the edges: each entry for it in
tests/golden/edge_semantics.json is measured again. One that is not as written there is an error.

  scripts/peers/setup.sh torch
  scripts/peers/torch_edges.py

The layer refuses tensors on a CPU, and its five kernels exist for CUDA alone. Here its own Python
code runs, with its checks, branches and collectives, on two processes over gloo. In place of the
kernels it gets functions of the same formulas (include/ATen/native/cuda/Normalization.cuh of the
package), which the first case compares with torch.nn.BatchNorm1d on the whole batch.
"""
import os
import sys
import tempfile
from unittest import mock

import catalog

try:
    import torch
except ImportError:
    python = str(catalog.PEERS["torch_bn"].python())
    if sys.executable == python or not os.path.isfile(python):
        sys.exit("torch was not found: run setup.sh torch first")
    os.execv(python, [python, *sys.argv])

import torch.distributed as dist
import torch.multiprocessing

CHANNELS = 3
BIAS = torch.tensor([0.5, -1.0, 2.0])
INF, NAN = float("inf"), float("nan")


# In place of the kernels. Inputs are (N, C).

def local_stats(x, eps):
    var, mean = torch.var_mean(x, 0, correction=0)
    return mean, torch.rsqrt(var + eps)


def merged_stats(_x, means, inv_stds, running_mean, running_var, momentum, eps, counts):
    """Chan's merge, rank by rank. The number of values is an integer in the kernel."""
    n, mean, m2 = 0, torch.zeros(CHANNELS), torch.zeros(CHANNELS)
    for rank, count in enumerate(int(count) for count in counts):
        total = n + count
        m2 = m2 + (inv_stds[rank] ** -2 - eps) * count
        m2 = m2 + (mean - means[rank]) ** 2 * (n * count / total)
        mean = mean * (n / total) + means[rank] * (count / total)
        n = total
    for running, new in [(running_mean, mean), (running_var, m2 / (n - 1))]:
        running.mul_(1 - momentum).add_(momentum * new)
    return mean, torch.rsqrt(m2 / n + eps)


def normalized(x, weight, bias, mean, inv_std, _eps):
    return (x - mean) * inv_std * weight + bias


def gradient_sums(dy, x, mean, inv_std, _weight, *_wanted):
    sum_dy, sum_dy_xmu = dy.sum(0), (dy * (x - mean)).sum(0)
    return sum_dy, sum_dy_xmu, sum_dy_xmu * inv_std, sum_dy


def input_gradient(dy, x, mean, inv_std, weight, sum_dy, sum_dy_xmu, counts):
    n = counts.sum()
    return (dy - sum_dy / n - (x - mean) * inv_std ** 2 * sum_dy_xmu / n) * inv_std * weight


KERNELS = {
    "batch_norm_stats": local_stats,
    "batch_norm_gather_stats_with_counts": merged_stats,
    "batch_norm_elemt": normalized,
    "batch_norm_backward_reduce": gradient_sums,
    "batch_norm_backward_elemt": input_gradient,
}


def values(count, seed):
    return torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(seed)) + 3


def with_value(value):
    """Batches of two ranks, with this value in channel 1 of rank 0."""
    first, second = values(4, 1), values(3, 2)
    first[2, 1] = value
    return first, second


BATCHES = {
    "two ranks": (values(5, 1), values(2, 2)),
    "one value": (values(1, 3), values(0, 4)),
    "all empty": (values(0, 1), values(0, 2)),
    "one empty": (values(4, 1), values(0, 2)),
    "inf": with_value(INF),
    "nan": with_value(NAN),
}


def step(layer, x):
    """A step of training, with an upstream gradient of no symmetry."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -0.5]))
        layer.bias.copy_(BIAS)
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(torch.cos(x.detach()) + 0.3)
    of = dict(y=y.detach(), dx=x.grad, dw=layer.weight.grad, db=layer.bias.grad)
    return of | dict(mean=layer.running_mean, var=layer.running_var,
                     steps=int(layer.num_batches_tracked))


def error_of(call):
    try:
        call()
        return "none"
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__} {error}"


def near(found, expected):
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def whole_batch(ranks):
    """Of two ranks against BatchNorm1d on all their values."""
    expected = step(torch.nn.BatchNorm1d(CHANNELS), torch.cat(BATCHES["two ranks"]))
    for name in ("y", "dx"):
        yield name, near(torch.cat([rank[name] for rank in ranks]), expected[name])
    for name in ("dw", "db"):
        yield f"{name}, summed over ranks", near(ranks[0][name] + ranks[1][name], expected[name])
    for name in ("mean", "var"):
        yield f"running {name}, N of the group", all(
            near(rank[name], expected[name]) for rank in ranks)


def one_value(ranks):
    """Of counts 1 and 0."""
    x = BATCHES["one value"][0][0]
    yield "y = bias", near(ranks[0]["y"], BIAS[None])
    yield "dx = 0", near(ranks[0]["dx"], torch.zeros(1, CHANNELS))
    yield "running_mean is updated", all(near(rank["mean"], 0.1 * x) for rank in ranks)
    yield "running_var is inf or nan", all(not rank["var"].isfinite().any() for rank in ranks)


def all_empty(ranks):
    for number, rank in enumerate(ranks):
        yield f"y of rank {number} is empty", rank["y"].shape == (0, CHANNELS)
        gradients = [rank[name] for name in ("dw", "db") if rank[name] is not None]
        yield "gradients without nan", not any(of.isnan().any() for of in gradients)
        yield "running statistics move towards 0 by momentum", (
            near(rank["mean"], torch.zeros(CHANNELS)) and near(rank["var"], torch.full((3,), 0.9)))
        yield "num_batches_tracked += 1", rank["steps"] == 1


def one_empty(ranks):
    full, empty = ranks
    yield "the same running statistics", (
        torch.equal(full["mean"], empty["mean"]) and torch.equal(full["var"], empty["var"]))
    yield "y is empty", empty["y"].shape == (0, CHANNELS)
    yield "gradients are absent", all(empty[name] is None for name in ("dx", "dw", "db"))


def not_finite(ranks):
    for rank in ranks:
        yield "y is nan in the channel on all ranks", bool(rank["y"][:, 1].isnan().all())
        yield "other channels are unaffected", bool(rank["y"][:, [0, 2]].isfinite().all())
        # Of inf the order of the sum decides: of one process it is inf, see below.
        yield "running_mean is inf or nan", not rank["mean"][1].isfinite()
        yield "running_var is nan", bool(rank["var"][1].isnan())


CHECKS = {
    "two ranks": whole_batch,
    "one value": one_value,
    "all empty": all_empty,
    "one empty": one_empty,
    "inf": not_finite,
    "nan": not_finite,
}


def arguments():
    """Of one rank by itself."""
    layer, empty = torch.nn.SyncBatchNorm(CHANNELS), torch.nn.BatchNorm1d(CHANNELS)
    for name, call, message in [
        ("one value per channel, world 1", lambda: layer(values(1, 1)),
         "ValueError Expected more than 1 value per channel when training"),
        ("1-D input", lambda: layer(torch.zeros(3)),
         "ValueError expected at least 2D input (got 1D input)"),
        ("zero channels", lambda: layer(torch.zeros(2, 0)),
         "ValueError SyncBatchNorm number of input channels should be non-zero"),
        ("channel mismatch", lambda: layer(torch.zeros(4, 2)),
         "RuntimeError running_mean should contain 2 elements not 3"),
        ("one value per channel, evaluation", lambda: layer.eval()(values(1, 1)), "none"),
    ]:
        error = error_of(call)
        yield f"{name}: {error}", error.startswith(message)
    y = empty(values(0, 1))
    yield "BatchNorm, (0, C), world 1: y is empty, the running statistics stay", (
        y.shape == (0, CHANNELS) and not empty.running_mean.any()
        and bool((empty.running_var == 1).all()))
    for value in (INF, NAN):
        of = step(torch.nn.BatchNorm1d(CHANNELS), with_value(value)[0])
        yield f"BatchNorm, {value} in a channel: running_mean is {value}, running_var nan", (
            str(float(of["mean"][1])) == str(value) and bool(of["var"][1].isnan()))


def report(name, checks):
    failed = 0
    for statement, is_so in checks:
        failed += not is_so
        print("ok " if is_so else "NOT", f"{name}: {statement}")
    return failed


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    device = mock.patch.object(torch._C, "_get_privateuse1_backend_name", lambda: "cpu")
    kernels = mock.patch.multiple(torch, create=True, **KERNELS)
    failed = 0
    with device, kernels:
        for name, batches in BATCHES.items():
            found = [None, None]
            dist.all_gather_object(found, step(torch.nn.SyncBatchNorm(CHANNELS), batches[rank]))
            if rank == 0:
                failed += report(name, CHECKS[name](found))
    dist.destroy_process_group()
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    print(f"torch {torch.__version__}")
    wrong = report("one rank", arguments())
    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.multiprocessing.start_processes(work, args=(folder,), nprocs=2)
        except torch.multiprocessing.ProcessExitedException:
            wrong += 1
    sys.exit("A finding is not that of tests/golden/edge_semantics.json" if wrong else 0)
