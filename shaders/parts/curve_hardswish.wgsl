// v·min(max(v + 3, 0), 6)/6.

#import element
#import settled_element

fn hardswish_value(v: V) -> V {
    let near = settled(clamp(v, V(-3.0), V(3.0)));
    let between = near * settled((near + V(3.0)) * V(0.16666667));
    return select(select(between, v, v >= V(3.0)), V(0.0), v <= V(-3.0));
}

fn hardswish_derivative(v: V) -> V {
    let between = settled(clamp(v, V(-3.0), V(3.0)) * V(0.33333334) + V(0.5));
    return select(select(between, V(1.0), v >= V(3.0)), V(0.0), v <= V(-3.0));
}
