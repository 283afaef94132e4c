// Quads that cover the planes of a channel, where L is no multiple of four: from the quad that the
// first value of a plane is in to that of its last, at most (L + 2)/4 + 1. Values of the
// neighbouring channels in the first and the last one do not count, nor do quads behind the plane.

#import element
#import params
#import tile

#if COVERING
// What is none of a plane's, for a quad that stands in.
const BEHIND: u32 = 0x7ffffff0u;

// Elements from the first value of a plane, at this address, to the first one of its quad with this
// number: modulo 2³², where the quad begins before the plane.
fn offset_in_plane(plane: u32, quad: u32) -> u32 {
    return 4u * quad - (plane & 3u);
}

// Which values of a quad count.
fn covered(offset: u32) -> B {
    return (U(offset) + U(0u, 1u, 2u, 3u)) < U(params.run);
}

// How many of them.
fn count_covered(offset: u32) -> u32 {
    let first = min(i32(offset), 0) + 4;
    let left = i32(params.run) - max(i32(offset), 0);
    return u32(max(min(first, left), 0));
}
#endif

// Which values count of a lane's current element.
fn counted_at(walk: Walk) -> B {
#if COVERING
    return covered(offset_in_plane(walk.plane, walk.inner));
#else
    return B(true);
#endif
}
