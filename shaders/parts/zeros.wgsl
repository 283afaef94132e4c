// How a kernel detects values that are not finite while it sums: v·0 is 0, or a NaN where v is NaN
// or infinite. That is one operation of f32 for each value. To look at exponents takes two of
// integers, which many GPUs do half as fast.

#import params

// Four times 0, of which no compiler knows that they are 0 or that they are equal: v·0 is 0, or a
// NaN where v is not finite. Products with the same one may not be added: a·0 + b·0 may become (a +
// b)·0, and a + b may leave the range of f32.
fn zeros() -> vec4<f32> {
    let small = vec4<u32>(
        params.channels,
        params.tiles,
        params.blocks,
        params.values_per_lane,
    );
    return bitcast<vec4<f32>>(small >> vec4<u32>(31u));
}
