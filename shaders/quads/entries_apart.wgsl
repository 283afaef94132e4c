// Quads of four channels: an invocation holds an entry of each.

const SUMS: u32 = 4u;

fn hold(own: array<vec4<f32>, SUMS>, at: u32) {
    entries[at] = own[0];
    entries[at + 1u] = own[1];
    entries[at + 2u] = own[2];
    entries[at + 3u] = own[3];
}

// Four numbers of four channels, as four numbers of each.
fn own_sums(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, SUMS> {
    return array<vec4<f32>, SUMS>(
        vec4<f32>(a.x, b.x, c.x, d.x),
        vec4<f32>(a.y, b.y, c.y, d.y),
        vec4<f32>(a.z, b.z, c.z, d.z),
        vec4<f32>(a.w, b.w, c.w, d.w),
    );
}

// From mean, Σ(x − m), Σ(x − m)² and count, below 0 where a value is NaN or infinite.
fn own_entries(means: vec4<f32>, sums: vec4<f32>, squares: vec4<f32>, counts: vec4<f32>) -> array<vec4<f32>, SUMS> {
    return own_sums(means, sums, squares, counts);
}
