// The walk of kernels that write in the order of addresses, quad by quad: what four neighbours in
// memory hold is of one channel, or of two that meet among them.
//
//     place = first_place(invocation, stretch)       divides, once per invocation
//     place = next_place(place, first)               adds constants that the plan has computed
//
// Neighbouring invocations have neighbouring quads, and a workgroup a stretch of memory, of which an
// invocation has every 256th quad. No sample is padded: `padding` is here because its buffer is
// bound wherever an activation is walked.

#import element
#import params
#import choose
#import padding
#import runs

// Quads of a workgroup: 256 invocations have four each.
const QUADS_PER_WORKGROUP: u32 = 1024u;

// Where a quad lies.
struct Place {
    address: u32,         // in quads
    channel: u32,         // of its first value
    left: u32,            // values from that one to the end of its channel
}

// Whether a workgroup has a quad to write.
fn has_quads(workgroup: u32) -> bool {
    return workgroup * 4u * QUADS_PER_WORKGROUP < params.end_element;
}

fn is_past_end(quad: u32) -> bool {
    return 4u * quad >= params.end_element;
}

// Which stretch a workgroup has. The last one comes first, because what the sums read last is
// written first.
fn stretch_of(workgroup: u32) -> u32 {
    return (params.end_element - 1u) / (4u * QUADS_PER_WORKGROUP) - workgroup;
}

// The first quad of an invocation in a stretch.
fn first_place(invocation: u32, stretch: u32) -> Place {
    let quad = stretch * QUADS_PER_WORKGROUP + invocation;
    let run = run_at(4u * quad);
    return Place(quad, run.channel, run.left);
}

// The next quad of an invocation, 256 further. Past the end it is the first again: what comes twice
// is computed twice before it is written twice.
fn next_place(place: Place, first: Place) -> Place {
    let quad = place.address + 256u;
    if (is_past_end(quad)) {
        return first;
    }
    let wraps = place.left <= params.step_inner;
    let left = place.left - params.step_inner;
    let channel = place.channel + params.step_channels + u32(wraps);
    return Place(
        quad,
        channel - choose(0u, params.channels, channel >= params.channels),
        choose(left, left + params.run, wraps),
    );
}

#if STRADDLES
// Whether a quad has values of the next channel too.
fn is_straddling(place: Place) -> bool {
    return place.left < 4u;
}

// The next channel: behind the last of a sample comes the first of the next.
fn channel_behind(place: Place) -> u32 {
    let channel = place.channel + 1u;
    return choose(channel, 0u, channel == params.channels);
}

// Which values are of the channel of the first.
fn of_first_channel(place: Place) -> B {
    return U(0u, 1u, 2u, 3u) < U(place.left);
}
#endif
