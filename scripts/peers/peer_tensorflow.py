"""TensorFlow: the fused operator, and Keras' synchronized layer under a mirrored strategy."""
import contextlib

import numpy as np
import tensorflow as tf

from common import EPS, MOMENTUM, Implementation, from_last, run_in_process, to_last


class Fused(Implementation):
    """FusedBatchNormV3 and its gradient, which are NHWC on a CPU."""

    def __init__(self, x, dy, weight, bias):
        self.shape, channels = x.shape, x.shape[1]
        flat = lambda values: to_last(values).reshape(values.shape[0], -1, 1, channels)
        x, dy = tf.constant(flat(x)), tf.constant(flat(dy))
        given = dict(x=x, scale=tf.constant(weight), epsilon=EPS, data_format="NHWC")
        affine = dict(offset=tf.constant(bias), mean=tf.zeros(channels), variance=tf.ones(channels))
        operators = tf.raw_ops
        self.run_forward = tf.function(lambda: operators.FusedBatchNormV3(
            **given, **affine, exponential_avg_factor=MOMENTUM, is_training=True))
        self.run_backward = tf.function(lambda a, b, c: operators.FusedBatchNormGradV3(
            **given, y_backprop=dy, reserve_space_1=a, reserve_space_2=b, reserve_space_3=c,
            is_training=True))
        self.run_eval = tf.function(lambda: operators.FusedBatchNormV3(
            **given, **affine, is_training=False))

    def forward(self):
        self.made = self.run_forward()
        self.made.y[0, 0, 0, 0].numpy()

    def backward(self):
        saved = (self.made.reserve_space_1, self.made.reserve_space_2, self.made.reserve_space_3)
        self.gradients = self.run_backward(*saved)
        self.gradients.x_backprop[0, 0, 0, 0].numpy()

    def eval(self):
        self.evaluated = self.run_eval()
        self.evaluated.y[0, 0, 0, 0].numpy()

    def get(self):
        self.forward()
        self.backward()
        self.eval()
        samples, channels, *spatial = self.shape
        placed = lambda value: from_last(value.numpy().reshape(samples, *spatial, channels))
        return dict(y=placed(self.made.y), dx=placed(self.gradients.x_backprop),
                    dw=self.gradients.scale_backprop.numpy(),
                    db=self.gradients.offset_backprop.numpy(), y_eval=placed(self.evaluated.y),
                    rm=self.made.batch_mean.numpy(), rv=self.made.batch_variance.numpy())


class Keras(Implementation):
    def __init__(self, bench, strategy, x, dy, weight, bias):
        import keras
        self.strategy, samples = strategy, x.shape[0] // bench.world
        x, dy = to_last(x), to_last(dy)
        with strategy.scope() if strategy else contextlib.nullcontext():
            self.layer = keras.layers.BatchNormalization(
                momentum=1 - MOMENTUM, epsilon=EPS, synchronized=bench.world > 1)
            self.layer.build((None, *x.shape[1:]))
            self.layer.gamma.assign(weight)
            self.layer.beta.assign(bias)

            def part(values):
                if not strategy:
                    return tf.constant(values)

                def of_replica(context):
                    first = context.replica_id_in_sync_group * samples
                    return tf.constant(values[first:first + samples])

                return strategy.experimental_distribute_values_from_function(of_replica)

            x, dy = part(x), part(dy)
            run = strategy.run if strategy else lambda function, args: function(*args)
            train = lambda x: self.layer(x, training=True)
            evaluate = lambda x: self.layer(x, training=False)
            self.run_forward = tf.function(lambda: run(train, (x,)))
            self.run_step = tf.function(lambda: run(self.both, (x, dy)))
            self.run_eval = tf.function(lambda: run(evaluate, (x,)))

    def both(self, x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self.layer(x, training=True)
        leaves = [x, self.layer.gamma.value, self.layer.beta.value]
        return (y, *tape.gradient(y, leaves, output_gradients=dy))

    def ranks(self, value):
        return self.strategy.experimental_local_results(value) if self.strategy else (value,)

    def wait(self, value):
        for tensor in self.ranks(value):
            tensor[(0,) * len(tensor.shape)].numpy()

    def forward(self):
        self.wait(self.run_forward())

    def step(self):
        self.made = self.run_step()
        self.wait(self.made[0])
        self.wait(self.made[1])

    def eval(self):
        self.y_eval = self.run_eval()
        self.wait(self.y_eval)

    def get(self):
        self.eval()
        self.step()
        joined = lambda value: from_last(
            np.concatenate([tensor.numpy() for tensor in self.ranks(value)]))
        added = lambda value: sum(tensor.numpy() for tensor in self.ranks(value))
        y, dx, dw, db = self.made
        return dict(y=joined(y), dx=joined(dx), dw=added(dw), db=added(db),
                    y_eval=joined(self.y_eval), rm=np.asarray(self.layer.moving_mean),
                    rv=np.asarray(self.layer.moving_variance))


def run(bench, workloads):
    tf.config.threading.set_intra_op_parallelism_threads(bench.threads)
    tf.config.threading.set_inter_op_parallelism_threads(bench.threads)
    if bench.peer == "tf_fused":
        return run_in_process(bench, workloads, Fused)
    processor = tf.config.list_physical_devices("CPU")[0]
    each = [tf.config.LogicalDeviceConfiguration()] * bench.world
    tf.config.set_logical_device_configuration(processor, each)
    strategy = None
    if bench.world > 1:
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(bench.world)])
    run_in_process(bench, workloads, lambda *inputs: Keras(bench, strategy, *inputs))
