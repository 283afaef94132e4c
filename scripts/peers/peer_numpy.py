"""The formulas in numpy and f32, as one would write them first."""
import numpy as np

from common import EPS, Implementation, axes, run_in_process


class Numpy(Implementation):
    def __init__(self, x, dy, weight, bias):
        self.x, self.dy, self.weight, self.bias = x, dy, weight, bias
        self.over, self.shape = axes(x)

    def forward(self):
        self.mean, var = self.x.mean(self.over), self.x.var(self.over)
        self.inv_std = 1 / np.sqrt(var + np.float32(EPS))
        scale = self.weight * self.inv_std
        shift = self.bias - self.mean * scale
        self.y = self.x * scale.reshape(self.shape) + shift.reshape(self.shape)

    def backward(self):
        count = self.x.size // self.x.shape[1]
        of_channel = lambda values: values.reshape(self.shape)
        normalized = (self.x - of_channel(self.mean)) * of_channel(self.inv_std)
        self.db, self.dw = self.dy.sum(self.over), (self.dy * normalized).sum(self.over)
        of_batch = of_channel(self.db / count) + normalized * of_channel(self.dw / count)
        self.dx = of_channel(self.weight * self.inv_std) * (self.dy - of_batch)

    def eval(self):
        scale = (self.weight / np.float32(np.sqrt(1 + EPS))).reshape(self.shape)
        self.y_eval = self.x * scale + self.bias.reshape(self.shape)

    def get(self):
        self.forward()
        self.backward()
        self.eval()
        return dict(y=self.y, dx=self.dx, dw=self.dw, db=self.db, y_eval=self.y_eval)


def run(bench, workloads):
    run_in_process(bench, workloads, Numpy)
