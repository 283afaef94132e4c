// The statistics of a lane, as entries that merge over the lanes of a tile.
//
// The four means of a quad of one channel merge by Chan's formula, with equal counts n: about their
// mean m, with d = mean of a value − m, Σ(x − m) = Σ(sum + n·d) and
// Σ(x − m)² = Σ(squares + d·(2·sum + n·d)).

#import settled
#import finite
#import merge_stats
#import transpose

// Of every channel the mean, Σ(x − m), Σ(x − m)², and the count, below 0 where a value is NaN or
// infinite.
fn lane_entries(mean: V, sum: V, squares: V, count: V) -> array<Entry, SUMS> {
#if ONE_CHANNEL_QUADS
    let n = abs(count.x);
    let mean_of_all = settled_f32(
        mean.x + sum_of_four(difference_vec4(mean, vec4<f32>(mean.x))) * 0.25,
    );
    let d = difference_vec4(mean, vec4<f32>(mean_of_all));
    let shift = n * d;
    let moved = squares + d * (2.0 * sum + shift);
    let values = select(4.0 * n, -4.0 * n, any(count < vec4<f32>(0.0)));
    return array<Entry, SUMS>(
        vec4<f32>(mean_of_all, sum_of_four(sum + shift), sum_of_four(moved), values),
    );
#else
    return entries_of(mean, sum, squares, count);
#endif
}

#if ONE_CHANNEL_QUADS
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
