// The barriers of `settled` for elements.

#import element
#import settled

fn settled(v: V) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(zero()));
}

fn difference(a: V, b: V) -> V {
    return settled(a - b);
}
