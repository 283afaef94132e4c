// v·Φ(v), Φ(v) = (1 + erf(v/√2))/2 the normal distribution.

#import curve_exponential

// With a = |v|: Φ(−a) = density·ratio, density = e^(−a²/2).
struct NormalTail {
    a: V,
    density: V,
    ratio: V,
}

// The ratio falls from 1/2 like 1/(a·√(2π)), and is a quotient of polynomials with positive
// coefficients within 2⁻²⁷ from 0 to 13.4. Beyond, the density is 0.
//
// a² is taken in two parts, the first of which is exact, so that the exponential has no more error
// where a is large.
fn normal_tail(v: V) -> NormalTail {
    let a = settled(min(abs(v), V(14.0)));
    let leading = bitcast<V>(bitcast<U>(a) & U(0xfffff000u));
    let rest = V(0.5) * (difference(a, leading) * (a + leading));
    let density = value_of_exponential(
        exponential(settled(V(0.5) * settled(leading * leading)), settled(rest)),
    );
    let high = V(0.18147792) + a * (V(0.040041652) + a * V(0.004028671));
    let above = V(0.5) + a * (V(0.43591854) + a * high);
    let low = V(0.46483207) + a * (V(0.10037684) + a * V(0.01009824));
    let below = V(1.0) + a * (V(1.669722) + a * (V(1.195197) + a * low));
    return NormalTail(a, density, settled(above / below));
}

fn gelu_value(v: V) -> V {
    let tail = normal_tail(v);
    let below = settled(tail.density * tail.ratio);
    return v * select(difference(V(1.0), below), below, v < V(0.0));
}

// Φ(v) + v·φ(v), φ(v) = e^(−v²/2)/√(2π).
fn gelu_derivative(v: V) -> V {
    let tail = normal_tail(v);
    let below =
        settled(tail.density * difference(tail.ratio, settled(tail.a * V(0.39894228))));
    return select(difference(V(1.0), below), below, v < V(0.0));
}
