// The gradient of the residual.

@group(0) @binding(8) var<storage, read_write> grad_residual: array<QUAD>;   // (N, C, L) in the layout of x, by fours

fn keep_residual(quad: u32, g: vec4<f32>) {
    grad_residual[quad] = pack(g);
}
