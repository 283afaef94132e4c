// What normalizes a channel, made on the device: mean = pivot + rest and 1/√(var + eps). It is
// written as bits, because a compiler may assume that no f32 is a NaN, and a channel that is not
// finite has three of them.

#import choose
#import finite
#import settled

// The bits of 1.
const ONE: u32 = 0x3f800000u;

struct CenterBits {
    pivot: u32,
    rest: u32,
    inv_std: u32,
    unit: u32,            // of the three: 1
}

// 1/√v, and 0 where v is 0. One step of Newton's method takes off what division and root may be
// off.
fn inverse_root(v: f32) -> f32 {
    if (v <= 0.0) {
        return 0.0;
    }
    // Settled: a compiler that takes f32 for real numbers finds that v·root·root is 1.
    let root = settled_f32(1.0 / sqrt(v));
    return root * (1.5 - 0.5 * settled_f32(v * root) * root);
}

fn center_of(pivot: f32, rest: f32, inv_std: f32, not_finite: bool) -> CenterBits {
    if (not_finite) {
        return CenterBits(NOT_FINITE, NOT_FINITE, NOT_FINITE, ONE);
    }
    return CenterBits(bitcast<u32>(pivot), bitcast<u32>(rest), bitcast<u32>(inv_std), ONE);
}

// Both parts of the mean in one f32.
fn mean_of(center: CenterBits) -> u32 {
    let mean = bitcast<f32>(center.pivot) + bitcast<f32>(center.rest);
    return choose(bitcast<u32>(mean), NOT_FINITE, is_not_finite(bitcast<f32>(center.pivot)));
}
