"""What all peers share: inputs, the definition in f64, checks, timing, and lines of JSON."""
import json
import os
import time

import numpy as np

EPS = 1e-5
# Part of the running statistics that a batch replaces.
MOMENTUM = 0.1
# Largest error of a check, relative to the largest value (or to 1).
TOLERANCE = 2e-4
# Shapes whose results are compared with the definition before anything is timed.
CHECKED = [(8, 16, 8, 8), (8, 12), (8, 5, 33), (8, 3, 4, 5, 6)]
# Of each pass: how often it reads or writes the tensor at least.
TENSORS = {"forward": 3, "backward": 5, "step": 8, "eval": 2}
# Repetitions that are taken even where the time is over.
LEAST_REPEATS = 3


class Bench:
    """One run: the peer, its ranks and layout, and how long to measure."""

    def __init__(self, peer, world, layout, threads, repeats, warm_up, max_seconds, check_only,
                 port):
        self.peer = peer
        self.world = world
        self.layout = layout
        self.threads = threads
        self.repeats = repeats
        self.warm_up = warm_up
        self.max_seconds = max_seconds
        self.check_only = check_only
        self.port = port

    def shapes_to_check(self, least=False):
        """`least` where a peer compiles for a minute: one shape, unless only checks were asked."""
        shapes = CHECKED[:1] if least and not self.check_only else CHECKED
        wants_4d = self.layout == "channels_last"
        return [shape for shape in shapes if not wants_4d or len(shape) in (4, 5)]

    def emit(self, **line):
        where = dict(peer=self.peer, world=self.world, layout=self.layout)
        print("JSON " + json.dumps({**where, **line}), flush=True)


class Implementation:
    """A peer with its tensors: what a peer's module makes.

    Passes that a framework does not have alone are None. `get` runs all of them once and returns
    numpy arrays: y, dx, dw, db, y_eval, rm, rv.
    """

    forward = backward = step = eval = None

    def get(self):
        raise NotImplementedError


def axes(x):
    """The axes that statistics are taken over, and the shape in which a vector meets x."""
    return (0, *range(2, x.ndim)), (1, x.shape[1]) + (1,) * (x.ndim - 2)


def batch(shape, seed=0):
    """x, grad_output, weight and bias, of random numbers."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape, dtype=np.float32) * 2 + np.float32(0.5)
    dy = random.standard_normal(shape, dtype=np.float32)
    channels = shape[1]
    weight = random.uniform(0.5, 1.5, channels).astype(np.float32)
    bias = random.uniform(-1, 1, channels).astype(np.float32)
    return x, dy, weight, bias


def definition(x, dy, weight, bias):
    """Batch normalization and its gradients in f64."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    over, shape = axes(x)
    count = x.size // x.shape[1]
    mean, var = x.mean(over), x.var(over)
    inv_std = 1 / np.sqrt(var + EPS)
    normalized = (x - mean.reshape(shape)) * inv_std.reshape(shape)
    db, dw = dy.sum(over), (dy * normalized).sum(over)
    of_batch = (db / count).reshape(shape) + normalized * (dw / count).reshape(shape)
    return dict(
        y=normalized * weight.reshape(shape) + bias.reshape(shape),
        dx=(weight * inv_std).reshape(shape) * (dy - of_batch),
        dw=dw,
        db=db,
        mean=mean,
        var=var,
        count=count,
        y_eval=x / np.sqrt(1 + EPS) * weight.reshape(shape) + bias.reshape(shape),
    )


def report_check(bench, shape, found, expected):
    """The largest errors against the definition, and which running variance the peer keeps."""
    errors = {}
    for name in ("y", "dx", "dw", "db", "y_eval"):
        if found.get(name) is not None:
            worst = np.abs(found[name] - expected[name]).max()
            errors[name] = float(worst / max(1.0, np.abs(expected[name]).max()))
    if found.get("rm") is not None:
        errors["running_mean"] = float(np.abs(found["rm"] - MOMENTUM * expected["mean"]).max())
    running_var = None
    if found.get("rv") is not None:
        count = expected["count"]
        variances = dict(biased=expected["var"], unbiased=expected["var"] * count / (count - 1))
        off = {name: float(np.abs(found["rv"] - (1 - MOMENTUM + MOMENTUM * var)).max())
               for name, var in variances.items()}
        running_var = min(off, key=off.get)
        errors["running_var"] = off[running_var]
    is_right = bool(errors) and all(error < TOLERANCE for error in errors.values())
    bench.emit(type="check", shape=list(shape), ok=is_right, running_var=running_var,
               max_err={name: float(f"{error:.2e}") for name, error in errors.items()})
    return is_right


def report_times(bench, name, shape, phase, seconds, derived=False):
    """`derived`: a backward that is the step less the median forward: none was timed alone."""
    milliseconds = sorted(second * 1e3 for second in seconds)
    median = float(np.median(milliseconds))
    moved = TENSORS[phase] * int(np.prod(shape)) * 4
    bench.emit(type="time", workload=name, shape=shape, phase=phase, derived=derived,
               median_ms=round(median, 4), min_ms=round(milliseconds[0], 4), n=len(milliseconds),
               threads=bench.threads, gb_per_s=round(moved / median / 1e6, 2))


def timed(bench, passes):
    """Seconds of each pass, which run in turn."""
    found = [[] for _ in passes]
    end = time.perf_counter() + bench.max_seconds
    for i in range(bench.warm_up + bench.repeats):
        for times, run in zip(found, passes):
            start = time.perf_counter()
            run()
            if i >= bench.warm_up:
                times.append(time.perf_counter() - start)
        if i - bench.warm_up >= LEAST_REPEATS and time.perf_counter() > end:
            break
    return found


def run_in_process(bench, workloads, make, compiles=False):
    """Checks a peer whose ranks are of this process, then times it. `make(x, dy, weight, bias)`."""
    for shape in bench.shapes_to_check(least=compiles):
        try:
            inputs = batch(shape, seed=3)
            report_check(bench, shape, make(*inputs).get(), definition(*inputs))
        except Exception as error:  # one shape that fails is a line of the output
            bench.emit(type="check", shape=list(shape), ok=False, error=describe(error))
    if bench.check_only:
        return
    for name, shape in workloads.items():
        try:
            time_workload(bench, name, shape, make(*batch(shape)))
        except Exception as error:
            bench.emit(type="error", workload=name, error=describe(error))


def time_workload(bench, name, shape, peer):
    if peer.backward:
        forward, backward = timed(bench, [peer.forward, peer.backward])
        report_times(bench, name, shape, "forward", forward)
        report_times(bench, name, shape, "backward", backward)
        both = [a + b for a, b in zip(forward, backward)]
        report_times(bench, name, shape, "step", both)
    elif peer.forward:
        forward = timed(bench, [peer.forward])[0]
        report_times(bench, name, shape, "forward", forward)
        if peer.step:
            step = timed(bench, [peer.step])[0]
            report_times(bench, name, shape, "step", step)
            rest = [max(0.0, seconds - float(np.median(forward))) for seconds in step]
            report_times(bench, name, shape, "backward", rest, derived=True)
    if peer.eval:
        report_times(bench, name, shape, "eval", timed(bench, [peer.eval])[0])


def describe(error):
    return f"{type(error).__name__}: {str(error)[:300]}"


def to_last(x):
    """(N, C, …) as (N, …, C)."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def from_last(x):
    return np.moveaxis(x, -1, 1)


def limit_threads(threads):
    """For libraries that read it when they are imported."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
