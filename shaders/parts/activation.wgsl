// The activation after normalization, v or slope·v, and its derivative: 1 above 0, the slope elsewhere.

// slope·value, and 0 for a slope of 0 also where the value is infinite.
fn below(value: f32) -> f32 {
    return select(params.slope * value, 0.0, params.slope == 0.0);
}

// A NaN passes, whatever a comparison with it gives.
fn activated(v: f32) -> f32 {
    if (!ACTIVATES || (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u) {
        return v;
    }
    return select(below(v), v, v > 0.0);
}
