// The gradient of the residual, f32 storage.

@group(0) @binding(8) var<storage, read_write> grad_residual: array<f32>;   // (N, C, L) in the layout of x

fn keep_residual(address: u32, g: f32) {
    grad_residual[address] = g;
}
