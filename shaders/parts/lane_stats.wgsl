// The statistics of a lane, as entries that merge over the lanes of a tile.

#import settled_element
#import finite
#import merge_stats
#import transpose
#import tile
#import load(x)
#import covering

// Values of an element that are of one channel.
#if ONE_CHANNEL_QUADS
const VALUES_OF_CHANNEL: f32 = 4.0;
#else
const VALUES_OF_CHANNEL: f32 = 1.0;
#endif

// The first value of its channel, for each value of an element.
fn first_of_channel(v: V) -> V {
#if ONE_CHANNEL_QUADS
    return V(v.x);
#else
    return v;
#endif
}

// The sum over the values of its channel, for each value of an element. Settled, so that no
// compiler makes one chain of what v is the sum of and of its values.
fn sum_of_channel(v: V) -> V {
#if ONE_CHANNEL_QUADS
    return V(sum_of_four(settled(v)));
#else
    return v;
#endif
}

// Which channels of the lane have a value that is NaN or infinite, in any of its elements. Asked
// for by few: a value that is not finite makes the sum of squares so.
fn not_finite_of_lane(start: Walk) -> B {
    var walk = start;
    var found = B(false);
    while (is_inside(walk)) {
        found = found | (is_not_finite_element(settled(load_x(walk.x))) & counted_at(walk));
        step_walk(&walk);
    }
#if ONE_CHANNEL_QUADS
    return B(any(found));
#else
    return found;
#endif
}

// Of every channel the mean, Σ(x − m), Σ(x − m)², and the count, below 0 where a value is NaN or
// infinite.
fn lane_entries(mean: V, sum: V, squares: V, count: V) -> array<Entry, SUMS> {
#if ONE_CHANNEL_QUADS
    return array<Entry, SUMS>(vec4<f32>(mean.x, sum.x, squares.x, count.x));
#else
    return entries_of(mean, sum, squares, count);
#endif
}

#if TAILS
// One value as an entry, or none.
fn entry_of_value(x: f32, is_there: bool) -> vec4<f32> {
    if (!is_there) {
        return vec4<f32>(0.0);
    }
    let count = select(1.0, -1.0, is_not_finite(x));
    return vec4<f32>(settled_f32(x * params.unit), 0.0, 0.0, count);
}

// A lane's entry with the values of a quad of which the first one to three count.
fn with_tail(own: vec4<f32>, x: V, tail: u32) -> vec4<f32> {
    return merged_four(
        entry_of_value(x.x, true),
        entry_of_value(x.y, tail > 1u),
        entry_of_value(x.z, tail > 2u),
        own,
    );
}
#endif
