// Centering of a channel, computed on the device: mean = pivot + rest and 1/√(var + eps). It is
// stored as bits, because a compiler may assume that no f32 is NaN, and a channel that is not
// finite has three NaNs.

#import choose
#import finite
#import inverse_root

// The bits of 1.
const ONE: u32 = 0x3f800000u;

struct CenterBits {
    pivot: u32,
    rest: u32,
    inv_std: u32,
    unit: u32,            // of the three: 1
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
