// Where a tensor has the value of a sample, channel and position.

#import params

fn x_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.x_origin
        + sample * params.x_sample + channel * params.x_channel + inner * params.x_inner;
}

fn g_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.g_origin
        + sample * params.g_sample + channel * params.g_channel + inner * params.g_inner;
}
