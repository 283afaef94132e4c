// No gradient of a residual is wanted.

fn keep_residual(quad: u32, g: vec4<f32>) {}
