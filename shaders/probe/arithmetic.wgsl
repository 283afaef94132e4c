// Asks what the compiler and the device do to f32 beyond the source: contraction, reassociation,
// flushing, NaN tests that fold, and whether the barriers of `settled` keep the order of a sum all
// the same.
//
// Dispatch: 1 workgroup. An invocation answers with 7 words; where the source is followed the first
// four are 0.

#import finite
#import settled

struct Product {
    a: f32,
    b: f32,
    c: f32,               // −a·b, rounded
    subnormal: f32,
}

struct Value {
    large: f32,
    small: f32,           // large + small is large, rounded
    smallest: f32,        // normal number
    infinity: f32,
}

@group(0) @binding(1) var<storage, read> products: array<Product>;   // (256)
@group(0) @binding(2) var<storage, read> values: array<Value>;       // (256)

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) invocation: u32) {
    let product = products[invocation];
    let value = values[invocation];
    // Of another invocation, so that nothing is shared between what a barrier is in and what none
    // is in.
    let other_product = products[255u - invocation];
    let other_value = values[255u - invocation];
    let at = 7u * invocation;
    answer[at] = bitcast<u32>(product.a * product.b + product.c);
    answer[at + 1u] = bitcast<u32>(value.large - (value.large + value.small));
    answer[at + 2u] =
        bitcast<u32>(settled_f32(other_product.a * other_product.b) + other_product.c);
    answer[at + 3u] =
        bitcast<u32>(other_value.large - settled_f32(other_value.large + other_value.small));
    answer[at + 4u] = bitcast<u32>(value.smallest * 0.5);
    answer[at + 5u] = bitcast<u32>(product.subnormal + product.subnormal);
    // Not settled: a compiler may take its NaN for impossible.
    let difference_of_infinities = value.infinity - other_value.infinity;
    // The flag of a value that is not finite in the kernels that sum.
    let nothing = value.infinity * bitcast<f32>(zero());
    answer[at + 6u] = u32(is_not_finite(difference_of_infinities) && is_not_finite(nothing));
}
