// The barriers of `settled` for elements.

#import element
#import finite
#import settled

fn settled(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(zero()));
}

fn difference(a: V, b: V) -> V {
    return settled(a - b);
}

// As `is_not_finite`, of every value of an element that is loaded or settled.
fn is_not_finite_element(v: V) -> B {
    return (bitcast<U>(v) & U(EXPONENT)) == U(EXPONENT);
}
