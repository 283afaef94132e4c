"""ONNX Runtime's BatchNormalization, in evaluation and in training mode. It has no backward."""
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from common import EPS, MOMENTUM, Implementation, run_in_process


def model(shape, trains):
    """A graph of one node. `momentum` is the part that is kept."""
    channels = [shape[1]]
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    inputs = ["x", "scale", "bias", "mean", "var"]
    outputs = ["y", "new_mean", "new_var"] if trains else ["y"]
    node = helper.make_node("BatchNormalization", inputs, outputs, epsilon=EPS,
                            momentum=1 - MOMENTUM, training_mode=int(trains))
    given = [value("x", shape), *(value(name, channels) for name in inputs[1:])]
    made = [value("y", shape), *(value(name, channels) for name in outputs[1:])]
    graph = helper.make_graph([node], "batch_normalization", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


class Bound:
    """A session whose inputs and outputs stay where they are."""

    def __init__(self, bench, feeds, trains):
        shape = list(feeds["x"].shape)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = bench.threads, 1
        self.session = onnxruntime.InferenceSession(
            model(shape, trains).SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        value = onnxruntime.OrtValue
        self.given = {name: value.ortvalue_from_numpy(array) for name, array in feeds.items()}
        self.made = {"y": value.ortvalue_from_shape_and_type(shape, np.float32, "cpu")}
        for name in ("new_mean", "new_var") if trains else ():
            self.made[name] = value.ortvalue_from_shape_and_type([shape[1]], np.float32, "cpu")
        for name, array in self.given.items():
            self.binding.bind_ortvalue_input(name, array)
        for name, array in self.made.items():
            self.binding.bind_ortvalue_output(name, array)

    def run(self):
        self.session.run_with_iobinding(self.binding)


class Runtime(Implementation):
    def __init__(self, bench, x, _dy, weight, bias):
        zeros, ones = np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
        feeds = dict(x=x, scale=weight, bias=bias, mean=zeros, var=ones)
        self.train_session = Bound(bench, feeds, trains=True)
        self.eval_session = Bound(bench, feeds, trains=False)

    def forward(self):
        self.train_session.run()

    def eval(self):
        self.eval_session.run()

    def get(self):
        self.forward()
        self.eval()
        made = {name: value.numpy() for name, value in self.train_session.made.items()}
        return dict(y=made["y"], rm=made["new_mean"], rv=made["new_var"],
                    y_eval=self.eval_session.made["y"].numpy())


def run(bench, workloads):
    run_in_process(bench, workloads, lambda *inputs: Runtime(bench, *inputs))
