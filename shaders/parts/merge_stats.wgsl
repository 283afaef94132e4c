// How statistics of lanes merge: Chan's formula, for four entries.
//
// Chan, Golub and LeVeque merge (n, mean, m2) of two sets; Welford's update is the case of a set of
// one. Here all entries move to their count-weighted mean at once, formed relative to the first of
// them. By d = m − new mean, Σ(x − m) becomes Σ(x − m) + n·d, and Σ(x − m)² becomes
// Σ(x − m)² + d·(2Σ(x − m) + n·d): Σ(x − m), which is 0 in the textbook, carries what rounding took
// from m. An entry is (m, Σ(x − m), Σ(x − m)², n), n below 0 where a value is NaN or infinite.

#import settled
#import merge

fn merged_four(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let means = vec4<f32>(a.x, b.x, c.x, d.x);
    let signed = vec4<f32>(a.w, b.w, c.w, d.w);
    let counts = abs(signed);
    let values = sum_of_four(counts);
    let from_first = difference_vec4(means, vec4<f32>(a.x));
    let mean = settled_f32(a.x + sum_of_four(counts * from_first) / max(values, 1.0));
    let away = difference_vec4(means, vec4<f32>(mean));
    let shifts = counts * away;
    let sums = vec4<f32>(a.y, b.y, c.y, d.y);
    let squares = sum_of_four(vec4<f32>(a.z, b.z, c.z, d.z))
        + sum_of_four(away * (2.0 * sums + shifts));
    let not_finite = any(signed < vec4<f32>(0.0));
    return vec4<f32>(
        mean,
        sum_of_four(sums + shifts),
        squares,
        select(values, -values, not_finite),
    );
}

// The vector that is written for a tile. It has a flag instead of the count, unless tiles have
// counts of their own.
fn result(entry: vec4<f32>) -> vec4<f32> {
    if (params.keeps_counts != 0u) {
        return entry;
    }
    return vec4<f32>(entry.xyz, select(0.0, 1.0, entry.w < 0.0));
}
