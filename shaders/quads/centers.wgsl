// What four values are centered and scaled by, from the entries of their channels.

// Pivots, rests and inverse deviations of four values.
fn centers_of(channel: u32) -> mat3x4<f32> {
    let a = centering[channel_of(channel, 0u)];
    if (!FOUR_CHANNELS) {
        return mat3x4<f32>(vec4<f32>(a.pivot), vec4<f32>(a.rest), vec4<f32>(a.inv_std));
    }
    let b = centering[channel_of(channel, 1u)];
    let c = centering[channel_of(channel, 2u)];
    let d = centering[channel_of(channel, 3u)];
    return mat3x4<f32>(
        vec4<f32>(a.pivot, b.pivot, c.pivot, d.pivot),
        vec4<f32>(a.rest, b.rest, c.rest, d.rest),
        vec4<f32>(a.inv_std, b.inv_std, c.inv_std, d.inv_std),
    );
}
