// The activation after normalization, v or slope·v, and its derivative: 1 where v is above 0, the
// slope elsewhere.

#import element
#import params
#import settled_element
#import choose_element
#import finite

// Where v is above 0, by its bits: the same in forward and backward whatever the device does with
// subnormals and NaN.
fn is_active(v: U) -> B {
    return (v - U(1u)) < U(EXPONENT);
}

// slope·value, and 0 for a slope of 0 also where the value is infinite.
fn scaled_by_slope(value: V) -> V {
    return settled(select(params.slope * value, V(0.0), params.slope == 0.0));
}

// The bits of the output. A NaN passes.
fn activated(v: U) -> U {
#if ACTIVATION
    let is_nan = (v & U(0x7fffffffu)) > U(EXPONENT);
    return choose_element(bitcast<U>(scaled_by_slope(bitcast<V>(v))), v, is_active(v) | is_nan);
#else
    return v;
#endif
}
