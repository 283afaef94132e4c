// Both ends of a range as words that merge by their maximum. 0 is the word of no value.
//
// A key has the order of the f32 that its bits are: −NaN, −∞, …, −0, 0, …, ∞, NaN. So the ends show
// what is not finite, and no comparison of f32 is left to a compiler.

#import element

fn key_of(value: V) -> U {
    let bits = bitcast<U>(value);
    // All bits change where the value is negative, else the sign alone.
    let sign = U(0u) - (bits >> U(31u));
    return bits ^ (sign | U(0x80000000u));
}

// Of a value as the low end. The key itself is that of the high end.
fn key_from_above(key: U) -> U {
    return ~key;
}
