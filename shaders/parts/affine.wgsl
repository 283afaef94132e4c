// v = (x·unit − pivot)·scale + shift, plus the residual: what enters the activation.
// mean = pivot + rest, scale = weight·inv_std, shift = bias − rest·scale.
//
// x − pivot is exact where x is near the mean, so that a large mean costs v no accuracy.
// Forward and backward form v by this one source, and a compiler that contracts in one kernel only
// is kept from it: the activation is active in backward where it was in forward.

#import element
#import settled_element
#import finite
#import choose_element

// What an activation and its gradient need of a channel, of each value of an element.
struct Affine {
    pivot: V,
    rest: V,
    scale: V,
    shift: V,
    unit: V,              // power of two in which the first three count
    not_finite: B,        // whether the channel is not finite: then all of it is NaN
}

#if FOUR_CHANNELS
fn weights_of(channel: u32) -> V {
    let first = 4u * channel;
    return V(weight[first], weight[first + 1u], weight[first + 2u], weight[first + 3u]);
}

#if !NO_BIAS
fn biases_of(channel: u32) -> V {
    let first = 4u * channel;
    return V(bias[first], bias[first + 1u], bias[first + 2u], bias[first + 3u]);
}
#endif
#else
fn weights_of(channel: u32) -> V {
    return V(weight[channel]);
}

#if !NO_BIAS
fn biases_of(channel: u32) -> V {
    return V(bias[channel]);
}
#endif
#endif

// These bits, or those of one NaN: so every kernel writes the same.
fn nan_where(is_nan: B, bits: U) -> U {
    return choose_element(bits, U(NOT_FINITE), is_nan);
}

#if !FUSED_FORWARD
fn affine_of(channel: u32) -> Affine {
#if FOUR_CHANNELS
    let a = centering[4u * channel];
    let b = centering[4u * channel + 1u];
    let c = centering[4u * channel + 2u];
    let d = centering[4u * channel + 3u];
    let pivot = V(a.pivot, b.pivot, c.pivot, d.pivot);
    let rest = V(a.rest, b.rest, c.rest, d.rest);
    let inv_std = V(a.inv_std, b.inv_std, c.inv_std, d.inv_std);
    let unit = V(a.unit, b.unit, c.unit, d.unit);
#else
    let entry = centering[channel];
    let pivot = V(entry.pivot);
    let rest = V(entry.rest);
    let inv_std = V(entry.inv_std);
    let unit = V(entry.unit);
#endif
    return affine_from(pivot, rest, inv_std, unit, channel);
}
#endif

// The coefficients from a center, of one channel or of four.
fn affine_from(pivot: V, rest: V, inv_std: V, unit: V, channel: u32) -> Affine {
    var scale = inv_std;
    if (params.has_weight != 0u) {
        scale = settled(scale * weights_of(channel));
    }
    var shift = settled(-rest * scale);
#if !NO_BIAS
    if (params.has_bias != 0u) {
        shift = settled(shift + biases_of(channel));
    }
#endif
    return Affine(pivot, rest, scale, shift, unit, is_not_finite_element(inv_std));
}

// x − pivot in units: exact as x·unit is, and where x is near the mean.
fn deviation_of(x: V, affine: Affine) -> V {
    return difference(x * affine.unit, affine.pivot);
}

// The residual of an element at an address, 0 where none is added.
fn residual_at(address: u32) -> V {
#if RESIDUAL
    return load_residual(address);
#else
    return V(0.0);
#endif
}

// The bits of v of an element x at an address.
fn value_of(x: V, address: u32, affine: Affine) -> U {
    return value_with(x, residual_at(address), affine);
}

// The same with a residual that is loaded.
fn value_with(x: V, residual_of_x: V, affine: Affine) -> U {
    // The product is rounded everywhere: with an activation and without, in both passes, on every
    // device the bits of v are the same.
    var v = settled(deviation_of(x, affine) * affine.scale) + affine.shift;
#if RESIDUAL
    v = settled(v) + residual_of_x;
#endif
    return nan_where(affine.not_finite, bitcast<U>(v));
}
