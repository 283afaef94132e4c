// Four sums of an element, each of its values, as the entries of its channels.

#import element

fn entries_of(a: V, b: V, c: V, d: V) -> array<Entry, SUMS> {
#if FOUR_CHANNELS
    return array<Entry, SUMS>(
        vec4<f32>(a.x, b.x, c.x, d.x),
        vec4<f32>(a.y, b.y, c.y, d.y),
        vec4<f32>(a.z, b.z, c.z, d.z),
        vec4<f32>(a.w, b.w, c.w, d.w),
    );
#else
#if QUADS
    return array<Entry, SUMS>(
        vec4<f32>(sum_of_four(a), sum_of_four(b), sum_of_four(c), sum_of_four(d)),
    );
#else
    return array<Entry, SUMS>(vec4<f32>(a, b, c, d));
#endif
#endif
}
