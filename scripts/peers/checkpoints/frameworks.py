"""The model of common.py in each framework: its tensors under the framework's own names, loading them, and evaluating a layer.

Every class has `names` (all tensors, as the framework's own tools save them), `load(tensors)` (with the framework's own tools,
strictly) and `evaluate(layer, x)`, channels first.
"""
import os
import tempfile

import numpy as np

from common import CHANNELS, EPS, parameters, random, last, first

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Torch:
    """state_dict(), written by safetensors.torch."""

    def __init__(self):
        import torch
        self.torch = torch
        nn = torch.nn

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
                self.conv2, self.bn2 = nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4, eps=1e-3)
        self.model = Model().eval()
        self.layers = {name: getattr(self.model, name) for name in CHANNELS}

    def fill(self):
        with self.torch.no_grad():
            for name, layer in self.layers.items():
                tensors = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
                for tensor, values in zip(tensors, parameters(name)):
                    tensor.copy_(self.torch.from_numpy(values))
                layer.num_batches_tracked.fill_(7)

    def write(self, path):
        from safetensors.torch import save_model
        save_model(self.model, path)

    def load(self, path):
        from safetensors.torch import load_model
        load_model(self.model, path, strict=True)

    def evaluate(self, layer, x):
        with self.torch.no_grad():
            return self.layers[layer](self.torch.from_numpy(x)).numpy()


class TorchDataParallel(Torch):
    """The same from DataParallel: `module.` before every name."""

    def __init__(self):
        super().__init__()
        self.model = self.torch.nn.DataParallel(self.model).eval()


class Mindspore:
    """save_checkpoint(format="safetensors") and load_checkpoint, with the nn layers."""
    mint = False

    def __init__(self):
        import mindspore as ms
        from mindspore import mint, nn
        self.ms = ms
        ms.set_device("CPU")
        is_mint = self.mint

        class Model(nn.Cell):
            def __init__(self):
                super().__init__()
                self.conv1, self.conv2 = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
                if is_mint:
                    self.bn1, self.bn2 = mint.nn.BatchNorm2d(5), mint.nn.BatchNorm2d(4, eps=1e-3)
                else:
                    self.bn1, self.bn2 = nn.BatchNorm2d(5), nn.BatchNorm2d(4, eps=1e-3)
        self.model = Model()
        self.model.set_train(False)
        self.layers = {name: getattr(self.model, name) for name in CHANNELS}

    def vectors(self, layer):
        return [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]

    def fill(self):
        for name, layer in self.layers.items():
            for tensor, values in zip(self.vectors(layer), parameters(name)):
                tensor.set_data(self.ms.Tensor(values))

    def write(self, path):
        self.ms.save_checkpoint(self.model, path, format="safetensors")

    def load(self, path):
        tensors = self.ms.load_checkpoint(path, format="safetensors")
        missing, _ = self.ms.load_param_into_net(self.model, tensors, strict_load=True)
        assert not missing, missing

    def evaluate(self, layer, x):
        return self.layers[layer](self.ms.Tensor(x)).asnumpy()


class MindsporeMint(Mindspore):
    """The same with the mint layers."""
    mint = True

    def vectors(self, layer):
        return [layer.weight, layer.bias, layer.running_mean, layer.running_var]

    def evaluate(self, layer, x):
        """MindSpore 2.10 has no kernel of the mint layer for a CPU: its nn layer evaluates with the mint layer's vectors."""
        plain = self.ms.nn.BatchNorm2d(x.shape[1], eps=EPS[layer])
        for tensor, values in zip(super().vectors(plain), self.vectors(self.layers[layer])):
            tensor.set_data(self.ms.Tensor(values.asnumpy()))
        plain.set_train(False)
        return plain(self.ms.Tensor(x)).asnumpy()


class Keras:
    """Variables by their path, which is what converters to safetensors use."""

    def __init__(self):
        import keras
        self.keras = keras
        x = keras.Input((4, 5, 3), name="x")
        y = keras.layers.Conv2D(5, 3, padding="same", name="conv1")(x)
        y = keras.layers.BatchNormalization(epsilon=EPS["bn1"], name="bn1")(y)
        y = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(y)
        y = keras.layers.BatchNormalization(epsilon=EPS["bn2"], name="bn2")(y)
        self.model = keras.Model(x, y, name="small")
        self.layers = {name: self.model.get_layer(name) for name in CHANNELS}

    def fill(self):
        for name, layer in self.layers.items():
            tensors = [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]
            for tensor, values in zip(tensors, parameters(name)):
                tensor.assign(values)

    def write(self, path):
        from safetensors.numpy import save_file
        save_file({v.path: np.array(v) for v in self.model.variables}, path)

    def load(self, path):
        from safetensors.numpy import load_file
        tensors = load_file(path)
        for variable in self.model.variables:
            variable.assign(tensors.pop(variable.path))
        assert not tensors, list(tensors)

    def evaluate(self, layer, x):
        return first(self.layers[layer](last(x), training=False))


class KerasNumbered(Keras):
    """save_weights("….weights.h5"), dataset by dataset."""

    def write(self, path):
        import h5py
        from safetensors.numpy import save_file
        tensors = {}
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "small.weights.h5")
            self.model.save_weights(file)
            with h5py.File(file) as h5:
                h5.visititems(lambda name, item: tensors.update({name: np.array(item)}) if isinstance(item, h5py.Dataset) else None)
        save_file(tensors, path)

    def load(self, path):
        import h5py
        from safetensors.numpy import load_file
        tensors = load_file(path)
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "small.weights.h5")
            self.model.save_weights(file)
            with h5py.File(file, "a") as h5:
                for name, values in tensors.items():
                    h5[name][...] = values
            self.model.load_weights(file)


class Flax:
    """linen: variables as a flat dictionary with `/`."""

    def __init__(self):
        import flax.linen as nn
        import jax
        self.jax = jax

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                x = nn.Conv(5, (3, 3), name="conv1")(x)
                x = nn.BatchNorm(True, epsilon=EPS["bn1"], name="bn1")(x)
                x = nn.Conv(4, (3, 3), name="conv2")(x)
                return nn.BatchNorm(True, epsilon=EPS["bn2"], name="bn2")(x)
        self.nn = nn
        self.variables = Model().init(jax.random.key(0), np.zeros((1, 4, 5, 3), np.float32))

    def fill(self):
        places = [("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var")]
        for name in CHANNELS:
            for (tree, tensor), values in zip(places, parameters(name)):
                self.variables[tree][name][tensor] = values

    def write(self, path):
        from flax.traverse_util import flatten_dict
        from safetensors.numpy import save_file
        save_file({n: np.array(v) for n, v in flatten_dict(self.variables, sep="/").items()}, path)

    def load(self, path):
        from flax.serialization import from_state_dict
        from flax.traverse_util import unflatten_dict
        from safetensors.numpy import load_file
        self.variables = from_state_dict(self.variables, unflatten_dict(load_file(path), sep="/"))

    def evaluate(self, layer, x):
        variables = {tree: self.variables[tree][layer] for tree in ("params", "batch_stats")}
        return first(self.nn.BatchNorm(True, epsilon=EPS[layer]).apply(variables, last(x)))


class FlaxNnx:
    """nnx: the state as a flat dictionary with `.`."""

    def __init__(self):
        from flax import nnx
        self.nnx = nnx

        class Model(nnx.Module):
            def __init__(self, rngs):
                self.conv1, self.conv2 = nnx.Conv(3, 5, (3, 3), rngs=rngs), nnx.Conv(5, 4, (3, 3), rngs=rngs)
                self.bn1 = nnx.BatchNorm(5, epsilon=EPS["bn1"], use_running_average=True, rngs=rngs)
                self.bn2 = nnx.BatchNorm(4, epsilon=EPS["bn2"], use_running_average=True, rngs=rngs)
        self.model = Model(nnx.Rngs(0))
        self.layers = {name: getattr(self.model, name) for name in CHANNELS}

    def flat(self):
        state = self.nnx.state(self.model)
        return {".".join(map(str, path)): variable for path, variable in self.nnx.to_flat_state(state)}

    def fill(self):
        import jax.numpy as jnp
        for name, layer in self.layers.items():
            for tensor, values in zip([layer.scale, layer.bias, layer.mean, layer.var], parameters(name)):
                tensor[...] = jnp.asarray(values)

    def write(self, path):
        from safetensors.numpy import save_file
        save_file({name: np.array(variable[...]) for name, variable in self.flat().items()}, path)

    def load(self, path):
        import jax.numpy as jnp
        from safetensors.numpy import load_file
        tensors = load_file(path)
        for name, variable in self.flat().items():
            variable[...] = jnp.asarray(tensors.pop(name))
        flat = self.flat()
        self.nnx.update(self.model, self.nnx.from_flat_state([(tuple(n.split(".")), v) for n, v in flat.items()]))
        assert not tensors, list(tensors)

    def evaluate(self, layer, x):
        return first(self.layers[layer](last(x)))


class Paddle:
    """state_dict()."""

    def __init__(self):
        import paddle
        self.paddle = paddle
        nn = paddle.nn

        class Model(nn.Layer):
            def __init__(self):
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2D(3, 5, 3), nn.BatchNorm2D(5)
                self.conv2, self.bn2 = nn.Conv2D(5, 4, 3), nn.BatchNorm2D(4, epsilon=1e-3)
        self.model = Model()
        self.model.eval()
        self.layers = {name: getattr(self.model, name) for name in CHANNELS}

    def fill(self):
        for name, layer in self.layers.items():
            for tensor, values in zip([layer.weight, layer.bias, layer._mean, layer._variance], parameters(name)):
                tensor.set_value(values)

    def write(self, path):
        from safetensors.numpy import save_file
        save_file({name: tensor.numpy() for name, tensor in self.model.state_dict().items()}, path)

    def load(self, path):
        from safetensors.numpy import load_file
        tensors = {name: self.paddle.to_tensor(values) for name, values in load_file(path).items()}
        missing, unexpected = self.model.set_state_dict(tensors)
        assert not missing and not unexpected, (missing, unexpected)

    def evaluate(self, layer, x):
        return self.layers[layer](self.paddle.to_tensor(x)).numpy()


class Onnx:
    """Initializers of a graph, named as the operator's inputs; run by onnxruntime."""

    def __init__(self):
        self.initializers = {}
        draw = random(3)
        for conv, dims in (("conv1", (5, 3, 3, 3)), ("conv2", (4, 5, 3, 3))):
            self.initializers[f"{conv}.W"] = draw.normal(size=dims).astype(np.float32)
            self.initializers[f"{conv}.B"] = draw.normal(size=dims[0]).astype(np.float32)
        self.fill()

    def fill(self):
        for name in CHANNELS:
            for tensor, values in zip(["scale", "B", "input_mean", "input_var"], parameters(name)):
                self.initializers[f"{name}.{tensor}"] = values

    def graph(self):
        from onnx import TensorProto, checker, helper, numpy_helper
        nodes, value = [], "x"
        for conv, bn in (("conv1", "bn1"), ("conv2", "bn2")):
            nodes.append(helper.make_node("Conv", [value, f"{conv}.W", f"{conv}.B"], [f"{conv}.y"], pads=[1] * 4))
            inputs = [f"{conv}.y"] + [f"{bn}.{n}" for n in ("scale", "B", "input_mean", "input_var")]
            nodes.append(helper.make_node("BatchNormalization", inputs, [f"{bn}.y"], epsilon=EPS[bn]))
            value = f"{bn}.y"
        of = lambda name, c: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, c, 4, 5])
        tensors = [numpy_helper.from_array(values, name) for name, values in self.initializers.items()]
        graph = helper.make_graph(nodes, "small", [of("x", 3)], [of("bn2.y", 4)], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        checker.check_model(model, full_check=True)
        return model

    def write(self, path):
        from onnx import numpy_helper
        from safetensors.numpy import save_file
        save_file({t.name: numpy_helper.to_array(t) for t in self.graph().graph.initializer}, path)

    def load(self, path):
        from safetensors.numpy import load_file
        tensors = load_file(path)
        assert tensors.keys() == self.initializers.keys(), (sorted(tensors), sorted(self.initializers))
        self.initializers = tensors
        self.graph()

    def evaluate(self, layer, x):
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
        names = [f"{layer}.{n}" for n in ("scale", "B", "input_mean", "input_var")]
        node = helper.make_node("BatchNormalization", ["x"] + names, ["y"], epsilon=EPS[layer])
        of = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, list(x.shape))
        tensors = [numpy_helper.from_array(self.initializers[name], name) for name in names]
        graph = helper.make_graph([node], layer, [of("x")], [of("y")], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]


FRAMEWORKS = {"torch": Torch, "torch_data_parallel": TorchDataParallel, "mindspore": Mindspore, "mindspore_mint": MindsporeMint,
              "keras": Keras, "keras_numbered": KerasNumbered, "flax": Flax, "flax_nnx": FlaxNnx, "paddle": Paddle, "onnx": Onnx}
