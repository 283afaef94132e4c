// Parameters and answer of the probes of arithmetic.

struct ProbeParams {
    channels: u32,        // 256
    has_weight: u32,      // 1
    has_bias: u32,        // 1
    values: u32,          // values per channel
    slope: f32,           // of the activation
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(0) var<uniform> params: ProbeParams;
// (256, words of an invocation)
@group(0) @binding(5) var<storage, read_write> answer: array<u32>;
