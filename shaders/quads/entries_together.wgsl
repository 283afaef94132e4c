// Quads of one channel: an invocation holds one entry, that of its four columns together.

const SUMS: u32 = 1u;

fn hold(own: array<vec4<f32>, SUMS>, at: u32) {
    entries[at] = own[0];
}

// From the columns' mean, Σ(x − m), Σ(x − m)² and count, below 0 where a value is NaN or infinite.
fn own_entries(means: vec4<f32>, sums: vec4<f32>, squares: vec4<f32>, counts: vec4<f32>) -> array<vec4<f32>, SUMS> {
    let n = abs(counts.x);
    let mean = means.x + sum_of_four(means - vec4<f32>(means.x)) * 0.25;
    let d = means - vec4<f32>(mean);
    let shift = n * d;
    let moved = squares + d * (2.0 * sums + shift);
    let count = select(4.0 * n, -4.0 * n, any(counts < vec4<f32>(0.0)));
    return array<vec4<f32>, SUMS>(vec4<f32>(mean, sum_of_four(sums + shift), sum_of_four(moved), count));
}

// From the columns' gradient sums.
fn own_sums(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, SUMS> {
    return array<vec4<f32>, SUMS>(vec4<f32>(sum_of_four(a), sum_of_four(b), sum_of_four(c), sum_of_four(d)));
}
