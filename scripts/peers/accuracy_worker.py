#!/usr/bin/env python3
"""Normalizes the inputs of accuracy.py with one implementation, in training mode, without weight
and bias. Prints its version. accuracy.py starts it with the python of the implementation's environment.
What the implementation refuses has no output.
"""
import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["JAX_PLATFORMS"] = "cpu"


def torch_eager(x, eps):
    import torch
    return torch.nn.BatchNorm2d(x.shape[1], eps=eps)(torch.from_numpy(x)).detach().numpy()


def torch_compiled(x, eps):
    import torch
    layer = lambda x: torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps)
    return torch.compile(layer, dynamic=False)(torch.from_numpy(x)).numpy()


def keras(x, eps):
    import keras
    layer = keras.layers.BatchNormalization(axis=-1, epsilon=eps)
    return np.moveaxis(layer(np.moveaxis(x, 1, -1), training=True).numpy(), -1, 1)


def tensorflow_fused(x, eps):
    import tensorflow as tf
    channels = x.shape[1]
    made = tf.raw_ops.FusedBatchNormV3(
        x=np.ascontiguousarray(np.moveaxis(x, 1, -1)), scale=tf.ones(channels),
        offset=tf.zeros(channels), mean=tf.zeros(channels), variance=tf.ones(channels),
        epsilon=eps, data_format="NHWC", is_training=True)
    return np.moveaxis(made.y.numpy(), -1, 1)


def flax(x, eps, fast=True):
    import flax.linen as nn
    import jax
    layer = nn.BatchNorm(use_running_average=False, epsilon=eps, axis=1, use_fast_variance=fast)
    variables = layer.init(jax.random.key(0), x)
    y, _ = jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"]))(x)
    return np.asarray(y)


def flax_two_pass(x, eps):
    return flax(x, eps, fast=False)


def mindspore(x, eps):
    import mindspore
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    mindspore.set_device("CPU")
    layer = mindspore.nn.BatchNorm2d(x.shape[1], eps=eps)
    layer.set_train(True)
    return layer(mindspore.Tensor(x)).asnumpy()


def paddle(x, eps):
    import paddle
    paddle.set_device("cpu")
    return paddle.nn.BatchNorm2D(x.shape[1], epsilon=eps)(paddle.to_tensor(x)).numpy()


def onnxruntime(x, eps):
    import onnxruntime
    from onnx import TensorProto, helper
    names, channels = ["x", "scale", "bias", "mean", "var"], [x.shape[1]]
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    node = helper.make_node("BatchNormalization", names, ["y", "m", "v"], epsilon=eps,
                            training_mode=1)
    given = [value("x", list(x.shape)), *(value(name, channels) for name in names[1:])]
    made = [value("y", list(x.shape)), value("m", channels), value("v", channels)]
    model = helper.make_model(helper.make_graph([node], "layer", given, made),
                              opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return session.run(["y"], dict(x=x, scale=ones, bias=zeros, mean=zeros, var=ones))[0]


def numpy_two_pass(x, eps):
    over, shape = (0, 2, 3), (1, -1, 1, 1)
    mean, var = x.mean(over).reshape(shape), x.var(over).reshape(shape)
    return (x - mean) / np.sqrt(var + np.float32(eps))


# Name: function, module that has the version.
IMPLEMENTATIONS = {
    "torch": (torch_eager, "torch"),
    "torch.compile": (torch_compiled, "torch"),
    "keras": (keras, "keras"),
    "tensorflow fused": (tensorflow_fused, "tensorflow"),
    "flax": (flax, "flax"),
    "flax, two passes": (flax_two_pass, "flax"),
    "mindspore": (mindspore, "mindspore"),
    "paddle": (paddle, "paddle"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
    "numpy f32": (numpy_two_pass, "numpy"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("implementation", choices=IMPLEMENTATIONS)
    parser.add_argument("inputs", type=Path, help="folder of NAME.npy, and eps.json: eps by name")
    parser.add_argument("outputs", type=Path, help="folder for y, NAME.npy")
    options = parser.parse_args()
    normalize, module = IMPLEMENTATIONS[options.implementation]
    for name, eps in json.loads((options.inputs / "eps.json").read_text()).items():
        try:
            y = normalize(np.load(options.inputs / f"{name}.npy"), eps)
        except Exception as error:  # such as an eps that it does not take: no output
            print(f"{name}: {type(error).__name__}: {str(error).strip()[:200]}", file=sys.stderr)
            continue
        np.save(options.outputs / f"{name}.npy", y)
    print(__import__(module).__version__)


if __name__ == "__main__":
    main()
