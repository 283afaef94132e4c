// σ(z) = 1/(1 + e⁻ᶻ).

#import curve_exponential

// σ(z), and σ(−z) = 1 − σ(z), neither of which is a difference.
struct Sigmoid {
    at: V,
    at_negative: V,
}

fn sigmoid(z: V) -> Sigmoid {
    let e = value_of_exponential(exponential(abs(z), V(0.0)));
    let large = settled(V(1.0) / (V(1.0) + e));
    let small = settled(e * large);
    let is_below = z < V(0.0);
    return Sigmoid(select(large, small, is_below), select(small, large, is_below));
}
