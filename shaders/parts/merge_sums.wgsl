// How the gradient sums of lanes merge: they add up. An entry is (Σg, Σ g·(x − pivot), flag of g,
// flag of x).

#import merge

fn merged_four(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return (a + b) + (c + d);
}

// Merges `count` entries, 16 at most, from `first` on with a stride of `step`: one invocation per
// channel, once per tile, without a barrier.
fn merged(first: u32, step: u32, count: u32) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < count; i += 4u) {
        // Four by four: a value passes few roundings.
        var four = vec4<f32>(0.0);
        for (var j = i; j < min(i + 4u, count); j++) {
            four += entries[first + j * step];
        }
        total += four;
    }
    return total;
}

// What is written of a tile.
fn result(entry: vec4<f32>) -> vec4<f32> {
    return entry;
}
