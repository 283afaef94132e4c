// What a lane has found, as entries that merge over the lanes of a tile.
//
// The four means of a quad of one channel merge by Chan's formula, with equal counts n: about their
// mean m, with d = mean of a value − m, Σ(x − m) = Σ(sum + n·d) and
// Σ(x − m)² = Σ(squares + d·(2·sum + n·d)).

#import settled
#import merge_stats
#import transpose

// Of every channel the mean, Σ(x − m), Σ(x − m)², and the count, below 0 where a value is NaN or
// infinite.
fn lane_entries(mean: V, sum: V, squares: V, count: V) -> array<vec4<f32>, SUMS> {
#if ONE_CHANNEL_QUADS
    let n = abs(count.x);
    let mean_of_all = settled_f32(
        mean.x + sum_of_four(difference_vec4(mean, vec4<f32>(mean.x))) * 0.25,
    );
    let d = difference_vec4(mean, vec4<f32>(mean_of_all));
    let shift = n * d;
    let moved = squares + d * (2.0 * sum + shift);
    let values = select(4.0 * n, -4.0 * n, any(count < vec4<f32>(0.0)));
    return array<vec4<f32>, SUMS>(
        vec4<f32>(mean_of_all, sum_of_four(sum + shift), sum_of_four(moved), values),
    );
#else
    return entries_of(mean, sum, squares, count);
#endif
}
