"""A small model that every framework builds alike, and what its checkpoint file holds beside it.

Convolution 3 -> 5, normalization, ReLU, convolution 5 -> 4, normalization with eps 1e-3. `eval.<layer>.x` and `eval.<layer>.y`
are inputs and outputs of the two normalizations in the framework's evaluation, channels first: (2, C, 4, 5)."""
import numpy as np

CHANNELS = {"bn1": 5, "bn2": 4}
EPS = {"bn1": 1e-5, "bn2": 1e-3}
SAMPLES, HEIGHT, WIDTH = 2, 4, 5
# As in tests/it/state/frameworks.rs: two careful evaluations in f32 differ by at most 16 half ulp of the largest term.
TOLERANCE = 16 * 2.0**-24


def random(seed):
    return np.random.default_rng(seed)


def parameters(layer):
    """weight, bias, mean, variance of a layer: numbers that no default has."""
    draw, c = random(sum(map(ord, layer))), CHANNELS[layer]
    return [draw.normal(1, 0.5, c).astype(np.float32), draw.normal(0, 1, c).astype(np.float32),
            draw.normal(0, 3, c).astype(np.float32), draw.uniform(0.01, 9, c).astype(np.float32)]


def activation(layer):
    draw = random(7 + sum(map(ord, layer)))
    return draw.normal(1, 4, (SAMPLES, CHANNELS[layer], HEIGHT, WIDTH)).astype(np.float32)


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(y):
    return np.ascontiguousarray(np.moveaxis(np.asarray(y, dtype=np.float32), -1, 1))


def difference(vectors, eps, x, found, expected):
    """The largest difference as a share of what rounding explains."""
    weight, bias, mean, var = (v.astype(np.float64).reshape(1, -1, 1, 1) for v in vectors)
    alpha = np.abs(weight) / np.sqrt(var + eps)
    size = alpha * (np.abs(x.astype(np.float64)) + np.abs(mean)) + np.abs(bias)
    return float((np.abs(found.astype(np.float64) - expected) / (TOLERANCE * size)).max())
