// The sum of two f32, rounded once, from their bits and as bits: a compiler may assume that no f32
// is NaN or infinite, so values that are not finite stay integers. The arguments are loaded or
// settled.

#import finite
#import choose

fn accumulated(total: u32, addend: u32) -> u32 {
    let addend_is_finite = !is_not_finite(bitcast<f32>(addend));
    if (is_not_finite(bitcast<f32>(total))) {
        // Infinities of opposite signs leave nothing.
        return choose(NOT_FINITE, total, addend_is_finite || addend == total);
    }
    if (addend_is_finite) {
        return bitcast<u32>(bitcast<f32>(total) + bitcast<f32>(addend));
    }
    return addend;
}
