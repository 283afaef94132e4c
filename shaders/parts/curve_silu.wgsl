// v·σ(v).

#import curve_sigmoid

fn silu_value(v: V) -> V {
    return v * sigmoid(v).at;
}

// σ(v)·(1 + v·σ(−v)). Both ends are reached within 100.
fn silu_derivative(v: V) -> V {
    let near = settled(clamp(v, V(-100.0), V(100.0)));
    let s = sigmoid(near);
    return s.at * settled(V(1.0) + near * s.at_negative);
}
