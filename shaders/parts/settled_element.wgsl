// The barriers of `settled` for elements.

#import element
#import choose
#import finite
#import settled

fn settled(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(zero()));
}

fn difference(a: V, b: V) -> V {
    return settled(a - b);
}

// `settled` of a value that counts, else 0: one operation for both.
fn settled_if(v: V, counts: bool) -> V {
    return bitcast<V>(bitcast<U>(v) & U(choose(0u, ~zero(), counts)));
}

fn difference_if(a: V, b: V, counts: bool) -> V {
    return settled_if(a - b, counts);
}

#if COVERING
// A value that counts, else 0. A choice between bits, because what does not count may be NaN, and
// no and, whose mask would be kept in registers where it is needed twice.
fn counted(v: V, counts: B) -> V {
    return bitcast<V>(choose_vec4(U(0u), bitcast<U>(v), counts));
}

// The same of values that count each by itself.
fn difference_where(a: V, b: V, counts: B) -> V {
    return counted(difference(a, b), counts);
}
#endif

// As `is_not_finite`, of every value of an element that is loaded or settled.
fn is_not_finite_element(v: V) -> B {
    return (bitcast<U>(v) & U(EXPONENT)) == U(EXPONENT);
}
