// How the gradient sums of lanes merge: they add up.

#import merge

fn merged_four(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return (a + b) + (c + d);
}

// Merges `count` entries from `first` on, `step` apart.
fn merged(first: u32, step: u32, count: u32) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < count; i += 4u) {
        // Four by four: the chain of roundings stays short.
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
