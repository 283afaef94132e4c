// The inputs of the probes of both passes, under the names that the parts of the kernels use.

#import centering

struct Value {
    x: f32,
    residual: f32,
    grad_output: f32,
}

@group(0) @binding(1) var<storage, read> centering: array<Centering>;   // (256): one per invocation
@group(0) @binding(2) var<storage, read> values: array<Value>;          // (256, values)
@group(0) @binding(3) var<storage, read> weight: array<f32>;            // (256)
@group(0) @binding(4) var<storage, read> bias: array<f32>;              // (256)

fn load_residual(address: u32) -> f32 {
    return values[address].residual;
}
