// 1/√(v + eps) to half an ulp of f32, whatever a driver's division and root are off.
//
// A sum and a product of two f32 are two f32, of which the first is the rounded result and the
// second what rounding has taken. A step of Newton's method takes the residual of the root in such
// pairs, so that it rounds no more than the result.

#import settled

// Below 2⁻¹⁰⁰ the products of the parts would leave the range of f32.
const SMALL: u32 = 0x0d800000u;
// 2⁶⁴ and the 2³² that its root is.
const UP: f32 = 18446744073709551616.0;
const UP_ROOT: f32 = 4294967296.0;

// The upper 12 bits of a significand: a product of two such has no rounding, and neither has one
// with the other 12.
fn upper_bits(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) & 0xfffff000u);
}

// The rounding error of a·b, which became `product`.
fn rounding_of(a: f32, b: f32, product: f32) -> f32 {
    let a_upper = upper_bits(a);
    let b_upper = upper_bits(b);
    let a_lower = difference_f32(a, a_upper);
    let b_lower = difference_f32(b, b_upper);
    var taken = difference_f32(a_upper * b_upper, product);
    taken = settled_f32(taken + a_upper * b_lower);
    taken = settled_f32(taken + a_lower * b_upper);
    return settled_f32(taken + a_lower * b_lower);
}

// 1/√(v + eps + eps_rest), and 0 where v + eps is not above 0.
fn inverse_root(v: f32, eps: f32, eps_rest: f32) -> f32 {
    var sum = settled_f32(v + eps);
    if (sum <= 0.0) {
        return 0.0;
    }
    let larger = max(v, eps);
    var rest = settled_f32(difference_f32(min(v, eps), difference_f32(sum, larger)) + eps_rest);
    let is_small = sum < bitcast<f32>(SMALL);
    if (is_small) {
        sum = settled_f32(sum * UP);
        rest = settled_f32(rest * UP);
    }
    let root = settled_f32(1.0 / sqrt(sum));
    // sum·root², which is 1 up to the errors of division and root.
    let product = settled_f32(sum * root);
    let square = settled_f32(product * root);
    let lower = settled_f32((rounding_of(sum, root, product) + rest * root) * root);
    let beyond = settled_f32(rounding_of(product, root, square) + lower);
    let residual = difference_f32(difference_f32(1.0, square), beyond);
    let refined = settled_f32(root + settled_f32(0.5 * root * residual));
    return select(refined, refined * UP_ROOT, is_small);
}
