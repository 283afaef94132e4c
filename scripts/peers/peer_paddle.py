"""paddle.nn.BatchNorm in dynamic mode."""
import paddle

from common import EPS, MOMENTUM, Implementation, run_in_process

LAYERS = {2: paddle.nn.BatchNorm1D, 3: paddle.nn.BatchNorm1D, 4: paddle.nn.BatchNorm2D,
          5: paddle.nn.BatchNorm3D}


class Layer(Implementation):
    def __init__(self, x, dy, weight, bias):
        self.layer = LAYERS[x.ndim](x.shape[1], momentum=1 - MOMENTUM, epsilon=EPS)
        self.layer.weight.set_value(weight)
        self.layer.bias.set_value(bias)
        self.x = paddle.to_tensor(x, stop_gradient=False)
        self.dy = paddle.to_tensor(dy)

    def forward(self):
        self.layer.train()
        self.y = self.layer(self.x)

    def backward(self):
        self.x.clear_grad()
        self.layer.clear_gradients()
        self.y.backward(self.dy)

    def eval(self):
        self.layer.eval()
        with paddle.no_grad():
            self.y_eval = self.layer(self.x)

    def get(self):
        self.eval()
        self.forward()
        self.backward()
        return dict(y=self.y.numpy(), dx=self.x.grad.numpy(), dw=self.layer.weight.grad.numpy(),
                    db=self.layer.bias.grad.numpy(), y_eval=self.y_eval.numpy(),
                    rm=self.layer._mean.numpy(), rv=self.layer._variance.numpy())


def run(bench, workloads):
    paddle.set_device("cpu")
    run_in_process(bench, workloads, Layer)
