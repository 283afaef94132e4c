// Barriers for compilers that treat f32 as real numbers.
//
// DXC, Metal and some Vulkan drivers may reassociate, distribute and contract f32 operations and
// assume that no f32 is NaN or infinite. Values that depend on the order of operations, or on the
// bits of a result, pass through an exclusive or with an integer that is 0 and that no compiler
// knows, or through an and with its complement. No compiler moves operations across it. Every
// subtraction of two numbers that may be close to each other is a `difference`, and what it
// subtracts is loaded or settled. tests/it/shaders/cancellation.rs keeps it, and names the few that
// need not be.

#import params

// 0: channels are fewer than 2³¹. Otherwise all bits would be set, so that a compiler that follows
// single bits knows none of them.
fn zero() -> u32 {
    return 0u - (params.channels >> 31u);
}

fn settled_f32(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ zero());
}

fn settled_vec4(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) ^ vec4<u32>(zero()));
}

fn difference_f32(a: f32, b: f32) -> f32 {
    return settled_f32(a - b);
}

fn difference_vec4(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return settled_vec4(a - b);
}
