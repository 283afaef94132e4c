// The activation after normalization, and its derivative: v or slope·v, with 1 where v is above 0
// and the slope elsewhere; or a curve.

#import element
#import params
#import settled_element
#import choose_element
#import finite
#if CURVED
#import curves
#endif

// Where v is above 0, by its bits: the same in forward and backward whatever the device does with
// subnormals and NaN.
fn is_active(v: U) -> B {
    return (v - U(1u)) < U(EXPONENT);
}

fn is_nan(v: U) -> B {
    return (v & U(0x7fffffffu)) > U(EXPONENT);
}

#if CURVED
// The bits of the output. A NaN passes.
fn activated(v: U) -> U {
    return choose_element(bitcast<U>(curve_value(bitcast<V>(v))), v, is_nan(v));
}

// g·f'(v): NaN where v is, and 0 for a derivative of 0 also where g is infinite.
fn differentiated(g: V, v: U) -> V {
    let derivative = curve_derivative(bitcast<V>(v));
    let product = settled(select(derivative * g, V(0.0), derivative == V(0.0)));
    return bitcast<V>(choose_element(bitcast<U>(product), U(NOT_FINITE), is_nan(v)));
}
#else
// slope·value, and 0 for a slope of 0 also where the value is infinite.
fn scaled_by_slope(value: V) -> V {
    return settled(select(params.slope * value, V(0.0), params.slope == 0.0));
}

// The bits of the output. A NaN passes.
fn activated(v: U) -> U {
#if ACTIVATION
    return choose_element(
        bitcast<U>(scaled_by_slope(bitcast<V>(v))),
        v,
        is_active(v) | is_nan(v),
    );
#else
    return v;
#endif
}
#endif
