// How the gradient sums of lanes merge: they add up. An entry is (Σg, Σ g·(x − pivot), flag of g,
// flag of x).

#import merge

fn merged_four(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return (a + b) + (c + d);
}

// The vector that is written for a tile.
fn result(entry: vec4<f32>) -> vec4<f32> {
    return entry;
}
