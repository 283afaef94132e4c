"""flax.linen.BatchNorm on virtual CPU devices, synchronized in two ways:

  flax_gspmd      the batch is sharded, and XLA's partitioner inserts the all-reduces
  flax_shard_map  every device runs the layer, which is told the axis to reduce over
"""
import os

import numpy as np

from common import EPS, MOMENTUM, Implementation, from_last, run_in_process, to_last


def layer(bench, is_eval, axis_name):
    import flax.linen as nn
    return nn.BatchNorm(use_running_average=is_eval, momentum=1 - MOMENTUM, epsilon=EPS,
                        axis=-1 if bench.layout == "NHWC" else 1, axis_name=axis_name)


class Flax(Implementation):
    def __init__(self, bench, x, dy, weight, bias):
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        self.jax, self.is_last = jax, bench.layout == "NHWC"
        is_mapped = bench.peer == "flax_shard_map" and bench.world > 1
        axis_name = "b" if is_mapped else None
        self.mesh = Mesh(np.array(jax.devices()[:bench.world]), ("b",))
        self.sharded, self.whole = PartitionSpec("b"), PartitionSpec()
        put = lambda value, spec: jax.device_put(value, NamedSharding(self.mesh, spec))
        placed = to_last if self.is_last else (lambda value: value)
        self.x, self.dy = put(placed(x), self.sharded), put(placed(dy), self.sharded)
        channels = x.shape[1]
        self.parameters = put({"scale": weight, "bias": bias}, self.whole)
        running = {"mean": np.zeros(channels, np.float32), "var": np.ones(channels, np.float32)}
        self.running = put(running, self.whole)
        self.train_layer = layer(bench, False, axis_name)
        self.eval_layer = layer(bench, True, None)
        self.axis_name = axis_name
        if is_mapped:
            self.compile_mapped()
        else:
            self.compile_whole()

    def train(self, x, parameters, running):
        variables = {"params": parameters, "batch_stats": running}
        y, updated = self.train_layer.apply(variables, x, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    def evaluate(self, x, parameters, running):
        return self.eval_layer.apply({"params": parameters, "batch_stats": running}, x)

    def both(self, x, dy, parameters, running):
        function = lambda x, parameters: self.train(x, parameters, running)
        y, pull_back, updated = self.jax.vjp(function, x, parameters, has_aux=True)
        dx, of_parameters = pull_back(dy)
        if self.axis_name:
            add = lambda value: self.jax.lax.psum(value, self.axis_name)
            of_parameters = self.jax.tree.map(add, of_parameters)
        return y, dx, of_parameters, updated

    def compile_mapped(self):
        batch, whole = self.sharded, self.whole
        mapped = lambda function, given, made: self.jax.jit(self.jax.shard_map(
            function, mesh=self.mesh, in_specs=given, out_specs=made, check_vma=False))
        self.run_forward = mapped(self.train, (batch, whole, whole), (batch, whole))
        self.run_step = mapped(
            self.both, (batch, batch, whole, whole), (batch, batch, whole, whole))
        self.run_eval = mapped(self.evaluate, (batch, whole, whole), batch)

    def compile_whole(self):
        jit = self.jax.jit

        def forward(x, parameters, running):
            function = lambda x, parameters: self.train(x, parameters, running)
            y, pull_back, updated = self.jax.vjp(function, x, parameters, has_aux=True)
            return y, updated, pull_back

        self.run_forward, self.run_step = jit(forward), jit(self.both)
        self.run_eval = jit(self.evaluate)
        self.run_backward = jit(lambda pull_back, dy: pull_back(dy))
        self.backward = self.only_backward

    def wait(self, value):
        return self.jax.block_until_ready(value)

    def forward(self):
        self.y, self.updated, *rest = self.wait(
            self.run_forward(self.x, self.parameters, self.running))
        self.pull_back = rest[0] if rest else None

    def only_backward(self):
        self.dx, self.of_parameters = self.wait(self.run_backward(self.pull_back, self.dy))

    def step(self):
        self.y, self.dx, self.of_parameters, self.updated = self.wait(
            self.run_step(self.x, self.dy, self.parameters, self.running))

    def eval(self):
        self.y_eval = self.wait(self.run_eval(self.x, self.parameters, self.running))

    def get(self):
        self.forward()
        alone = np.asarray(self.y)
        self.step()
        self.eval()
        if not np.allclose(alone, np.asarray(self.y), atol=1e-5):
            raise AssertionError("y of a forward pass is not that of a step")
        if self.backward:
            of_step = np.asarray(self.dx)
            self.forward()
            self.backward()
            if not np.allclose(of_step, np.asarray(self.dx), atol=1e-5):
                raise AssertionError("dx of a backward pass is not that of a step")
        first = from_last if self.is_last else (lambda value: value)
        placed = lambda value: first(np.asarray(value))
        return dict(y=placed(self.y), dx=placed(self.dx), y_eval=placed(self.y_eval),
                    dw=np.asarray(self.of_parameters["scale"]),
                    db=np.asarray(self.of_parameters["bias"]),
                    rm=np.asarray(self.updated["mean"]), rv=np.asarray(self.updated["var"]))


def run(bench, workloads):
    # Before jax is imported.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={bench.world}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    run_in_process(bench, workloads, lambda *inputs: Flax(bench, *inputs))
