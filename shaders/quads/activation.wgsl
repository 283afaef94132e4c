// The activation after normalization, v or slope·v, and its derivative: 1 above 0, the slope elsewhere.

// slope·value, and 0 for a slope of 0 also where a value is infinite.
fn below(value: vec4<f32>) -> vec4<f32> {
    return select(params.slope * value, vec4<f32>(0.0), params.slope == 0.0);
}

// A NaN passes, whatever a comparison with it gives.
fn activated(v: vec4<f32>) -> vec4<f32> {
    if (!ACTIVATES) {
        return v;
    }
    let is_nan = (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(below(v), v, (v > vec4<f32>(0.0)) | is_nan);
}

// One bit of a mask for each of four values, 1 above 0.
fn sides_of(v: vec4<f32>) -> u32 {
    let bits = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), v > vec4<f32>(0.0));
    return (bits.x | bits.y) | (bits.z | bits.w);
}
