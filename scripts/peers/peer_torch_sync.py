"""Synchronized layers of torch over gloo, one process per rank. torch.nn.SyncBatchNorm itself does
not train on a CPU, so these are written here, each as well as torch's own operators allow:

  torch_sync_aten      ATen's fused kernels
  torch_sync_sums      means of x and x² through a differentiable all-reduce, the rest autograd
  torch_sync_inductor  the four passes compiled by torch.compile
"""
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from common import EPS, LEAST_REPEATS, MOMENTUM, batch, definition, report_check, report_times
from peer_torch import tensors


def of_channel(values, x):
    """A vector in the shape in which it meets x."""
    return values.view((1, -1) + (1,) * (x.dim() - 2))


def over(x):
    return [axis for axis in range(x.dim()) if axis != 1]


def all_reduced(values):
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


class AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(_context, values):
        return all_reduced(values.clone())

    @staticmethod
    def backward(_context, gradient):
        return all_reduced(gradient.clone())


def by_sums(x, weight, bias, running_mean, running_var):
    channels, world = x.shape[1], dist.get_world_size()
    local = torch.cat([x.mean(over(x)), (x * x).mean(over(x))])
    both = AllReduce.apply(local) / world
    mean, var = both[:channels], both[channels:] - both[:channels] ** 2
    with torch.no_grad():
        running_mean += MOMENTUM * (mean - running_mean)
        running_var += MOMENTUM * (var - running_var)
    scale = weight * torch.rsqrt(var + EPS)
    return x * of_channel(scale, x) + of_channel(bias - mean * scale, x)


class Aten:
    """The four passes by ATen's kernels."""

    @staticmethod
    def statistics(x):
        return torch.ops.aten.batch_norm_update_stats(x, None, None, MOMENTUM)

    @staticmethod
    def normalize(x, weight, bias, mean, var):
        return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, EPS)[0]

    @staticmethod
    def gradient_sums(dy, x, weight, mean, var):
        _, dw, db = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, None, None, False, EPS, [False, True, True])
        return dw, db

    @staticmethod
    def input_gradient(dy, x, of_dy, of_x, constant):
        dx = torch.addcmul(of_channel(constant, x), dy, of_channel(of_dy, x))
        return torch.addcmul(dx, x, of_channel(of_x, x))


class Inductor:
    """The four passes compiled."""

    def __init__(self):
        def statistics(x):
            var, mean = torch.var_mean(x, over(x), correction=0)
            return mean, var

        def normalize(x, weight, bias, mean, var):
            scale = weight * torch.rsqrt(var + EPS)
            return x * of_channel(scale, x) + of_channel(bias - mean * scale, x)

        def gradient_sums(dy, x, _weight, mean, var):
            normalized = (x - of_channel(mean, x)) * of_channel(torch.rsqrt(var + EPS), x)
            return (normalized * dy).sum(over(x)), dy.sum(over(x))

        def input_gradient(dy, x, of_dy, of_x, constant):
            linear = dy * of_channel(of_dy, x) + x * of_channel(of_x, x)
            return linear + of_channel(constant, x)

        compiled = lambda function: torch.compile(function, dynamic=False)
        self.statistics, self.normalize = compiled(statistics), compiled(normalize)
        self.gradient_sums, self.input_gradient = compiled(gradient_sums), compiled(input_gradient)


def merged(x, mean, var):
    """Chan's merge of what the ranks gathered: sums about 0 would cancel."""
    count, channels = torch.tensor(float(x.numel() // x.shape[1])), x.shape[1]
    if dist.get_world_size() == 1:
        return mean, var, count
    own = torch.cat([mean, var, count.view(1)])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    ranks = torch.stack(gathered)
    counts, means, variances = ranks[:, -1:], ranks[:, :channels], ranks[:, channels:-1]
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    return mean, ((variances + (means - mean) ** 2) * counts).sum(0) / total, total


def layer_of(passes):
    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(context, x, weight, bias, running_mean, running_var):
            mean, var, count = merged(x, *passes.statistics(x))
            running_mean.mul_(1 - MOMENTUM).add_(mean, alpha=MOMENTUM)
            running_var.mul_(1 - MOMENTUM).add_(var * (count / (count - 1)), alpha=MOMENTUM)
            context.save_for_backward(x, weight, mean, var, count)
            return passes.normalize(x, weight, bias, mean, var)

        @staticmethod
        def backward(context, dy):
            x, weight, mean, var, count = context.saved_tensors
            inv_std, channels = torch.rsqrt(var + EPS), weight.numel()
            dw, db = passes.gradient_sums(dy, x, weight, mean, var)
            sums = all_reduced(torch.cat([dw, db])) / count
            of_dy = weight * inv_std
            of_x = -of_dy * inv_std * sums[:channels]
            constant = -of_dy * sums[channels:] - of_x * mean
            return passes.input_gradient(dy, x, of_dy, of_x, constant), dw, db, None, None

    return Layer.apply


LAYERS = {"torch_sync_aten": lambda: layer_of(Aten), "torch_sync_sums": lambda: by_sums,
          "torch_sync_inductor": lambda: layer_of(Inductor())}


class Rank:
    """One rank with its part of a batch."""

    def __init__(self, bench, apply, shape, seed):
        self.apply, self.inputs = apply, batch(shape, seed)
        x, dy, weight, bias = self.inputs
        samples = shape[0] // dist.get_world_size()
        own = slice(dist.get_rank() * samples, (dist.get_rank() + 1) * samples)
        self.x, self.dy = tensors(bench, x[own].copy(), dy[own].copy())
        self.weight, self.bias = torch.from_numpy(weight), torch.from_numpy(bias)
        self.running = torch.zeros(shape[1]), torch.ones(shape[1])
        for leaf in (self.x, self.weight, self.bias):
            leaf.requires_grad_()

    def forward(self):
        self.y = self.apply(self.x, self.weight, self.bias, *self.running)

    def backward(self):
        self.y.backward(self.dy)
        self.y = None

    def clear(self):
        self.x.grad = self.weight.grad = self.bias.grad = None

    def eval(self):
        with torch.no_grad():
            torch.nn.functional.batch_norm(
                self.x, *self.running, self.weight, self.bias, False, MOMENTUM, EPS)


def gathered(value):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def check(bench, apply, shape):
    rank = Rank(bench, apply, shape, seed=3)
    rank.forward()
    y = rank.y.detach().numpy().copy()
    rank.backward()
    ranks = gathered((y, rank.x.grad.numpy(), rank.weight.grad.numpy(), rank.bias.grad.numpy()))
    if dist.get_rank() == 0:
        y, dx, dw, db = zip(*ranks)
        mean, var = rank.running
        found = dict(y=np.concatenate(y), dx=np.concatenate(dx), dw=sum(dw), db=sum(db),
                     rm=mean.numpy(), rv=var.numpy())
        report_check(bench, shape, found, definition(*rank.inputs))


def in_step(run):
    """Seconds of a pass that all ranks begin together."""
    dist.barrier()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def time_workload(bench, apply, name, shape):
    rank, times = Rank(bench, apply, shape, seed=0), dict(forward=[], backward=[], eval=[])
    end = time.perf_counter() + bench.max_seconds
    for i in range(bench.warm_up + bench.repeats):
        forward = in_step(rank.forward)
        rank.clear()
        backward = in_step(rank.backward)
        if i >= bench.warm_up:
            times["forward"].append(forward)
            times["backward"].append(backward)
        # Rank 0 decides for all when the time is over.
        is_over = dist.get_rank() == 0 and i - bench.warm_up >= LEAST_REPEATS
        is_over = is_over and time.perf_counter() > end
        if all_reduced(torch.tensor([float(is_over)])).item() > 0:
            break
    for i in range(bench.warm_up + bench.repeats):
        seconds = in_step(rank.eval)
        if i >= bench.warm_up:
            times["eval"].append(seconds)
    ranks = gathered(times)
    if dist.get_rank() == 0:
        # A repetition takes as long as its slowest rank.
        of_ranks = lambda phase: zip(*(rank[phase] for rank in ranks))
        slowest = {phase: [max(seconds) for seconds in of_ranks(phase)] for phase in times}
        slowest["step"] = [a + b for a, b in zip(slowest["forward"], slowest["backward"])]
        for phase, seconds in slowest.items():
            report_times(bench, name, shape, phase, seconds)


def work(rank, bench, workloads):
    torch.set_num_threads(max(1, bench.threads // bench.world))
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{bench.port}", rank=rank,
                            world_size=bench.world)
    apply = LAYERS[bench.peer]()
    for shape in bench.shapes_to_check(least=bench.peer == "torch_sync_inductor"):
        check(bench, apply, shape)
    if not bench.check_only:
        for name, shape in workloads.items():
            time_workload(bench, apply, name, shape)
    dist.barrier()
    dist.destroy_process_group()


def run(bench, workloads):
    method = "fork" if bench.world == 1 else "spawn"
    torch.multiprocessing.start_processes(
        work, args=(bench, workloads), nprocs=bench.world, start_method=method)
