// v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2 = v·σ(z), z = v·(GELU_SLOPE + GELU_CUBE·v²).

#import curve_sigmoid

const GELU_SLOPE: f32 = 1.5957691;   // 2·√(2/π)
const GELU_CUBE: f32 = 0.07135481;   // 0.044715 of it

// v up to where σ(z) is 0 or 1, so that nothing overflows.
fn near_tanh(v: V) -> V {
    return settled(clamp(v, V(-12.0), V(12.0)));
}

fn gelu_tanh_value(v: V) -> V {
    let near = near_tanh(v);
    let z = settled(near * (V(GELU_SLOPE) + V(GELU_CUBE) * (near * near)));
    return v * sigmoid(z).at;
}

// σ(z)·(1 + v·z'(v)·σ(−z)).
fn gelu_tanh_derivative(v: V) -> V {
    let near = near_tanh(v);
    let square = near * near;
    let s = sigmoid(settled(near * (V(GELU_SLOPE) + V(GELU_CUBE) * square)));
    let slope = settled(near * (V(GELU_SLOPE) + V(3.0 * GELU_CUBE) * square));
    return s.at * settled(V(1.0) + slope * s.at_negative);
}
