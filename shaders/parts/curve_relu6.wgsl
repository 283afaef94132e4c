// min(max(v, 0), 6).

#import element

fn relu6_value(v: V) -> V {
    return select(select(V(0.0), v, v > V(0.0)), V(6.0), v >= V(6.0));
}

fn relu6_derivative(v: V) -> V {
    return select(V(0.0), V(1.0), (v > V(0.0)) & (v < V(6.0)));
}
