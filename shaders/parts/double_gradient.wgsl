// Both gradients of double backward of an element. g is the gradient before the activation, v the
// cotangent of grad_input, and h = (x − mean)·inv_std:
//
// of x:            us·(g − mean_dy) + shift − h·k1
//                  − weight·inv_std·(g_factor·(g − mean_dy) + v_factor·(v − mean_v) + h·k2)
// of grad_output:  act'·(weight·inv_std·(v − mean_v − h·mean_vh) + u·h + q)

#import double_coefficients
#import upstream
#import load(cotangent)

// The cotangent at an address, 0 where there is none.
fn cotangent_at(address: u32) -> V {
    var v = V(0.0);
    if (params.has_cotangent != 0u) {
        v = load_cotangent(address);
    }
    return v;
}

// (x − mean)·inv_std.
fn normalized(x: V, own: DoubleCoefficients) -> V {
    return settled(difference(deviation_of(x, own.affine), own.affine.rest) * own.inv_std);
}

#if GRAD_GRAD_OUTPUT
// The bits of the gradient of grad_output of an element x at an address, the lane's `step`th.
fn double_gradient_at(address: u32, g_address: u32, step: u32, own: DoubleCoefficients) -> U {
    let x = load_x(address);
    let h = normalized(x, own);
    let v = difference(cotangent_at(address), own.of_v.a);
    let projected = difference(v, settled(h * own.of_v.b));
    let gradient = own.factor * projected + (own.of_v.c * h + own.of_v.d);
    let not_finite = own.affine.not_finite | is_not_finite_element(own.of_v.d);
#if ACTIVATION
    let passes = was_active(x, residual_at(address), address, step, own.affine);
    let gated = select(scaled_by_slope(gradient), gradient, passes);
    // A slope of 0 makes any value 0, NaN too.
    let is_cut = !passes & B(params.slope == 0.0);
    return choose_element(nan_where(not_finite, bitcast<U>(gated)), U(0u), is_cut);
#else
    return nan_where(not_finite, bitcast<U>(gradient));
#endif
}
#else
// The bits of the gradient of x of an element x at an address, the lane's `step`th.
fn double_gradient_at(address: u32, g_address: u32, step: u32, own: DoubleCoefficients) -> U {
    let x = load_x(address);
    let h = normalized(x, own);
    let g = difference(upstream(x, address, g_address, step, own.affine), own.of_x.a);
    let v = difference(cotangent_at(address), own.of_v.a);
    // Settled, so that no compiler multiplies the factor and what it is multiplied by, whose
    // product may overflow.
    let products = settled(own.products.b * g + own.products.c * v + h * own.products.a);
    let direct = settled(own.of_x.b * g + own.of_x.c);
    let of_batch = difference(direct, settled(h * own.of_x.d));
    let gradient = difference(of_batch, settled(own.factor * products));
    let not_finite = own.affine.not_finite | is_not_finite_element(own.of_x.d);
    return nan_where(not_finite, bitcast<U>(gradient));
}
#endif
