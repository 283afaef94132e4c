"""torch.nn.BatchNorm, as it is and compiled by torch.compile."""
import torch
import torch.nn.functional as F

from common import EPS, MOMENTUM, Implementation, run_in_process

LAYERS = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d,
          5: torch.nn.BatchNorm3d}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def tensors(bench, *arrays):
    """In the memory format of the bench."""
    found = [torch.from_numpy(array) for array in arrays]
    if bench.layout == "channels_last":
        found = [tensor.contiguous(memory_format=CHANNELS_LAST[tensor.dim()]) for tensor in found]
    return found


class Layer(Implementation):
    def __init__(self, bench, x, dy, weight, bias):
        self.x, self.dy = tensors(bench, x, dy)
        self.x.requires_grad_()
        self.layer = LAYERS[x.ndim](x.shape[1])
        with torch.no_grad():
            self.layer.weight.copy_(torch.from_numpy(weight))
            self.layer.bias.copy_(torch.from_numpy(bias))

    def forward(self):
        self.layer.train()
        self.y = self.layer(self.x)

    def backward(self):
        self.x.grad = self.layer.weight.grad = self.layer.bias.grad = None
        self.y.backward(self.dy)

    def eval(self):
        self.layer.eval()
        with torch.no_grad():
            self.y_eval = self.layer(self.x)

    def running(self):
        return self.layer.running_mean, self.layer.running_var

    def get(self):
        # First, with the running statistics that a layer begins with.
        self.eval()
        self.forward()
        self.backward()
        mean, var = self.running()
        return dict(y=self.y.detach().numpy(), dx=self.x.grad.numpy(),
                    dw=self.layer.weight.grad.numpy(), db=self.layer.bias.grad.numpy(),
                    y_eval=self.y_eval.numpy(), rm=mean.numpy(), rv=var.numpy())


class Compiled(Layer):
    def __init__(self, bench, x, dy, weight, bias):
        super().__init__(bench, x, dy, weight, bias)
        self.mean, self.var = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
        # One graph each, so that training is a constant of it.
        self.train_graph = torch.compile(
            lambda *given: F.batch_norm(*given, True, MOMENTUM, EPS), dynamic=False)
        self.eval_graph = torch.compile(
            lambda *given: F.batch_norm(*given, False, MOMENTUM, EPS), dynamic=False)

    def given(self):
        return self.x, self.mean, self.var, self.layer.weight, self.layer.bias

    def forward(self):
        self.y = self.train_graph(*self.given())

    def eval(self):
        with torch.no_grad():
            self.y_eval = self.eval_graph(*self.given())

    def running(self):
        return self.mean, self.var


def run(bench, workloads):
    torch.set_num_threads(bench.threads)
    compiles = bench.peer == "torch_compile_bn"
    kind = Compiled if compiles else Layer
    run_in_process(bench, workloads, lambda *inputs: kind(bench, *inputs), compiles)
