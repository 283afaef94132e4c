// v = (x − pivot)·scale + shift, plus the residual: what enters the activation. scale = weight·inv_std,
// shift = bias − rest·scale, mean = pivot + rest. Four values at a time: of one channel, or of four neighbouring ones.
//
// x − pivot is exact where x is near the mean, so that nothing of v is lost to a large mean. Forward and backward form v by
// this one text, so that backward finds the side of the activation on which forward was.

struct Line {
    pivot: vec4<f32>,
    rest: vec4<f32>,
    scale: vec4<f32>,
    shift: vec4<f32>,
    lost: vec4<u32>,      // the bits of a NaN where the channel is not finite, else 0
}

// The channel of one of four values.
fn channel_of(quad_channel: u32, index: u32) -> u32 {
    return select(quad_channel, 4u * quad_channel + index, FOUR_CHANNELS);
}

fn weights_of(channel: u32) -> vec4<f32> {
    let first = channel_of(channel, 0u);
    if (!FOUR_CHANNELS) {
        return vec4<f32>(weight[first]);
    }
    return vec4<f32>(weight[first], weight[first + 1u], weight[first + 2u], weight[first + 3u]);
}

fn biases_of(channel: u32) -> vec4<f32> {
    let first = channel_of(channel, 0u);
    if (!FOUR_CHANNELS) {
        return vec4<f32>(bias[first]);
    }
    return vec4<f32>(bias[first], bias[first + 1u], bias[first + 2u], bias[first + 3u]);
}

fn line_of(channel: u32) -> Line {
    let centers = centers_of(channel);
    let lost = select(vec4<u32>(0u), vec4<u32>(NOT_FINITE), are_not_finite(centers[2]));
    var line = Line(centers[0], centers[1], centers[2], vec4<f32>(0.0), lost);
    if (params.has_weight != 0u) {
        line.scale *= weights_of(channel);
    }
    line.shift = -line.rest * line.scale;
    if (params.has_bias != 0u) {
        line.shift += biases_of(channel);
    }
    return line;
}
