// NaN and infinity by the exponent bits, as integers: a compiler may assume that no f32 is either of them.

fn are_not_finite(value: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(value) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

// 1 where a value is NaN or infinite, else 0: flags that add up.
fn flags_of(value: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), are_not_finite(value));
}
