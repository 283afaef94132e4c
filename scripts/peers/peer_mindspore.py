"""mindspore.nn.BatchNorm in PyNative mode."""
import mindspore as ms
from mindspore import Tensor, nn, ops

from common import EPS, MOMENTUM, Implementation, run_in_process

LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


class Layer(Implementation):
    def __init__(self, x, dy, weight, bias):
        self.layer = LAYERS[x.ndim](x.shape[1], eps=EPS, momentum=1 - MOMENTUM,
                                    gamma_init=Tensor(weight), beta_init=Tensor(bias))
        # The three-dimensional layer holds a two-dimensional one.
        self.inner = self.layer.bn2d if x.ndim == 5 else self.layer
        self.x, self.dy = Tensor(x), Tensor(dy)
        self.parameters = list(self.layer.trainable_params())
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)

    def forward(self):
        self.layer.set_train(True)
        self.y = self.layer(self.x)
        ms.runtime.synchronize()

    def step(self):
        self.layer.set_train(True)
        self.gradients = self.gradient(self.layer, self.parameters)(self.x, self.dy)
        ms.runtime.synchronize()

    def eval(self):
        self.layer.set_train(False)
        self.y_eval = self.layer(self.x)
        ms.runtime.synchronize()

    def get(self):
        self.eval()
        self.forward()
        mean = self.inner.moving_mean.asnumpy().copy()
        var = self.inner.moving_variance.asnumpy().copy()
        self.step()
        (dx,), (dw, db) = self.gradients
        return dict(y=self.y.asnumpy(), dx=dx.asnumpy(), dw=dw.asnumpy(), db=db.asnumpy(),
                    y_eval=self.y_eval.asnumpy(), rm=mean, rv=var)


def run(bench, workloads):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_device("CPU")
    run_in_process(bench, workloads, Layer)
