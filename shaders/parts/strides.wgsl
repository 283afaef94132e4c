// Where a tensor has the value of a sample, channel and position.

#import params

#if COVERING
// Where a quad with this number lies of those that cover a plane, in quads. Behind the last quad
// that is bound stands that one: of a plane's values it may have none.
fn quad_address(plane: u32, quad: u32) -> u32 {
    return min((plane >> 2u) + quad, (params.end_element >> 2u) - 1u);
}
#endif

fn x_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.x_origin
        + sample * params.x_sample + channel * params.x_channel + inner * params.x_inner;
}

fn g_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.g_origin
        + sample * params.g_sample + channel * params.g_channel + inner * params.g_inner;
}
