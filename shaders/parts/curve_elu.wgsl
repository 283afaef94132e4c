// v above 0, alpha·(eᵛ − 1) elsewhere; alpha is params.slope.

#import curve_exponential
#import params

// eᵛ − 1 = (scale − 1) + scale·minus_one, of which the first is exact, and 0 near 0.
fn elu_value(v: V) -> V {
    let e = exponential(abs(v), V(0.0));
    let below = difference(e.scale, V(1.0)) + settled(e.scale * e.minus_one);
    return select(params.slope * settled(below), v, v > V(0.0));
}

fn elu_derivative(v: V) -> V {
    let below = params.slope * value_of_exponential(exponential(abs(v), V(0.0)));
    return select(below, V(1.0), v > V(0.0));
}
