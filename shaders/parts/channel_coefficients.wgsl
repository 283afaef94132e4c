// The coefficients of a channel on their way from its sums to its outputs, in a kernel that makes
// both: `finish` makes them, and the lanes of the channel gather them from workgroup memory.

#import element
#import entries

// Results of `finish`: the coefficients of a channel. The last value is not 0 where the others are
// NaN, because a compiler may assume that no f32 is.
var<private> channel_coefficients: vec4<f32>;

// The same of the channels of an element, value by value. (x, y, z, w) are (pivot, rest, inv_std,
// flag) from `rank_stats` and (mean_dy, projection, nothing, flag) from `rank_gradients`; the flag
// is not 0 where the channel is not finite.
struct ElementCoefficients {
    x: V,
    y: V,
    z: V,
    w: V,
}

// Those of the channels that a lane walks, behind the barrier of `merge_over_lanes`.
fn element_coefficients(walk: Walk) -> ElementCoefficients {
#if FOUR_CHANNELS
    let first = walk.tile_slot * SUMS;
    let a = entries[first];
    let b = entries[first + 1u];
    let c = entries[first + 2u];
    let d = entries[first + 3u];
    return ElementCoefficients(
        V(a.x, b.x, c.x, d.x),
        V(a.y, b.y, c.y, d.y),
        V(a.z, b.z, c.z, d.z),
        V(a.w, b.w, c.w, d.w),
    );
#else
    let entry = entries[walk.tile_slot];
    return ElementCoefficients(V(entry.x), V(entry.y), V(entry.z), V(entry.w));
#endif
}
